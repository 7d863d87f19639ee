package ledger

import (
	"encoding/json"
	"time"
)

// The values of an [AgentSilence]'s member "event".
const (
	EventAgentSilent = "agent_silent" // nothing new came of an agent for too long
	EventAgentBack   = "agent_back"   // something came of it again
)

// AgentSilence is what a collector says of an agent that it does not hear, or hears
// again, as an event of its own in its output. It is no event of Tetragon, and in no
// account. Its fields stand in the order in which they are written.
type AgentSilence struct {
	Timestamp time.Time  `json:"@timestamp"` // of the collector's clock, as is LastHeard
	Event     string     `json:"event"`
	Hostname  string     `json:"hostname"`
	Stream    string     `json:"stream"`     // heard last, or now: its id, or its source address; empty: unknown
	LastHeard *time.Time `json:"last_heard"` // before the silence; nil: never
	// SilentSeconds is the length of the silence, up to now. Of an agent that was
	// never heard it is the time since the collector began to listen.
	SilentSeconds uint64 `json:"silent_seconds"`
	// Goodbye: what was heard last was that it ended in order.
	Goodbye bool `json:"goodbye,omitempty"`
}

// AppendJSON appends the event as one JSON object without a newline.
func (s *AgentSilence) AppendJSON(dst []byte) []byte {
	e := *s
	if e.LastHeard != nil {
		at := e.LastHeard.UTC()
		e.LastHeard = &at
	}
	text, err := json.Marshal(e)
	if err != nil {
		panic("ledger: BUG: " + err.Error()) // strings, integers and times of this era always marshal
	}
	return append(dst, text...)
}
