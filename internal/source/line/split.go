package line

import "bytes"

// Splitter cuts text that comes in pieces into lines. The zero value takes lines of
// any length.
type Splitter struct {
	// Limit is the longest line that is taken, in bytes; 0: any.
	Limit int

	rest    []byte // of a line whose end is to come
	skip    bool   // up to the next newline: the line is too long
	tooLong uint64
}

// Cut returns the first line of text, without its newline, and what is behind it. ok
// is false if there is no newline in text: what there is has been kept for the next
// call. A line that is too long is empty. The line is a slice of text, or of memory that
// is given away.
func (s *Splitter) Cut(text []byte) (line, behind []byte, ok bool) {
	end := bytes.IndexByte(text, '\n')
	if end < 0 {
		s.keep(text)
		return nil, nil, false
	}
	line, behind = text[:end], text[end+1:]
	switch {
	case s.skip:
		s.skip, line = false, nil
	case s.over(len(line)):
		s.tooLong++
		line = nil
	case len(s.rest) > 0:
		line = append(s.rest, line...)
	}
	s.rest = nil
	return line, behind, true
}

func (s *Splitter) keep(text []byte) {
	switch {
	case s.skip:
	case s.over(len(text)):
		s.tooLong++
		s.rest, s.skip = nil, true
	default:
		s.rest = append(s.rest, text...)
	}
}

func (s *Splitter) over(more int) bool { return s.Limit > 0 && len(s.rest)+more > s.Limit }

// End returns what is behind the last newline, as a line: the text is at its end.
func (s *Splitter) End() []byte {
	line := s.rest
	s.Reset()
	return line
}

// Reset forgets what was kept.
func (s *Splitter) Reset() { s.rest, s.skip = nil, false }

// Held returns how many bytes are kept.
func (s *Splitter) Held() int { return len(s.rest) }

// TooLong returns how many lines were longer than Limit.
func (s *Splitter) TooLong() uint64 { return s.tooLong }
