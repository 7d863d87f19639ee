package ledger

import (
	"fmt"
	"time"

	"tetracast/internal/printable"
)

// Collector is the account of one collector process. Its JSON form is the file
// that --account writes. All figures are events where the name does not say
// otherwise; agent_init and agent_stats are not events.
type Collector struct {
	Side      string `json:"side"` // always "collector"
	Datagrams uint64 `json:"datagrams"`
	Bytes     uint64 `json:"bytes"` // UDP payload of these datagrams

	// Undecodable counts datagrams.
	Undecodable Faults   `json:"undecodable_datagrams"`
	Observed    Observed `json:"observed"`
	// PassedOn counts messages that are no events of Tetragon, and were passed on
	// because that was asked for.
	PassedOn uint64 `json:"passed_on,omitempty"`

	Received  uint64 `json:"received"`  // events decoded, each counted once
	Dropped   Drops  `json:"dropped"`   // received, then lost before the sink had them
	Queued    uint64 `json:"queued"`    // received, waiting for the sink
	Delivered uint64 `json:"delivered"` // the sink's write returned without error
	// Overlap counts events that more than one collector received; 0 in the
	// account of one collector.
	Overlap uint64 `json:"overlap,omitempty"`
	// KilledAt is when this collector began anew after it had been killed: of a stream
	// that it does not know, and that is older, it may have received some. Nil: never.
	KilledAt *time.Time `json:"killed_at,omitempty"`

	// Closes is nil while the end of a stream is not known.
	Closes *bool   `json:"closes"`
	Agents []Agent `json:"agents"`
}

// Observed holds figures of the kernel: beside the account, never in it.
type Observed struct {
	// SocketDropped counts what the receive queue had no room for: datagrams,
	// or with GRO whole super-packets. Scope: the collector's sockets.
	SocketDropped uint64 `json:"socket_dropped"`
	// ChunkSetsGivenUp counts messages of GELF of which chunks never came, or for
	// which there was no room: to whom they belong nobody can know.
	ChunkSetsGivenUp uint64 `json:"chunk_sets_given_up,omitempty"`
	// FragmentSetsGivenUp counts what frames held in fragments, events or what an agent
	// says of itself, of which fragments never came, or for which there was no room.
	FragmentSetsGivenUp uint64 `json:"fragment_sets_given_up,omitempty"`
}

// Agent is what one host's exporter processes sent.
type Agent struct {
	Hostname string        `json:"hostname"` // empty: no agent_init came
	Restarts uint64        `json:"restarts"`
	Streams  []AgentStream `json:"streams"`
	Away     Away          `json:"away"`
}

// AgentStream is one stream as the collector saw it. A nil figure is unknown,
// because the format carries no numbers.
type AgentStream struct {
	Stream          string  `json:"stream"` // the stream id, or the source address where the format carries none
	Announced       *uint64 `json:"announced"`
	Received        uint64  `json:"received"`
	Duplicate       *uint64 `json:"duplicate"`
	Late            *uint64 `json:"late"`
	Incomplete      *uint64 `json:"incomplete"`
	Missing         *uint64 `json:"missing"`
	RefusedBySender *uint64 `json:"refused_by_sender"`
	// Unknown counts numbers that may have come shortly before the collector was
	// killed.
	Unknown *uint64 `json:"unknown"`
	Ended   string  `json:"ended"` // "goodbye" or "unknown"
	// Sender is the exporter's own account, as it last announced it.
	Sender map[string]uint64 `json:"sender"`
	// SenderDropped are its drops by reason, and Upstream what Tetragon lost before
	// it, as its last agent_stats told.
	SenderDropped map[string]uint64  `json:"sender_dropped,omitempty"`
	Upstream      map[string]*uint64 `json:"upstream,omitempty"`
	// Numbers are the events' numbers that were received, and UnknownNumbers those
	// that Unknown counts: what several collectors' accounts are united by.
	Numbers        *Ranges `json:"numbers,omitempty"`
	UnknownNumbers *Ranges `json:"unknown_numbers,omitempty"`
	// BlindAfter: the collector was killed, and of the numbers after this one nothing
	// has come to it since; what it had received of them is unknown.
	BlindAfter *uint64 `json:"blind_after,omitempty"`
	// StartedAt is when the stream began, by its sender's clock. Nil: it told nobody.
	StartedAt *time.Time `json:"started_at,omitempty"`
	// KeyHost is the host with whose key the stream is sealed: another host could choose
	// the same id. Empty: no host's.
	KeyHost string `json:"key_host,omitempty"`
	// Heard is nil of a stream that was not heard itself, or is not trusted yet.
	Heard *Heard `json:"heard,omitempty"`
	// Offered are the events that the sender was giving to its kernel when it was
	// killed. Sender and SenderDropped count those that were certainly sent as sent, and
	// the others as killed. Nil: there were none.
	Offered *Settled `json:"offered,omitempty"`
}

// name tells the stream from those of other hosts, whatever ids they choose.
func (s *AgentStream) name() string { return s.Stream + "@" + s.KeyHost }

// Clone returns a copy that shares no memory with s, but for Sender.
func (s AgentStream) Clone() AgentStream {
	for _, figure := range []**uint64{&s.Announced, &s.Duplicate, &s.Late, &s.Incomplete, &s.Missing, &s.RefusedBySender, &s.Unknown} {
		if *figure != nil {
			n := **figure
			*figure = &n
		}
	}
	return s
}

// Check returns nil if nothing between socket and sink is unaccounted for, and
// otherwise an error with both sides of the equation that does not hold.
func (c *Collector) Check() error {
	if err := c.CheckTotals(); err != nil {
		return err
	}
	var streams uint64
	for _, a := range c.Agents {
		for _, s := range a.Streams {
			streams += s.Received
			if s.Announced == nil || s.Missing == nil || s.RefusedBySender == nil {
				continue
			}
			var unknown uint64
			if s.Unknown != nil {
				unknown = *s.Unknown
			}
			if found := s.Received + *s.Missing + *s.RefusedBySender + unknown; *s.Announced != found {
				return fmt.Errorf("ledger: stream %s: announced %d, but received %d + missing %d + refused by the sender %d + unknown %d = %d",
					printable.Name(s.Stream), *s.Announced, s.Received, *s.Missing, *s.RefusedBySender, unknown, found)
			}
		}
	}
	if streams+c.Overlap != c.Received {
		return fmt.Errorf("ledger: received %d, but the agents' streams received %d, and %d more than once", c.Received, streams, c.Overlap)
	}
	return nil
}

// CheckTotals is the part of Check that needs no agents.
func (c *Collector) CheckTotals() error {
	if found := c.Delivered + c.Dropped.Total() + c.Queued; c.Received != found {
		return fmt.Errorf("ledger: received %d, but delivered %d + dropped %d + queued %d = %d",
			c.Received, c.Delivered, c.Dropped.Total(), c.Queued, found)
	}
	return nil
}

// Close sets Closes: false if [Collector.Check] fails, true if in addition
// the first event and the goodbye of every stream came and nothing is unknown,
// and nil otherwise. It returns Check's error.
func (c *Collector) Close() error {
	err := c.Check()
	closes := err == nil
	c.Closes = &closes
	if err != nil {
		return err
	}
	for _, a := range c.Agents {
		for _, s := range a.Streams {
			if s.Ended != EndedGoodbye || s.Missing == nil || s.Unknown != nil && *s.Unknown > 0 ||
				s.Numbers != nil && s.Received > 0 && !s.Numbers.Has(1) {
				c.Closes = nil
			}
		}
	}
	return nil
}

// The values of [AgentStream.Ended].
const (
	EndedGoodbye = "goodbye" // the exporter announced its last figures
	EndedUnknown = "unknown" // it has not, or not yet
)
