package source

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

// Selection is what tetra's everyday flags select: one filter, which an event
// must pass in every member that is set, and in any value of that member. The
// zero value selects everything.
type Selection struct {
	Namespaces     []string // names; empty text is the host
	NamespaceRegex []string
	Pods           []string // regular expressions
	Processes      []string // regular expressions of binaries
	EventTypes     []string // such as PROCESS_EXEC
	PolicyNames    []string
	CELExpressions []string
	Host           bool // events outside of pods: one more namespace
}

// Filter returns the filter that tetra v1.7.0 sends for the same flags
// (cmd/tetra/getevents/getevents.go), or nil if nothing is selected.
func (s Selection) Filter() (*tetragon.Filter, error) {
	f := &tetragon.Filter{
		Namespace: slices.Clone(s.Namespaces), NamespaceRegex: s.NamespaceRegex, PodRegex: s.Pods,
		BinaryRegex: s.Processes, PolicyNames: s.PolicyNames, CelExpression: s.CELExpressions,
	}
	if s.Host {
		f.Namespace = append(f.Namespace, "")
	}
	for _, name := range s.EventTypes {
		number, ok := tetragon.EventType_value[name]
		if !ok {
			return nil, fmt.Errorf("source: event type %q, want one of %s", name, strings.Join(eventTypes(), ", "))
		}
		f.EventSet = append(f.EventSet, tetragon.EventType(number))
	}
	if len(f.Namespace)+len(f.NamespaceRegex)+len(f.PodRegex)+len(f.BinaryRegex)+len(f.PolicyNames)+len(f.CelExpression)+len(f.EventSet) == 0 {
		return nil, nil
	}
	return f, nil
}

// eventTypes returns the names that can be selected, in the order of their
// numbers.
func eventTypes() (names []string) {
	values := tetragon.EventType(0).Descriptor().Values()
	for i := range values.Len() {
		if v := values.Get(i); v.Number() != 0 {
			names = append(names, string(v.Name()))
		}
	}
	return names
}
