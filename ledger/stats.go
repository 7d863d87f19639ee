package ledger

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventAgentStats is the value of an agent_stats' member "event".
const EventAgentStats = "agent_stats"

// AgentStats is a sender's account of one stream as an event of its own, so that
// a collector that knows nothing but JSON can audit: between two of them it must
// have received what the difference says. Its fields stand in the order in
// which they are written. All figures are since the stream began.
type AgentStats struct {
	Timestamp          time.Time          `json:"@timestamp"`
	Event              string             `json:"event"`  // EventAgentStats
	Stream             string             `json:"stream"` // the stream id, 16 hexadecimal digits
	Hostname           string             `json:"hostname"`
	ClusterName        string             `json:"cluster_name"` // empty: Tetragon names none
	StartedAt          time.Time          `json:"started_at"`
	UptimeSeconds      uint64             `json:"uptime_seconds"`
	Seen               uint64             `json:"seen"`
	Excluded           uint64             `json:"excluded"`
	Dropped            map[string]uint64  `json:"dropped"`     // by reason: at intake, and by this stream
	Refused            uint64             `json:"refused"`     // the part of dropped that had a number already
	LastNumber         uint64             `json:"last_number"` // so many events were given a number
	Sent               uint64             `json:"sent"`
	Datagrams          uint64             `json:"datagrams"`
	Truncated          uint64             `json:"truncated"`
	ICMPAnswers        *uint64            `json:"icmp_answers"` // of hosts and routers to its datagrams; nil is unknown
	SubscriptionBreaks uint64             `json:"subscription_breaks"`
	BlindMS            *uint64            `json:"blind_ms"` // as Exporter.BlindMS; nil is unknown
	Upstream           map[string]*uint64 `json:"upstream"` // by stage; nil is unknown
	// Goodbye: no event of the stream follows, and the figures are final.
	Goodbye bool `json:"goodbye,omitempty"`
	// ReportedBy is set where a process reports for its predecessor, which was
	// killed: the stream id under which it does so itself.
	ReportedBy string `json:"reported_by,omitempty"`
	// Offered are events of such a predecessor of which nobody on its side knows
	// whether they were sent. They are counted as dropped, killed, and not in Sent. Nil:
	// there were none.
	Offered *Offered `json:"offered,omitempty"`
	// Streams is set where the figures are the sum of so many streams, of predecessors
	// too many to be told one by one; Stream is then empty.
	Streams uint64 `json:"streams,omitempty"`
}

// AppendJSON appends the event as one JSON object without a newline.
func (s *AgentStats) AppendJSON(dst []byte) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic("ledger: BUG: " + err.Error()) // strings, integers and times of this era always marshal
	}
	return append(dst, text...)
}

// ReadAgentStats reads what AppendJSON wrote. Members that this release does not
// know are left out.
func ReadAgentStats(text []byte) (*AgentStats, error) {
	s := new(AgentStats)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("ledger: reading agent_stats: %w", err)
	}
	if s.Event != EventAgentStats {
		return nil, fmt.Errorf("ledger: reading agent_stats: the event is %q", s.Event)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("ledger: reading agent_stats: %w", err)
	}
	return s, nil
}

// The bounds of what an agent_stats may tell by name: a collector keeps it.
const (
	maxStatsNames = 32 // of reasons, and of stages
	maxStatsName  = 64 // bytes
)

// check holds the figures to [MaxNumber], and what is told by name to its bounds.
func (s *AgentStats) check() error {
	var offered Offered
	if s.Offered != nil {
		offered = *s.Offered
	}
	for _, n := range [...]uint64{offered.First, offered.Last, offered.Events, s.Streams, s.UptimeSeconds, s.Seen, s.Excluded, s.Refused, s.LastNumber, s.Sent, s.Datagrams, s.Truncated, s.SubscriptionBreaks, value(s.BlindMS)} {
		if n > MaxNumber {
			return fmt.Errorf("the figure %d, at most %d", n, uint64(MaxNumber))
		}
	}
	if len(s.Dropped) > maxStatsNames || len(s.Upstream) > maxStatsNames {
		return fmt.Errorf("%d reasons and %d stages, at most %d", len(s.Dropped), len(s.Upstream), maxStatsNames)
	}
	for name, n := range s.Dropped {
		if len(name) > maxStatsName || n > MaxNumber {
			return fmt.Errorf("a reason of %d bytes with the figure %d, at most %d and %d", len(name), n, maxStatsName, uint64(MaxNumber))
		}
	}
	for name, n := range s.Upstream {
		if len(name) > maxStatsName || value(n) > MaxNumber {
			return fmt.Errorf("a stage of %d bytes with the figure %d, at most %d and %d", len(name), value(n), maxStatsName, uint64(MaxNumber))
		}
	}
	return nil
}

// Sums returns the figures that frames carry, too.
func (s *AgentStats) Sums() Sums {
	sums := Sums{Seen: s.Seen, Excluded: s.Excluded, Refused: s.Refused}
	for _, n := range s.Dropped {
		sums.Dropped += n
	}
	sums.Dropped -= min(s.Refused, sums.Dropped)
	sums.Dropped = min(sums.Dropped, MaxNumber)
	return sums
}
