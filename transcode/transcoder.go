package transcode

import (
	"errors"
	"math"
)

// Errors of [Transcoder.Append] and its like; test with errors.Is.
var (
	// ErrMalformed: the bytes are not protobuf wire format, or are cut off.
	ErrMalformed = errors.New("transcode: malformed protobuf message")
	// ErrRange: a Timestamp or Duration outside the range that its definition
	// gives it, which has no JSON form. protojson refuses it as well.
	ErrRange = errors.New("transcode: Timestamp or Duration out of range")
	// ErrDepth: messages nested more than 100 deep.
	ErrDepth = errors.New("transcode: message nested too deep")
	// ErrUnsupported: a type that needs protojson, see [Compile].
	ErrUnsupported = errors.New("transcode: unsupported type")
	// ErrBudget: what is never left out of an event takes more than the size given
	// to [Transcoder.AppendMax].
	ErrBudget = errors.New("transcode: event does not fit the size")
	// ErrLimit: the JSON is longer than the limit given to [Transcoder.AppendLimit],
	// or the message has more fields than any event.
	ErrLimit = errors.New("transcode: message beyond the limits")
)

// maxDepth bounds the recursion. GetEventsResponse needs 7.
const maxDepth = 100

// Options of a [Transcoder]. The zero value is a working one.
type Options struct {
	// CacheBytes bounds the memory of the memo of rendered sub-messages, in
	// bytes; 4 MiB serve a busy host. 0, and less than 128 KiB, switch it off.
	CacheBytes int
	// Fallback is called for a message that cannot be transcoded, if not nil. It
	// appends the JSON of the message to dst and returns the longer slice, in the
	// way of protojson.MarshalOptions.MarshalAppend; if it fails too, its error is
	// the one returned. It must not keep dst or wire.
	Fallback func(dst, wire []byte) ([]byte, error)
	// Undecoded adds to an event of a kind that the descriptor does not have, of
	// which else next to nothing is left, the kind's number and the event's bytes in
	// base64: "tetracast_kind":402,"tetracast_undecoded":"J5ID...". Without it the JSON
	// is protojson's in this case, too.
	Undecoded bool
}

// Info tells what was particular about one message. The zero value says that
// nothing was.
type Info struct {
	// Repaired is the number of runs of invalid UTF-8 that became one U+FFFD each.
	Repaired int
	// Unknown is the number of fields that the descriptor does not have, which the
	// JSON leaves out, and of enum numbers without a name, which it shows as
	// numbers: both mean a sender newer than the program.
	Unknown int
	// Fallback says that Options.Fallback made the JSON.
	Fallback bool
	// Truncated is the number of fields that were left out or shortened to keep to
	// a size, see [Transcoder.AppendMax].
	Truncated int
	// UnknownKind is the number of the event's kind where Options.Undecoded added it,
	// else 0.
	UnknownKind uint32
}

// Transcoder turns protobuf messages into JSON. It holds the buffers, and the
// memo, of its one owner: it is not safe for concurrent use. Make one with
// [Program.NewTranscoder] for each goroutine.
type Transcoder struct {
	program   *Program
	fallback  func(dst, wire []byte) ([]byte, error)
	undecoded bool
	memo      *memo // nil: none

	buf   []byte // the output up to its capacity; empty between calls
	limit int    // that buf does not grow beyond
	info  Info
	fault fault
	depth int
	late  []span // fields put off by the fast form, innermost message last

	occurrences []occurrence // of the careful form, innermost message last
	entries     []entry      // of maps, innermost last
	joined      []byte       // sub-messages put together from several occurrences
	tree        tree         // of the event that is being made smaller

	clocks [8]clock // seconds rendered last, by their lowest bits
}

// NewTranscoder makes a transcoder for p. It allocates its memory as messages
// come, and nothing any more once warm.
func (p *Program) NewTranscoder(o Options) *Transcoder {
	return &Transcoder{program: p, fallback: o.Fallback, undecoded: o.Undecoded, memo: newMemo(o.CacheBytes, p.sites), limit: math.MaxInt, tree: tree{caps: p.caps}}
}

// Append appends the JSON of the message in wire to dst and returns the longer
// slice.
//
// The JSON is what protojson writes with UseProtoNames, without its random
// spaces. Where protojson refuses, for invalid UTF-8, Append repairs and counts
// it in Info. What is left out as unknown is counted too.
//
// dst may be nil; its spare capacity serves as working memory, and is
// overwritten beyond the result. wire is read and not kept. On error dst comes
// back as it was, with one of the errors above or the fallback's, and Info
// holds zeros.
func (t *Transcoder) Append(dst, wire []byte) ([]byte, Info, error) {
	t.buf = dst[:cap(dst)]
	n := t.render(len(dst), wire)
	out := t.buf
	t.buf = nil
	if n >= 0 {
		if t.info.Unknown > 0 && t.undecoded {
			return t.complete(out[:n], wire, t.info)
		}
		return out[:n], t.info, nil
	}
	if t.fallback != nil {
		out, err := t.fallback(dst, wire)
		if err != nil {
			return dst, Info{}, err
		}
		if t.undecoded {
			return t.complete(out, wire, Info{Fallback: true})
		}
		return out, Info{Fallback: true}, nil
	}
	return dst, Info{}, t.fault.err()
}

// complete adds to an event of an unknown kind what it is.
func (t *Transcoder) complete(out, wire []byte, info Info) ([]byte, Info, error) {
	if info.UnknownKind = UnknownKind(wire); info.UnknownKind != 0 {
		out = appendUndecoded(out, info.UnknownKind, wire)
	}
	return out, info, nil
}

// AppendLimit is Append for a message from a stranger, in which a byte may stand for
// many of JSON: it makes no more than limit bytes, and some 200 in the course of it.
// More is ErrLimit, and dst then comes back in memory that may be larger. The
// fallback, which has no such limit, is called only for types that cannot be
// transcoded.
func (t *Transcoder) AppendLimit(dst, wire []byte, limit int) (out []byte, info Info, err error) {
	t.limit = len(dst) + limit + headroom
	defer func() {
		if r := recover(); r == errLimit {
			out, info, err = t.buf[:len(dst)], Info{}, ErrLimit // in the memory that it took
		} else if r != nil {
			panic(r)
		}
		t.buf, t.limit = nil, math.MaxInt
	}()
	t.buf = dst[:min(cap(dst), t.limit)]
	n := t.render(len(dst), wire)
	switch {
	case n > len(dst)+limit:
		return dst, Info{}, ErrLimit
	case n >= 0 && t.info.Unknown > 0 && t.undecoded:
		return t.complete(t.buf[:n], wire, t.info)
	case n >= 0:
		return t.buf[:n], t.info, nil
	case t.fault == faultUnsupported && t.fallback != nil:
		if out, err = t.fallback(dst, wire); err != nil {
			return dst, Info{}, err
		}
		if t.undecoded {
			return t.complete(out, wire, Info{Fallback: true})
		}
		return out, Info{Fallback: true}, nil
	}
	return dst, Info{}, t.fault.err()
}

// errLimit is what grow panics with at the limit, for AppendLimit to recover: the
// limit is asked for only where the buffer grows, and costs nothing elsewhere.
var errLimit = errors.New("transcode: BUG: beyond the limit")

// render writes the message at buf[n:]: in the fast form, which relies on the
// order in which Go's marshaller writes, or else in the careful one, which
// relies on nothing.
func (t *Transcoder) render(n int, wire []byte) int {
	t.reset()
	root := t.program.root
	if root.shape == shapeObject {
		end := t.message(root, wire, n)
		// A value out of range may be the first half of one that is not, and what is
		// malformed may be in a member that a later one replaces.
		if end >= 0 || t.fault != faultOrder && t.fault != faultRange && t.fault != faultMalformed {
			return end
		}
		t.reset()
	}
	return t.carefulMessage(root, wire, n)
}

func (t *Transcoder) reset() {
	t.info, t.fault, t.depth = Info{}, faultNone, 0
	t.late, t.occurrences, t.entries, t.joined = t.late[:0], t.occurrences[:0], t.entries[:0], t.joined[:0]
}

// fault is an error without the cost of one.
type fault uint8

const (
	faultNone fault = iota
	faultOrder
	faultMalformed
	faultRange
	faultDepth
	faultUnsupported
	faultLimit
)

func (f fault) err() error {
	switch f {
	case faultRange:
		return ErrRange
	case faultDepth:
		return ErrDepth
	case faultUnsupported:
		return ErrUnsupported
	case faultLimit:
		return ErrLimit
	}
	return ErrMalformed
}

// fail notes what went wrong and returns the position that says so.
func (t *Transcoder) fail(f fault) int {
	t.fault = f
	return -1
}

// headroom is the room that a field's code finds in the buffer: enough for a
// key of maxKey bytes, a value of fixed size, and brackets.
const headroom = 192

// grow makes room for need bytes at buf[n:], and some more.
func (t *Transcoder) grow(n, need int) {
	if n+need > t.limit {
		panic(errLimit)
	}
	bigger := make([]byte, max(2*len(t.buf), n+need+headroom, 1024))
	copy(bigger, t.buf[:n])
	t.buf = bigger
}
