package ledger

import (
	"fmt"
	"slices"
)

// Exporter is the account of one exporter process. Its JSON form is the file
// that --account writes. All figures are events where the name does not say
// otherwise.
type Exporter struct {
	Side string `json:"side"` // always "exporter"

	// Intake: what came from the source.
	Seen     uint64 `json:"seen"`     // every event the source handed over
	Excluded uint64 `json:"excluded"` // the exporter's own network calls, left out on purpose
	Dropped  Drops  `json:"dropped"`  // lost before any stream took them
	// UnknownKinds is how many of the seen events were of a kind that the exporter does
	// not know. They are sent like all others.
	UnknownKinds uint64 `json:"unknown_kinds,omitempty"`

	// The subscription to Tetragon. What happened while it was broken nobody
	// can count, so its breaks and their length are stated.
	SubscriptionBreaks uint64 `json:"subscription_breaks"`
	// BlindMS is the milliseconds without a subscription: since its predecessor last
	// counted, where it left that, and else since this process started. Nil is unknown.
	BlindMS *uint64 `json:"blind_ms"`
	Overlap uint64  `json:"overlap"` // events that may have come twice, when filters were changed

	// LeftOut names fields without which the events are asked for, because Tetragon would
	// break the subscription at each event that has one it cannot send; nil: none.
	LeftOut []string `json:"left_out,omitempty"`

	// Upstream is what Tetragon itself lost before the exporter, by stage; nil
	// is unknown. It never enters the equation.
	Upstream map[string]*uint64 `json:"upstream"`

	// UnreadFiles are the latest of the files that were gone, cut short or damaged before
	// they were read to their ends. SubscriptionBreaks counts all of them.
	UnreadFiles []UnreadFile `json:"unread_files,omitempty"`

	Observed ExporterObserved `json:"observed"`

	Closes  *bool    `json:"closes"`
	Streams []Stream `json:"streams"`
}

// UnreadFile is a file of events that was not read to its end.
type UnreadFile struct {
	Path   string  `json:"path"`    // where it was seen last
	ReadTo int64   `json:"read_to"` // bytes
	Cause  string  `json:"cause"`
	Next   string  `json:"next,omitempty"` // the next file that was there
	Lines  *uint64 `json:"lines"`          // that were lost: nil, for nobody knows
}

// ExporterObserved holds figures of the kernel since the exporter began: beside
// the account, never in it. Nil is unknown.
type ExporterObserved struct {
	// SndbufErrors counts what the network namespace could not send for want of
	// buffers: datagrams, or messages of several segments, of all its sockets.
	SndbufErrors *uint64 `json:"sndbuf_errors_netns"`
	// ICMPAnswers counts what hosts and routers answered to datagrams that were sent,
	// by class; see udp.AnswerClasses. They send few of the answers that they could,
	// and anybody can forge one.
	ICMPAnswers map[string]uint64 `json:"icmp_answers"`
}

// Stream is the account of one destination.
type Stream struct {
	Stream      string `json:"stream"` // the stream id, 16 hexadecimal digits
	Destination string `json:"destination"`
	Dropped     Drops  `json:"dropped"` // lost after intake, on the way to this destination
	// Sent: the kernel took the datagram, or failed without proof that nothing
	// left.
	Sent      uint64 `json:"sent"`
	Queued    uint64 `json:"queued"` // taken, not yet sent
	Datagrams uint64 `json:"datagrams"`
	Bytes     uint64 `json:"bytes"` // UDP payload of these datagrams
	Truncated uint64 `json:"truncated"`
	// Outside counts the events that were not for this stream: worked off before it
	// began or after it ended, by a change of the configuration.
	Outside uint64 `json:"outside,omitempty"`
	// Ended is how many streams these figures are the sums of, if they have ended by a
	// change of the configuration; Stream is then the last of them. Zero: one that has
	// not.
	Ended int `json:"ended,omitempty"`
}

// Add adds the figures of another stream.
func (s *Stream) Add(o *Stream) {
	for reason, n := range o.Dropped {
		s.Dropped[reason] += n
	}
	s.Sent += o.Sent
	s.Queued += o.Queued
	s.Datagrams += o.Datagrams
	s.Bytes += o.Bytes
	s.Truncated += o.Truncated
	s.Outside += o.Outside
	s.Ended += o.Ended
}

// UpstreamStages are the places where Tetragon can lose an event before an
// exporter sees it, in the order an event passes them.
func UpstreamStages() []string { return slices.Clone(stages[:]) }

var stages = [...]string{"bpf_missed", "ring_buffer", "event_queue", "listener_overflow_all_clients"}

// Losses are what Tetragon lost by stage, in the order of UpstreamStages; nil is
// unknown.
type Losses [len(stages)]*uint64

// LossesOf picks those of UpstreamStages.
func LossesOf(byStage map[string]*uint64) (l Losses) {
	for i, stage := range stages {
		l[i] = byStage[stage]
	}
	return l
}

// ByStage returns them by name, each of them.
func (l *Losses) ByStage() map[string]*uint64 {
	all := make(map[string]*uint64, len(l))
	for i, stage := range stages {
		all[stage] = l[i]
	}
	return all
}

// Check returns nil if the account closes for each stream, and otherwise an
// error that names the stream and both sides of the equation.
func (e *Exporter) Check() error {
	for i := range e.Streams {
		s := &e.Streams[i]
		n := uint64(max(1, s.Ended))
		seen, excluded, intake, stream := n*e.Seen, n*e.Excluded, n*e.Dropped.Total(), s.Dropped.Total()
		if found := excluded + intake + stream + s.Sent + s.Queued + s.Outside; seen != found {
			return fmt.Errorf("ledger: stream %s to %s: seen %d, but excluded %d + dropped at intake %d + dropped by the stream %d + sent %d + queued %d + outside %d = %d",
				s.Stream, s.Destination, seen, excluded, intake, stream, s.Sent, s.Queued, s.Outside, found)
		}
	}
	return nil
}

// Close sets Closes by [Exporter.Check] and returns its error.
func (e *Exporter) Close() error {
	err := e.Check()
	closes := err == nil
	e.Closes = &closes
	return err
}

// Settle holds the accounts of one exporter with one stream and of the one
// collector it sent to against each other, at the end of both. It returns an
// error if the collector did not receive what was sent.
func Settle(e *Exporter, c *Collector) error {
	var sent uint64
	for i := range e.Streams {
		sent += e.Streams[i].Sent
	}
	if sent != c.Received {
		return fmt.Errorf("ledger: sent %d, but received %d; the sockets dropped %d datagrams, %d could not be decoded",
			sent, c.Received, c.Observed.SocketDropped, c.Undecodable.Total())
	}
	return nil
}
