package datagram

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// What a datagram can have wrong with it. Unpack returns these as they are, so
// that junk costs no allocation.
var (
	ErrEmpty    = errors.New("datagram: empty")
	ErrNotJSON  = errors.New("datagram: not one JSON object")
	ErrCutOff   = errors.New("datagram: JSON object without its end")
	ErrNotEvent = errors.New("datagram: a JSON object, but no event")
)

// Kind says what a payload is.
type Kind uint8

// The kinds of payload.
const (
	KindEvent      Kind = iota + 1 // an event of Tetragon
	KindAgentInit                  // an agent says who it is
	KindAgentStats                 // an agent says what it counted
)

// Payload is what one datagram, or one line of it, held.
type Payload struct {
	Kind Kind
	// JSON is one object on one line, without the newline. It is a slice of the
	// datagram, or of memory of its own if Repaired is true. Beside [ErrNotEvent]
	// it is the object that is no event, if there is one.
	JSON []byte
	// Repaired: the datagram held line breaks between its tokens or invalid
	// UTF-8, either of which would break the output's lines or their readers.
	Repaired bool
	// Mark is the event's place in its stream, if the datagram says so.
	Mark Mark
	// Kindred, beside [ErrNotEvent]: the object has what an event has, but not enough of
	// it: no time and no node, or no kind. From a sender that is known to send events it
	// is one.
	Kindred bool
}

// UnpackJSON reads a datagram of the format json. What it returns is valid
// JSON in valid UTF-8 on one line, whatever the sender did. It does not
// allocate unless it has to repair.
//
// The errors are ErrEmpty, ErrNotJSON, ErrCutOff and ErrNotEvent.
func UnpackJSON(datagram []byte) (Payload, error) {
	if len(datagram) == 0 {
		return Payload{}, ErrEmpty
	}
	p, rest, err := nextJSON(datagram)
	if (err == nil || err == ErrNotEvent) && !isBlank(rest) {
		return Payload{}, ErrNotJSON
	}
	return p, err
}

// nextJSON reads the object that the text begins with, white space aside, and
// returns what follows it; after an error that is what follows the place at
// fault.
func nextJSON(text []byte) (p Payload, rest []byte, err error) {
	s := scanner{text: text}
	if err := s.object(); err != nil {
		return Payload{}, text[min(s.pos, len(text)):], err
	}
	p, rest = Payload{JSON: text[s.start:s.end]}, text[s.end:]
	if s.nonASCII && !utf8.Valid(p.JSON) {
		p.JSON, p.Repaired = bytes.ToValidUTF8(p.JSON, []byte("\uFFFD")), true
	}
	if s.lineBreak {
		var line bytes.Buffer
		if err := json.Compact(&line, p.JSON); err != nil {
			return Payload{}, rest, ErrNotJSON
		}
		p.JSON, p.Repaired = line.Bytes(), true
	}
	p.Kind, p.Mark = kindOf(p.JSON, &s.root), markOf(p.JSON)
	switch {
	case p.Kind != 0:
		return p, rest, nil
	case p.Mark.Stream != 0 && p.Mark.Number > 0:
		p.Kind = KindEvent // its sender gave it a number
		return p, rest, nil
	}
	p.Mark, p.Kindred = Mark{}, s.root.kindred()
	return p, rest, ErrNotEvent
}
