package datagram

import (
	"encoding/binary"
	"math/bits"
)

// maxDepth bounds the nesting of JSON that a collector takes. The deepest
// event of the recorded corpus has 9 levels.
const maxDepth = 128

// scanner checks that a text is one JSON object (RFC 8259), white space around
// it allowed. It stands in for json.Valid, which gives the same answer at
// several times the cost (BenchmarkUnpackJSON) and cannot tell a cut-off
// object from other junk.
type scanner struct {
	text       []byte
	pos        int
	start, end int // of the object, set by object

	lineBreak bool // CR or LF between tokens
	nonASCII  bool // a byte of 0x80 or above inside a string

	atRoot bool // the value at hand is the root, whose members are noted
	root   rootMembers
}

// object scans one object, white space before it aside. The error is ErrCutOff if
// the text ended inside the object, else ErrNotJSON.
func (s *scanner) object() error {
	s.space()
	s.start, s.lineBreak = s.pos, false // a break before the object is not in its line
	if s.pos == len(s.text) || s.text[s.pos] != '{' {
		return ErrNotJSON
	}
	s.atRoot = true
	if err := s.value(); err != nil {
		return err
	}
	s.end, s.atRoot = s.pos, false
	return nil
}

// value scans one value with all that is nested in it, without recursion.
func (s *scanner) value() error {
	var closers [maxDepth]byte // what closes each open object or array
	depth := 0
	for {
		s.space()
		if s.pos == len(s.text) {
			return ErrCutOff
		}
		c := s.text[s.pos]
		switch {
		case c == '{' || c == '[':
			if depth == maxDepth {
				return ErrNotJSON
			}
			closers[depth] = c + 2 // '}' is '{'+2 and ']' is '['+2
			depth++
			s.pos++
			s.space()
			if s.pos < len(s.text) && s.text[s.pos] == closers[depth-1] {
				break // empty: closed below, as after a value
			}
			if c == '{' {
				if err := s.key(depth); err != nil {
					return err
				}
			}
			continue
		case c == '"':
			if err := s.string(); err != nil {
				return err
			}
		default:
			if err := s.scalar(c); err != nil {
				return err
			}
		}
		// After a value: close what it ends, then go on after a comma.
		for {
			if depth == 0 {
				return nil
			}
			s.space()
			if s.pos == len(s.text) {
				return ErrCutOff
			}
			c := s.text[s.pos]
			s.pos++
			if c == closers[depth-1] {
				depth--
				continue
			}
			if c != ',' {
				return ErrNotJSON
			}
			if closers[depth-1] == '}' {
				if err := s.key(depth); err != nil {
					return err
				}
			}
			break
		}
	}
}

// key scans an object's key and its colon.
func (s *scanner) key(depth int) error {
	s.space()
	if s.pos == len(s.text) {
		return ErrCutOff
	}
	if s.text[s.pos] != '"' {
		return ErrNotJSON
	}
	start := s.pos + 1
	if err := s.string(); err != nil {
		return err
	}
	end := s.pos - 1
	s.space()
	if s.pos == len(s.text) {
		return ErrCutOff
	}
	if s.text[s.pos] != ':' {
		return ErrNotJSON
	}
	s.pos++
	if depth == 1 && s.atRoot {
		if s.space(); s.pos < len(s.text) {
			s.root.note(s.text[start:end], s.text[s.pos])
		}
	}
	return nil
}

// space skips white space.
func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case '\n', '\r':
			s.lineBreak = true
		case ' ', '\t':
		default:
			return
		}
		s.pos++
	}
}

// Constants of the search for a special byte in eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// string scans from one quote to the next, eight bytes at a time.
func (s *scanner) string() error {
	text, i := s.text, s.pos+1
	for {
		for i+8 <= len(text) {
			w := binary.LittleEndian.Uint64(text[i:])
			quote, backslash := w^(ones*'"'), w^(ones*'\\')
			// A byte below 0x20, a quote or a backslash borrows into its high
			// bit; a byte of 0x80 and above has it already. What the borrow does
			// to the bytes above does not matter: the lowest mark is right.
			if marks := ((w - ones*0x20) | (quote - ones) | (backslash - ones) | w) & highs; marks != 0 {
				i += bits.TrailingZeros64(marks) / 8
				break
			}
			i += 8
		}
		if i >= len(text) {
			return ErrCutOff
		}
		switch c := text[i]; {
		case c == '"':
			s.pos = i + 1
			return nil
		case c == '\\':
			n, err := escape(text[i:])
			if err != nil {
				return err
			}
			i += n
		case c < 0x20:
			return ErrNotJSON
		default:
			s.nonASCII = s.nonASCII || c >= 0x80
			i++
		}
	}
}

// escape returns the length of the escape sequence that text begins with.
func escape(text []byte) (int, error) {
	if len(text) < 2 {
		return 0, ErrCutOff
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
		for i := 2; i < 6; i++ {
			if i == len(text) {
				return 0, ErrCutOff
			}
			c := text[i] | 0x20 // lower case, and digits as they are
			if !(isDigit(text[i]) || 'a' <= c && c <= 'f') {
				return 0, ErrNotJSON
			}
		}
		return 6, nil
	}
	return 0, ErrNotJSON
}

// scalar scans a number, true, false or null.
func (s *scanner) scalar(first byte) error {
	switch first {
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *scanner) literal(word string) error {
	rest := s.text[s.pos:]
	if len(rest) < len(word) {
		if string(rest) == word[:len(rest)] {
			return ErrCutOff
		}
		return ErrNotJSON
	}
	if string(rest[:len(word)]) != word {
		return ErrNotJSON
	}
	s.pos += len(word)
	return nil
}

// number scans RFC 8259, section 6: minus, integer without leading zeros,
// fraction, exponent.
func (s *scanner) number() error {
	if s.text[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.text) && s.text[s.pos] == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.pos < len(s.text) && s.text[s.pos] == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if s.pos < len(s.text) && s.text[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.text) && (s.text[s.pos] == '+' || s.text[s.pos] == '-') {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

func (s *scanner) digits() error {
	start := s.pos
	for s.pos < len(s.text) && isDigit(s.text[s.pos]) {
		s.pos++
	}
	switch {
	case s.pos > start:
		return nil
	case s.pos == len(s.text):
		return ErrCutOff
	}
	return ErrNotJSON
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
