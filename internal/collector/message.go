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
	ok = true
	for n := 1; ; n++ {
		m, rest := datagram.NextMessage(d)
		if n == datagram.MaxMessages {
			m, rest = d, nil
		}
		if f, fine := in.oneMessage(m, source, now); !fine {
			fault, ok = f, false // one of a datagram is enough
		}
		if d = rest; len(d) == 0 {
			return fault, ok
		}
	}
}

// oneMessage reads a message, or lines of JSON.
func (in *intake) oneMessage(m []byte, source netip.AddrPort, now time.Time) (fault ledger.Fault, ok bool) {
	takes := in.c.takes
	switch {
	case datagram.IsSyslog(m) && takes.syslog:
		p, err := datagram.UnpackSyslog(m)
		if err != nil {
			return in.other(p, err, m, source, now)
		}
		return in.payload(p, m, source, now)
	case datagram.IsGELF(m) && takes.gelf, !takes.json && takes.gelf:
		return in.gelfMessage(m, source, now)
	case takes.syslog && beginsText(m):
		p, err := datagram.UnpackText(m)
		if err != nil {
			if err == datagram.ErrNotEvent {
				err = datagram.ErrNotJSON
			}
			return in.other(p, err, m, source, now)
		}
		return in.payload(p, m, source, now)
	case !takes.json:
		return ledger.FaultNotEvent, false
	}
	ok = true
	for p, err := range datagram.UnpackNDJSON(m) {
		f, fine := ledger.Fault(0), true
		switch {
		case err == nil:
			f, fine = in.payload(p, p.JSON, source, now)
		case err == datagram.ErrNotEvent && takes.gelf:
			f, fine = in.gelfMessage(p.JSON, source, now) // GELF of others may begin with any member
		default:
			f, fine = in.other(p, err, m, source, now)
			if err == datagram.ErrNotJSON && fine {
				return f, fine // all of it was passed on as text
			}
		}
		if !fine {
			fault, ok = f, false // one of a datagram is enough
		}
	}
	return fault, ok
}

// beginsText says whether a message begins with what is no JSON.
func beginsText(m []byte) bool {
	m = bytes.TrimLeft(m, " \t\r\n")
	return len(m) > 0 && m[0] != '{'
}

// gelfMessage reads a message of GELF, or a chunk of one.
func (in *intake) gelfMessage(d []byte, source netip.AddrPort, now time.Time) (ledger.Fault, bool) {
	p, whole, err := in.gelf.Read(d, source, now)
	switch {
	case err != nil:
		return in.other(p, err, in.gelf.Whole(), source, now)
	case !whole:
		return 0, true // the others of its chunks are to come
	case p.Mark.Stream == 0:
		p.JSON = bytes.Clone(p.JSON) // the reader's memory is used again before it is queued
	}
	return in.payload(p, in.gelf.Whole(), source, now)
}

// payload takes what was read of a message. again is what to read once more if it
// is too far ahead to be believed now.
func (in *intake) payload(p datagram.Payload, again []byte, source netip.AddrPort, now time.Time) (ledger.Fault, bool) {
	if p.Mark.Stream != 0 {
		return in.marked(p, again, now)
	}
	in.arrivals = append(in.arrivals, arrival{source: source, kind: p.Kind, line: p.JSON})
	return 0, true
}

// other takes what was read of the message m and is no event: what another sender made
// of one holds one, and what was asked for is passed on.
func (in *intake) other(p datagram.Payload, err error, m []byte, source netip.AddrPort, now time.Time) (ledger.Fault, bool) {
	if err == datagram.ErrNotEvent && p.JSON != nil {
		inside, ok := in.gelf.Inside(p.JSON)
		switch {
		case ok:
			in.arrivals = append(in.arrivals, arrival{source: source, kind: inside.Kind, line: bytes.Clone(inside.JSON)})
			return 0, true
		case p.Kindred && in.known(source, now):
			in.arrivals = append(in.arrivals, arrival{source: source, kind: datagram.KindEvent, line: bytes.Clone(p.JSON)})
			return 0, true
		}
	}
	syslog := datagram.IsSyslog(m)
	switch {
	case in.c.config.Other != OtherPass:
	case err == datagram.ErrNotEvent && p.JSON != nil && !syslog:
		in.passOn(p.JSON, nil, source)
		return 0, true
	case syslog || (err == datagram.ErrNotEvent || err == datagram.ErrNotJSON) && datagram.IsText(m):
		in.passOn(nil, m, source)
		return 0, true
	}
	return faultOf(err), false
}

// known says whether the address has said that it is an agent.
func (in *intake) known(source netip.AddrPort, now time.Time) bool {
	if len(in.arrivals) > 0 {
		in.hand(now) // it may just have said so
	}
	in.c.mu.Lock()
	defer in.c.mu.Unlock()
	for _, t := range []*table{in.c.agents.sources, in.c.agents.strangers} {
		if e, ok := t.byKey[streamKey{source: source}]; ok {
			return e.Value.(*stream).host != nil
		}
	}
	return false
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
	if !p.Mark.Possible() {
		return ledger.FaultHeader, false
	}
	s, verdict, held := in.c.admit(datagram.StreamName{ID: p.Mark.Stream}, place{p.Mark.Number, p.Mark.Number}, false, again, now)
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
	return c.agents.numberedStream(datagram.StreamName{ID: id}, false, now)
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
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false) // a log is no HTML: keep < > & readable
		if err := encoder.Encode(map[string]any{"tetracast_other": message}); err != nil {
			panic("collector: BUG: " + err.Error()) // strings always marshal
		}
		in.add(bytes.TrimSuffix(line.Bytes(), []byte("\n")))
	}
	a.to = len(in.ends)
	in.arrivals = append(in.arrivals, a)
}
