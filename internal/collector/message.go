package collector

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"tetracast/datagram"
	"tetracast/ledger"
)

// message reads a datagram of any format but frame, which it tells from its first
// bytes. It returns false and why if not all of it can be used.
func (in *intake) message(d []byte, source netip.AddrPort, now time.Time) (fault ledger.Fault, ok bool) {
	takes := in.c.takes
	switch {
	case datagram.IsSyslog(d) && takes.syslog:
		p, err := datagram.UnpackSyslog(d)
		return in.payload(p, err, d, d, source, now)
	case datagram.IsGELF(d) && takes.gelf, !takes.json && takes.gelf:
		return in.gelfMessage(d, source, now)
	case !takes.json:
		return ledger.FaultNotEvent, false
	}
	ok = true
	for p, err := range datagram.UnpackNDJSON(d) {
		var f ledger.Fault
		var fine bool
		if err == datagram.ErrNotEvent && takes.gelf {
			f, fine = in.gelfMessage(p.JSON, source, now) // GELF of others may begin with any member
		} else {
			f, fine = in.payload(p, err, p.JSON, d, source, now)
		}
		if !fine {
			fault, ok = f, false // one of a datagram is enough
		}
	}
	return fault, ok
}

// gelfMessage reads a message of GELF, or a chunk of one.
func (in *intake) gelfMessage(d []byte, source netip.AddrPort, now time.Time) (ledger.Fault, bool) {
	p, whole, err := in.gelf.Read(d, source, now)
	if !whole && err == nil {
		return 0, true // the others of its chunks are to come
	}
	if err == nil && p.Mark.Stream == 0 {
		p.JSON = bytes.Clone(p.JSON) // the reader's memory is used again before it is queued
	}
	return in.payload(p, err, in.gelf.Whole(), in.gelf.Whole(), source, now)
}

// payload takes what was read of a message. again is what to read once more if it
// is too far ahead to be believed now, and text what to pass on if it is no event
// and no JSON.
func (in *intake) payload(p datagram.Payload, err error, again, text []byte, source netip.AddrPort, now time.Time) (ledger.Fault, bool) {
	switch {
	case err == datagram.ErrNotEvent && in.c.config.Other == OtherPass:
		in.passOn(p.JSON, text, source)
		return 0, true
	case err != nil:
		return faultOf(err), false
	case p.Mark.Stream != 0:
		return in.marked(p, again, now)
	}
	in.arrivals = append(in.arrivals, arrival{source: source, kind: p.Kind, line: p.JSON})
	return 0, true
}

// add appends a line to those at hand.
func (in *intake) add(line []byte) {
	in.text = append(in.text, line...)
	in.ends = append(in.ends, len(in.text))
}

// marked takes an event that carries its number, or a record that says whose it
// is.
func (in *intake) marked(p datagram.Payload, again []byte, now time.Time) (ledger.Fault, bool) {
	a := arrival{kind: p.Kind, sums: ledger.Sums{Dropped: p.Mark.Dropped}, lines: len(in.ends)}
	if p.Kind != datagram.KindEvent {
		a.stream = in.c.speaker(p.Mark.Stream, now)
		in.add(p.JSON)
		a.to = len(in.ends)
		in.arrivals = append(in.arrivals, a)
		return 0, true
	}
	if p.Mark.Number == 0 {
		return ledger.FaultHeader, false
	}
	s, verdict, held := in.c.admit(p.Mark.Stream, p.Mark.Number, false, again, now)
	switch verdict {
	case ledger.Fresh:
	case ledger.Jump:
		return 0, true // it is held; if nobody agrees it becomes a fault
	default:
		in.c.repeat(s, verdict, 1)
		return 0, true
	}
	in.add(p.JSON)
	a.stream, a.first, a.last, a.announced, a.to = s, p.Mark.Number, p.Mark.Number, p.Mark.Number, len(in.ends)
	in.arrivals = append(in.arrivals, a)
	if held {
		return in.again(s, now)
	}
	return 0, true
}

// speaker returns the stream with the id, which says something about itself.
func (c *Collector) speaker(id uint64, now time.Time) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agents.numberedStream(id, false, now)
}

// passOn takes a message that is no event: JSON as it is, anything else as the
// text of an object.
func (in *intake) passOn(object, text []byte, source netip.AddrPort) {
	a := arrival{lines: len(in.ends)}
	if object != nil {
		in.add(object)
	} else {
		if !utf8.Valid(text) {
			text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
		}
		message := struct {
			Message string `json:"message"`
			Source  string `json:"source"`
		}{strings.TrimRight(string(text), "\x00\r\n"), source.String()}
		line, err := json.Marshal(map[string]any{"tetracast_other": message})
		if err != nil {
			panic("collector: BUG: " + err.Error()) // strings always marshal
		}
		in.add(line)
	}
	a.to = len(in.ends)
	in.arrivals = append(in.arrivals, a)
}
