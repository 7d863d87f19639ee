package ledger

import "fmt"

// Reason says why an event was lost. Its text, as [Reason.String] gives it, is
// the key in accounts and the label in metrics, and does not change between
// releases.
type Reason uint8

// The reasons of the exporter, of the collector, and the one of both.
const (
	// QueueFullProcess (exporter): an exec or exit for which the queue, bounded in
	// bytes, had no room, or which made room for a later event. Tetragon sent faster
	// than the destinations took.
	QueueFullProcess Reason = iota
	// QueueFullPolicy (exporter): likewise an event of any other kind: of a policy, or
	// enforcement. These are lost only when no exec or exit is left to make room.
	QueueFullPolicy
	// Invalid (exporter): what was given to Send could not be marshalled, what was
	// given to SendJSON is no event as one JSON object, or there is nothing in the message.
	Invalid
	// Untranscodable (exporter): neither the transcoder nor protojson could
	// make JSON of the message.
	Untranscodable
	// Oversize (exporter): longer than one datagram of the destination may be, in the
	// shortest form that says what happened.
	Oversize
	// DestinationFull (exporter): the destination's own buffer was full while
	// other destinations went on.
	DestinationFull
	// Refused (exporter): the destination's host answered port unreachable, and
	// the second try of the same datagram failed too.
	Refused
	// NotPermitted (exporter): the host's packet filter, or a full conntrack
	// table, refused the datagram twice (EPERM).
	NotPermitted
	// TooLarge (exporter): the kernel refused the datagram for its size
	// (EMSGSIZE).
	TooLarge
	// NoBuffers (exporter): for a whole second the network device's queue had no
	// room for the datagram (ENOBUFS).
	NoBuffers
	// SendFailed (exporter): the kernel refused the datagram for another cause.
	SendFailed

	// SinkFull (collector): the queue before the sink had no room. The sink
	// writes slower than datagrams arrive.
	SinkFull
	// SinkFailed (collector): the sink returned an error.
	SinkFailed

	// UnknownDictionary (collector): the events were compressed with a dictionary
	// that this collector does not have.
	UnknownDictionary
	// Broken (collector): the datagram was whole, but what it holds is not what its
	// header says.
	Broken
	// TooLong (collector): longer than the collector's limits allow.
	TooLong

	// Killed (exporter): in a process that was killed, not yet sent, or being sent
	// and not received. Its successor counts it, from the counters that outlived the
	// process.
	Killed
	// Shutdown (both): still queued when the time to stop was over.
	Shutdown

	numReasons
)

var reasonTexts = [numReasons]string{
	QueueFullProcess: "queue_full_process",
	QueueFullPolicy:  "queue_full_policy",
	Invalid:          "invalid",
	Untranscodable:   "untranscodable",
	Oversize:         "oversize",
	DestinationFull:  "destination_full",
	Refused:          "refused",
	NotPermitted:     "not_permitted",
	TooLarge:         "too_large",
	NoBuffers:        "no_buffers",
	SendFailed:       "send_failed",
	SinkFull:         "sink_full",
	SinkFailed:       "sink_failed",

	UnknownDictionary: "unknown_dictionary",
	Broken:            "broken",
	TooLong:           "too_long",

	Killed:   "killed",
	Shutdown: "shutdown",
}

// String returns the reason's fixed text, or "reason(N)" for an unknown one.
func (r Reason) String() string {
	if r < numReasons {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Reasons returns all reasons in their order.
func Reasons() []Reason {
	list := make([]Reason, numReasons)
	for i := range list {
		list[i] = Reason(i)
	}
	return list
}

// Drops counts lost events by reason. The zero value is no loss. It is a plain
// value: whoever owns it counts in it, and a copy is a snapshot.
type Drops [numReasons]uint64

// Total returns the events lost for any reason.
func (d *Drops) Total() uint64 { return sum(d[:]) }

// String returns the reasons that occurred with their counts, as
// "oversize 2, shutdown 1", or "none".
func (d *Drops) String() string { return countsText(reasonTexts[:], d[:]) }

// MarshalJSON writes an object with one member for each reason that occurred,
// in the order of [Reasons].
func (d Drops) MarshalJSON() ([]byte, error) { return appendCounts(nil, reasonTexts[:], d[:]), nil }

// UnmarshalJSON reads what MarshalJSON wrote; an unknown reason is an error.
func (d *Drops) UnmarshalJSON(text []byte) error { return readCounts(text, reasonTexts[:], d[:]) }

// Fault says why a datagram could not be decoded. Such a datagram is counted,
// never logged one by one, and never added to events: nobody can know how many
// were in it.
type Fault uint8

// The faults a collector counts.
const (
	// FaultEmpty: a datagram without a byte.
	FaultEmpty Fault = iota
	// FaultTruncated: longer than the collector's buffer; the kernel cut it.
	FaultTruncated
	// FaultNotJSON: its bytes, or some of its lines, are no JSON object.
	FaultNotJSON
	// FaultCutOff: the beginning of a JSON object without its end.
	FaultCutOff
	// FaultNotEvent: one JSON object, but not an event of Tetragon nor of an
	// agent.
	FaultNotEvent
	// FaultVersion: a frame of a version that this release does not know.
	FaultVersion
	// FaultFlag: a frame with a flag, a kind or a compression that it does not know.
	FaultFlag
	// FaultHeader: a frame whose header contradicts itself.
	FaultHeader
	// FaultUnsealed: not sealed, where a key is configured.
	FaultUnsealed
	// FaultUnknownKey: sealed with a key that this collector does not have.
	FaultUnknownKey
	// FaultCheck: a frame that was damaged on the way or, if sealed, perhaps
	// forged.
	FaultCheck
	// FaultFragment: a fragment that contradicts the others of its event, or had no
	// room.
	FaultFragment
	// FaultSource: its sender's address is not among those allowed.
	FaultSource
	// FaultJump: a frame so far ahead of its stream that one alone is not
	// believed, and none came that agrees.
	FaultJump
	// FaultInflate: compressed, and it cannot be decompressed.
	FaultInflate
	// FaultBomb: compressed, and longer than allowed when decompressed.
	FaultBomb
	// FaultHost: an agent_init or agent_stats that names another host than its key is
	// of, or a host whose key it is not sealed with.
	FaultHost

	numFaults
)

var faultTexts = [numFaults]string{
	FaultEmpty:     "empty",
	FaultTruncated: "truncated",
	FaultNotJSON:   "not_json",
	FaultCutOff:    "cut_off",
	FaultNotEvent:  "not_an_event",

	FaultVersion:    "unknown_version",
	FaultFlag:       "unknown_flag",
	FaultHeader:     "bad_header",
	FaultUnsealed:   "not_sealed",
	FaultUnknownKey: "unknown_key",
	FaultCheck:      "bad_check",
	FaultFragment:   "bad_fragment",
	FaultSource:     "source_not_allowed",
	FaultJump:       "number_too_far_ahead",
	FaultInflate:    "cannot_be_decompressed",
	FaultBomb:       "decompresses_to_too_much",
	FaultHost:       "wrong_host",
}

// String returns the fault's fixed text, or "fault(N)" for an unknown one.
func (f Fault) String() string {
	if f < numFaults {
		return faultTexts[f]
	}
	return fmt.Sprintf("fault(%d)", uint8(f))
}

// Faults counts undecodable datagrams by fault. The zero value is none.
type Faults [numFaults]uint64

// Total returns the undecodable datagrams.
func (f *Faults) Total() uint64 { return sum(f[:]) }

// String returns the faults that occurred with their counts, or "none".
func (f *Faults) String() string { return countsText(faultTexts[:], f[:]) }

// MarshalJSON writes an object with one member for each fault that occurred.
func (f Faults) MarshalJSON() ([]byte, error) { return appendCounts(nil, faultTexts[:], f[:]), nil }

// UnmarshalJSON reads what MarshalJSON wrote; an unknown fault is an error.
func (f *Faults) UnmarshalJSON(text []byte) error { return readCounts(text, faultTexts[:], f[:]) }
