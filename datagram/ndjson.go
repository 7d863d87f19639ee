package datagram

import (
	"bytes"
	"iter"
)

// NDJSON is the format ndjson: as many whole events a datagram as fit, one a
// line, each line ended by a newline. It carries no numbers.
//
// It implements [Packer] and [Resetter]. Lines that lie one behind the other in
// memory, as a worker makes them, become a datagram without being copied.
type NDJSON struct {
	arena
	maxShared, maxDatagram int
	waiting                []byte // the lines of the datagram at hand
	events                 int    // in waiting
	own                    bool   // waiting is the arena's end, not memory of the events
}

// NewNDJSON returns a packer whose datagrams have at most maxShared bytes where
// several events share one and at most maxDatagram where an event is alone in
// one. For maxDatagram, 0 and anything above it mean [MaxPayload]; for
// maxShared they mean maxDatagram.
func NewNDJSON(maxShared, maxDatagram int) *NDJSON {
	maxDatagram = orMaxPayload(maxDatagram)
	if maxShared <= 0 {
		maxShared = maxDatagram
	}
	return &NDJSON{maxShared: min(maxShared, maxDatagram), maxDatagram: maxDatagram}
}

// orMaxPayload reads a limit on datagrams, where 0 and less is none.
func orMaxPayload(maxDatagram int) int {
	if maxDatagram <= 0 {
		return MaxPayload
	}
	return min(maxDatagram, MaxPayload)
}

// Pack adds the event's line to the datagram at hand, or begins another.
func (p *NDJSON) Pack(b *Batch, event *Event) error {
	line := event.Line
	if len(line) > p.maxDatagram {
		return ErrOversize
	}
	if len(p.waiting)+len(line) > p.maxShared {
		p.Flush(b)
	}
	p.events++
	n := len(p.waiting)
	switch {
	case n == 0:
		p.waiting, p.own = line, false
	case len(line) > 0 && cap(p.waiting) >= n+len(line) && &p.waiting[:n+1][n] == &line[0]:
		p.waiting = p.waiting[:n+len(line)]
	default:
		p.keep()
		p.block = append(p.block, line...)
		p.waiting = p.block[len(p.block)-n-len(line):]
	}
	if len(p.waiting) >= p.maxShared {
		p.Flush(b)
	}
	return nil
}

// keep makes waiting the end of the arena.
func (p *NDJSON) keep() {
	if !p.own {
		p.block = append(p.block, p.waiting...)
		p.waiting, p.own = p.block[len(p.block)-len(p.waiting):], true
	}
}

// Flush adds the datagram at hand, if there is one.
func (p *NDJSON) Flush(b *Batch) {
	if p.events > 0 {
		b.Add(p.waiting[:len(p.waiting):len(p.waiting)], p.events)
		p.waiting, p.events, p.own = nil, 0, false
	}
}

// Waiting returns how many events are kept for a datagram that later ones share.
func (p *NDJSON) Waiting() int { return p.events }

// PackRecord adds the record as a datagram.
func (p *NDJSON) PackRecord(b *Batch, record []byte) { b.Add(record, 0) }

// Reset implements [Resetter].
func (p *NDJSON) Reset() {
	waiting := p.waiting
	p.arena.Reset()
	p.block = append(p.block, waiting...) // moves to the front, if it was in the block
	p.waiting, p.own = p.block, true
}

// Forget implements [Resetter].
func (p *NDJSON) Forget() {
	waiting := p.waiting
	p.block = append([]byte(nil), waiting...)
	p.waiting, p.own = p.block, true
}

// MaxLine returns how many bytes the event's line may have, newline included.
func (p *NDJSON) MaxLine(*Event) int { return p.maxDatagram }

// UnpackNDJSON reads a datagram of JSON objects, one a line, and yields each
// line's payload as [UnpackJSON] reads it, or the line's error. Lines may end in
// CRLF, the last one needs no end, and blank ones are skipped. A datagram
// without any object yields [ErrEmpty] once.
func UnpackNDJSON(datagram []byte) iter.Seq2[Payload, error] {
	return func(yield func(Payload, error) bool) {
		empty := true
		for len(datagram) > 0 {
			line := datagram
			if end := bytes.IndexByte(datagram, '\n'); end >= 0 {
				line, datagram = datagram[:end], datagram[end+1:]
			} else {
				datagram = nil
			}
			if isBlank(line) {
				continue
			}
			empty = false
			if !yield(UnpackJSON(line)) {
				return
			}
		}
		if empty {
			yield(Payload{}, ErrEmpty)
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
