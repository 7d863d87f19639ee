package datagram

import (
	"bytes"
	"strconv"
)

// JSONConfig says how [NewJSON] and [NewNDJSON] write. The zero value is usable.
type JSONConfig struct {
	// MaxDatagram is the most bytes of a datagram, newlines included; 0 and
	// anything above it mean MaxPayload.
	MaxDatagram int
	// MaxShared is the most bytes of a datagram that several events share, in
	// ndjson; 0 and anything above it mean MaxDatagram.
	MaxShared int
	// Sequence adds the event's place in its stream as the last member of each
	// event, so that a reader of the events finds what is missing:
	//
	//	"tetracast":{"stream":"5eb63bbbe01eeed0","seq":17,"dropped":0}
	//
	// seq counts 1, 2, 3; dropped is how many events the stream had lost before
	// they got a number. Without it the events are what protojson writes.
	Sequence bool
	Stream   uint64 // id of the stream, for Sequence
}

// JSON is the format json: one event a datagram, the JSON that protojson
// writes, and a newline at its end. It carries no numbers unless asked to.
//
// It implements [Packer] and [Limiter]. Without a sequence it copies no byte.
type JSON struct {
	sequencer
	maxDatagram int
}

// NewJSON returns a packer.
func NewJSON(c JSONConfig) *JSON {
	return &JSON{sequencer: newSequencer(c), maxDatagram: orMaxPayload(c.MaxDatagram)}
}

// orMaxPayload reads a limit on datagrams, where 0 and less is none.
func orMaxPayload(maxDatagram int) int {
	if maxDatagram <= 0 {
		return MaxPayload
	}
	return min(maxDatagram, MaxPayload)
}

// Pack adds the event's line as a datagram.
func (p *JSON) Pack(b *Batch, event *Event) error {
	if len(event.Line)+p.memberLen(event.Number) > p.maxDatagram {
		return ErrOversize
	}
	if p.sequence {
		b.Add(b.keep(p.appendLine(b.room(len(event.Line)+maxMember), event)), 1)
		return nil
	}
	b.Add(event.Line, 1)
	return nil
}

// Flush does nothing: no event waits for another.
func (p *JSON) Flush(*Batch) {}

// PackRecord adds the record as a datagram.
func (p *JSON) PackRecord(b *Batch, record []byte) { p.packRecord(b, record) }

// MaxLine implements [Limiter].
func (p *JSON) MaxLine(event *Event) int { return p.maxDatagram - p.memberLen(event.Number) }

// sequencer adds an event's place in its stream to its line.
type sequencer struct {
	stamp
	sequence bool
	head     []byte // the member up to the number, without a comma behind the stream
}

func newSequencer(c JSONConfig) sequencer {
	s := sequencer{stamp: stamp{stream: c.Stream}, sequence: c.Sequence}
	s.head = append(AppendStreamID([]byte(memberName+memberStream), c.Stream), '"')
	return s
}

// What the member takes: its name, and the most bytes with both numbers.
const (
	memberName    = `,"tetracast":`
	memberStream  = `{"stream":"`
	memberSeq     = `,"seq":`
	memberDropped = `,"dropped":`
	maxMember     = 128
)

// packRecord adds a record, which says whose it is if events do, but has no
// number.
func (s *sequencer) packRecord(b *Batch, record []byte) {
	if s.sequence {
		record = b.keep(s.appendLine(b.room(len(record)+maxMember), &Event{Line: record}))
	}
	b.Add(record, 0)
}

// memberLen is how many bytes the member takes, 0 if there is none.
func (s *sequencer) memberLen(number uint64) int {
	if !s.sequence {
		return 0
	}
	return len(s.head) + len(memberSeq) + digits(number) + len(memberDropped) + digits(s.dropped) + len("}")
}

// digits returns how many decimal digits n has.
func digits(n uint64) int {
	count := 1
	for ; n > 9; n /= 10 {
		count++
	}
	return count
}

// markOf reads the member of an event or record, which is its last.
func markOf(object []byte) (m Mark) {
	const end = "}}"
	if !bytes.HasSuffix(object, []byte(end)) {
		return Mark{} // as nearly all that have none
	}
	tail := object[max(0, len(object)-maxMember):]
	at := bytes.LastIndex(tail, []byte(memberName))
	if at < 0 {
		return Mark{}
	}
	inside, ok := bytes.CutPrefix(tail[at+len(memberName):len(tail)-len(end)], []byte(memberStream))
	if !ok || len(inside) < streamDigits+1 || inside[streamDigits] != '"' {
		return Mark{}
	}
	if m.Stream, ok = ParseStreamID(inside[:streamDigits]); !ok {
		return Mark{}
	}
	inside = inside[streamDigits+1:]
	if seq, ok := bytes.CutPrefix(inside, []byte(memberSeq)); ok {
		number, dropped, _ := bytes.Cut(seq, []byte(memberDropped))
		m.Number, m.Dropped = parseCount(number, 0), parseCount(dropped, 0)
	}
	return m
}

// appendLine appends the event's line, with the member if there is to be one. A
// line that is no object of at least one member, or has no newline, is appended
// as it is.
func (s *sequencer) appendLine(dst []byte, event *Event) []byte {
	line := event.Line
	n := len(line) - len("}\n")
	if !s.sequence || n < len(`{"":0`) || string(line[n:]) != "}\n" {
		return append(dst, line...)
	}
	dst = append(dst, line[:n]...)
	dst = append(dst, s.head...)
	if event.Number > 0 {
		dst = append(dst, memberSeq...)
		dst = strconv.AppendUint(dst, event.Number, 10)
		dst = append(dst, memberDropped...)
		dst = strconv.AppendUint(dst, s.dropped, 10)
	}
	return append(dst, "}}\n"...)
}
