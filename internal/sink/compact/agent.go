package compact

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// agentEvent has the fields of agent_init and agent_stats that a person wants.
type agentEvent struct {
	Timestamp       string            `json:"@timestamp"`
	Event           string            `json:"event"`
	Hostname        string            `json:"hostname"`
	TetragonVersion string            `json:"tetragon_version"`
	KernelVersion   string            `json:"kernel_version"`
	PID             int64             `json:"pid"`
	UDPDestination  string            `json:"udp_destination"`
	Seen            uint64            `json:"seen"`
	Excluded        uint64            `json:"excluded"`
	Sent            uint64            `json:"sent"`
	Refused         uint64            `json:"refused"`
	Dropped         map[string]uint64 `json:"dropped"`
	LastHeard       string            `json:"last_heard"`
	SilentSeconds   uint64            `json:"silent_seconds"`
}

// showAgent appends an agent's own event, and reports false if it is none.
func (s *Sink) showAgent(object []byte) bool {
	var e agentEvent
	if json.Unmarshal(object, &e) != nil {
		return false
	}
	l := &s.line
	if s.time {
		l.word(plain, e.Timestamp)
	}
	switch e.Event {
	case "agent_init":
		l.verb("📡", e.Event)
		l.word(green, e.Hostname)
		l.put(magenta, "tetragon "+e.TetragonVersion)
		l.put(plain, "kernel "+e.KernelVersion+" pid "+strconv.FormatInt(e.PID, 10))
		l.put(cyan, "-> "+e.UDPDestination)
		return true
	case "agent_silent":
		l.verb("🔇", e.Event)
		l.word(green, e.Hostname)
		s.showSilence(&e)
		return true
	case "agent_back":
		l.verb("🔊", e.Event)
		l.word(green, e.Hostname)
		s.showSilence(&e)
		return true
	case "agent_stats":
		l.verb("📊", e.Event)
		l.word(green, e.Hostname)
		for _, f := range []struct {
			name string
			n    uint64
		}{{"seen", e.Seen}, {"excluded", e.Excluded}, {"sent", e.Sent}} {
			l.raw(plain, f.name)
			l.number(f.n, "")
		}
		if e.Refused > 0 {
			l.raw(red, "refused "+strconv.FormatUint(e.Refused, 10))
		}
		for _, reason := range slices.Sorted(maps.Keys(e.Dropped)) {
			l.put(red, "dropped "+reason+" "+strconv.FormatUint(e.Dropped[reason], 10))
		}
		return true
	}
	return false
}

// showSilence appends how long an agent was not heard.
func (s *Sink) showSilence(e *agentEvent) {
	s.line.put(red, "silent for "+(time.Duration(e.SilentSeconds)*time.Second).String())
	if e.LastHeard == "" {
		s.line.put(plain, "never heard before")
	} else {
		s.line.put(plain, "last heard "+e.LastHeard)
	}
}
