package datagram

import (
	"bytes"
	"iter"
)

// NDJSON is the format ndjson: as many whole events a datagram as fit, one a
// line, each line ended by a newline. It carries no numbers unless asked to.
//
// It implements [Packer], [Limiter] and [Keeper]. Lines that lie one behind the
// other in memory, as a worker makes them, become a datagram without being
// copied.
type NDJSON struct {
	sequencer
	maxShared, maxDatagram int
	waiting                []byte // the lines of the datagram at hand
	events                 int    // in waiting
	where                  place  // of waiting
	kept                   []byte // memory for lines that wait from one batch to the next
}

// place says whose memory something is.
type place uint8

const (
	ofEvents place = iota
	ofBatch        // with room for a whole datagram
	ofPacker
)

// NewNDJSON returns a packer.
func NewNDJSON(c JSONConfig) *NDJSON {
	p := &NDJSON{sequencer: newSequencer(c), maxDatagram: orMaxPayload(c.MaxDatagram)}
	p.maxShared = p.maxDatagram
	if c.MaxShared > 0 {
		p.maxShared = min(c.MaxShared, p.maxDatagram)
	}
	return p
}

// Pack adds the event's line to the datagram at hand, or begins another.
func (p *NDJSON) Pack(b *Batch, event *Event) error {
	size := len(event.Line) + p.memberLen(event.Number)
	if size > p.maxDatagram {
		return ErrOversize
	}
	if len(p.waiting)+size > p.maxShared {
		p.Flush(b)
	}
	n := len(p.waiting)
	switch {
	case p.sequence || n > 0 && !p.follows(event.Line):
		p.move(b, max(p.maxShared, size))
		p.waiting = p.appendLine(p.waiting, event)
	case n == 0:
		p.waiting, p.where = event.Line, ofEvents
	default:
		p.waiting = p.waiting[:n+len(event.Line)]
	}
	p.events++
	if len(p.waiting) >= p.maxShared {
		p.Flush(b)
	}
	return nil
}

// follows says whether the line lies behind those that wait, in one piece of
// memory.
func (p *NDJSON) follows(line []byte) bool {
	n := len(p.waiting)
	return p.where == ofEvents && len(line) > 0 && cap(p.waiting) >= n+len(line) && &p.waiting[:n+1][n] == &line[0]
}

// move makes what waits the end of the batch's memory, with room for a datagram.
func (p *NDJSON) move(b *Batch, size int) {
	if p.where != ofBatch || p.events == 0 {
		p.waiting, p.where = append(b.Grow(size)[:0], p.waiting...), ofBatch
	}
}

// Flush adds the datagram at hand, if there is one.
func (p *NDJSON) Flush(b *Batch) {
	if p.events == 0 {
		return
	}
	if p.where == ofPacker {
		p.move(b, len(p.waiting))
	}
	b.Add(p.waiting[:len(p.waiting):len(p.waiting)], p.events)
	p.waiting, p.events, p.where = nil, 0, ofEvents
}

// Waiting implements [Keeper].
func (p *NDJSON) Waiting() (events int) { return p.events }

// Keep implements [Keeper].
func (p *NDJSON) Keep() {
	if p.events > 0 && p.where != ofPacker {
		p.kept = append(p.kept[:0], p.waiting...)
		p.waiting, p.where = p.kept, ofPacker
	}
}

// PackRecord adds the record as a datagram.
func (p *NDJSON) PackRecord(b *Batch, record []byte) { p.packRecord(b, record) }

// MaxLine implements [Limiter].
func (p *NDJSON) MaxLine(event *Event) int { return p.maxDatagram - p.memberLen(event.Number) }

// UnpackNDJSON reads a datagram of JSON objects and yields the payload of each as
// [UnpackJSON] reads it, or its error, after which it goes on with the next
// line. White space between the objects is skipped; a datagram of nothing else
// yields [ErrEmpty] once. A datagram of the format json is one of one object.
func UnpackNDJSON(datagram []byte) iter.Seq2[Payload, error] {
	return func(yield func(Payload, error) bool) {
		if isBlank(datagram) {
			yield(Payload{}, ErrEmpty)
			return
		}
		for !isBlank(datagram) {
			p, rest, err := nextJSON(datagram)
			if err != nil && err != ErrNotEvent {
				_, rest, _ = bytes.Cut(rest, []byte("\n"))
			}
			if !yield(p, err) {
				return
			}
			datagram = rest
		}
	}
}

// isBlank says whether the text is nothing but white space (RFC 8259).
func isBlank(text []byte) bool {
	for _, c := range text {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}
