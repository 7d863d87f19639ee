package compact

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

// capsColumn is where the mark of a privileged process stands, if the line is
// not longer.
const capsColumn = 120

// event appends an event, and reports false if its kind is unknown.
func (l *line) event(e *tetragon.GetEventsResponse) bool {
	switch e := e.Event.(type) {
	case *tetragon.GetEventsResponse_Test:
		l.verb("🧪", "test")
		return true
	case *tetragon.GetEventsResponse_RateLimitInfo:
		l.verb("🧬", "limited")
		l.number(e.RateLimitInfo.GetNumberOfDroppedProcessEvents(), "events left out by Tetragon's export rate limit")
		return true
	case *tetragon.GetEventsResponse_ProcessThrottle:
		l.throttle(e.ProcessThrottle)
		return true
	}
	process := l.processEvent(e)
	if process != nil && slices.Contains(process.GetCap().GetEffective(), tetragon.CapabilitiesType_CAP_SYS_ADMIN) {
		l.column(capsColumn)
		l.raw(magenta, "🛑 CAP_SYS_ADMIN")
	}
	return process != nil
}

// processEvent appends an event that a process did, and returns the process, or
// nil if the event's kind is unknown.
func (l *line) processEvent(e *tetragon.GetEventsResponse) *tetragon.Process {
	switch event := e.Event.(type) {
	case *tetragon.GetEventsResponse_ProcessExec:
		process := orEmpty(event.ProcessExec.GetProcess())
		l.verb("🚀", "process")
		l.who(e.NodeName, process)
		l.arguments(process)
		return process
	case *tetragon.GetEventsResponse_ProcessExit:
		process := orEmpty(event.ProcessExit.GetProcess())
		l.verb("💥", "exit")
		l.who(e.NodeName, process)
		l.arguments(process)
		if signal := event.ProcessExit.GetSignal(); signal != "" {
			l.word(red, signal)
		} else {
			l.raw(red, strconv.FormatUint(uint64(event.ProcessExit.GetStatus()), 10))
		}
		return process
	case *tetragon.GetEventsResponse_ProcessLoader:
		process := orEmpty(event.ProcessLoader.GetProcess())
		l.verb("🧬", "loader")
		l.who(e.NodeName, process)
		if id := event.ProcessLoader.GetBuildid(); len(id) > 0 {
			l.put(plain, hex.EncodeToString(id))
		}
		l.word(yellow, event.ProcessLoader.GetPath())
		return process
	}
	h, ok := hookOf(e)
	if !ok {
		return nil
	}
	h.process = orEmpty(h.process)
	look := h.look()
	l.verb(look.symbol, look.verb)
	l.who(e.NodeName, h.process)
	for _, name := range look.names {
		l.word(yellow, name)
	}
	l.args(&h, look)
	if h.action > tetragon.KprobeAction_KPROBE_ACTION_POST {
		l.put(red, strings.TrimPrefix(h.action.String(), "KPROBE_ACTION_"))
		l.put(plain, "("+h.policy+")")
	}
	return h.process
}

// orEmpty stands an empty process in for one that is missing: 550 of the
// recorded events have next to nothing of it.
func orEmpty(p *tetragon.Process) *tetragon.Process {
	if p == nil {
		return &tetragon.Process{}
	}
	return p
}

// who appends the pod, or else the node, and the binary, or else the pid.
func (l *line) who(node string, p *tetragon.Process) {
	if pod := p.GetPod(); pod != nil {
		node = pod.GetNamespace() + "/" + pod.GetName()
	}
	l.word(green, node)
	if p.GetBinary() == "" {
		l.raw(magenta, "pid "+strconv.FormatUint(uint64(p.GetPid().GetValue()), 10))
		return
	}
	l.word(magenta, p.GetBinary())
}

func (l *line) arguments(p *tetragon.Process) {
	if p.GetArguments() != "" {
		l.put(cyan, p.GetArguments())
	}
}

func (l *line) throttle(t *tetragon.ProcessThrottle) {
	l.verb("🧬", "throttle")
	switch t.GetType() {
	case tetragon.ThrottleType_THROTTLE_START:
		l.raw(red, "START")
	case tetragon.ThrottleType_THROTTLE_STOP:
		l.raw(green, "STOP ")
	}
	l.word(plain, strings.TrimRight(t.GetCgroup(), "\x00")) // padded to 128 bytes
}
