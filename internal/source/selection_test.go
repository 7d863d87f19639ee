package source

import (
	"fmt"
	"strings"
	"testing"
)

func TestSelection(t *testing.T) {
	f, err := Selection{Namespaces: []string{"a"}, Host: true, Processes: []string{"sh$"}, EventTypes: []string{"PROCESS_EXEC"}, PolicyNames: []string{"p"}, CELExpressions: []string{"true"}, Pods: []string{"web"}}.Filter()
	if err != nil || strings.ReplaceAll(fmt.Sprint(f), "  ", " ") != `binary_regex:"sh$" namespace:"a" namespace:"" event_set:PROCESS_EXEC pod_regex:"web" policy_names:"p" cel_expression:"true"` {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := (Selection{}).Filter(); f != nil || err != nil {
		t.Errorf("nothing selected: %v, %v", f, err)
	}
	if _, err := (Selection{EventTypes: []string{"EXEC"}}).Filter(); err == nil || !strings.Contains(err.Error(), "PROCESS_EXEC, PROCESS_EXIT") {
		t.Errorf("unknown type: %v", err)
	}
}
