package line

import (
	"bytes"
	"encoding/json"
)

// Unwrapper takes the events out of the lines of one log. The zero value is ready. It
// is not safe for concurrent use.
type Unwrapper struct {
	// Limit is the longest event that is joined of parts, in bytes; 0: any.
	Limit int

	parts   [streams]parts
	text    []byte // of docker, without its escapes, since Release
	tooLong uint64
	limited uint64
}

// A container has two streams, whose parts come mixed.
const (
	stdout = iota
	stderr

	streams
)

// parts is a line of which some parts have come.
type parts struct {
	text []byte
	n    int
	skip bool // up to the last part: together they are too long
}

// maxParts bounds the parts of a line. A runtime makes one of 8 to 16 KiB.
const maxParts = 1 << 14

// maxPieces bounds what is made of a line that holds several events.
const maxPieces = 64

// blank is what surrounds an event without meaning. A file that was not written out
// before a crash has NULs.
const blank = "\x00 \t\r\n"

// Append appends to dst the events that the line holds, mostly one. What is neither an
// event nor known to be something else is appended too, for whoever checks and counts
// it. What is appended stays valid until Release, and not longer than the line.
func (u *Unwrapper) Append(dst [][]byte, line []byte) [][]byte {
	line = bytes.TrimLeft(line, blank)
	if len(line) == 0 {
		return dst
	}
	content, stream, last, wrapped := u.docker(line)
	if !wrapped {
		content, stream, last, wrapped = cri(line)
	}
	if !wrapped {
		return u.events(dst, line)
	}
	p := &u.parts[stream]
	if !last || p.n > 0 {
		if content, last = p.join(content, last, u); !last {
			return dst
		}
	}
	if stream == stderr && next(content, 0) < 0 {
		return dst // what the program that prints the events says of itself
	}
	return u.events(dst, content)
}

// Release says that what was appended is not needed any more.
func (u *Unwrapper) Release() {
	if u.text = u.text[:0]; cap(u.text) > maxKept {
		u.text = nil
	}
}

// maxKept is the memory for text without escapes that is kept for the next lines.
const maxKept = 1 << 20

// Open says whether there are parts of a line whose last one is to come.
func (u *Unwrapper) Open() bool { return u.parts[stdout].n > 0 || u.parts[stderr].n > 0 }

// Held returns how many bytes of such parts are kept.
func (u *Unwrapper) Held() int { return len(u.parts[stdout].text) + len(u.parts[stderr].text) }

// Reset forgets the parts: the log is at its end.
func (u *Unwrapper) Reset() { u.parts = [streams]parts{} }

// TooLong returns how many joined lines were longer than Limit.
func (u *Unwrapper) TooLong() uint64 { return u.tooLong }

// RateLimited returns how many events Tetragon says it left out, in rate_limit_info.
func (u *Unwrapper) RateLimited() uint64 { return u.limited }

// join adds a part, and returns the line if that was the last one.
func (p *parts) join(content []byte, last bool, u *Unwrapper) (whole []byte, _ bool) {
	p.n++
	if !p.skip && (p.n > maxParts || u.Limit > 0 && len(p.text)+len(content) > u.Limit) {
		u.tooLong++
		p.text, p.skip = nil, true
	}
	if !p.skip {
		p.text = append(p.text, content...)
	}
	if !last {
		return nil, false
	}
	whole = p.text
	*p = parts{}
	return whole, true
}

// cri takes a line of the container runtime interface apart: time, stream, tags and
// what was printed. Without the tag P it is the last part of its line.
func cri(line []byte) (content []byte, stream int, last, ok bool) {
	const date = len("2006-01-02T")
	if len(line) < len("2006-01-02T15:04:05Z stdout F ") || line[4] != '-' || line[7] != '-' || line[date-1] != 'T' {
		return nil, 0, false, false
	}
	_, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return nil, 0, false, false
	}
	name, rest, _ := bytes.Cut(rest, []byte{' '})
	switch string(name) {
	case "stdout":
	case "stderr":
		stream = stderr
	default:
		return nil, 0, false, false
	}
	tags, content, ok := bytes.Cut(rest, []byte{' '})
	if !ok && len(tags) == 0 {
		return nil, 0, false, false
	}
	partial := len(tags) > 0 && tags[0] == 'P' && (len(tags) == 1 || tags[1] == ':')
	return content, stream, !partial, true
}

// events appends the events in the text.
func (u *Unwrapper) events(dst [][]byte, text []byte) [][]byte {
	text = bytes.Trim(text, blank)
	if len(text) == 0 {
		return dst
	}
	from := 0
	if text[0] == '{' {
		from = 1
	}
	second := next(text, from)
	switch {
	case second < 0 && text[0] == '{' && text[len(text)-1] != '}':
		return u.object(dst, text) // something may be behind it
	case second < 0 || text[0] == '{' && json.Valid(text):
		return u.one(dst, text)
	}
	// Something is before an event: a prefix, or one that was cut off.
	first := text[:second]
	if bytes.Contains(first, []byte(`{"`)) {
		dst = u.object(dst, first)
	}
	for range maxPieces {
		text = text[second:]
		if second = next(text, 1); second < 0 {
			break
		}
		dst = u.object(dst, text[:second])
	}
	if second >= 0 {
		return u.one(dst, text) // too many: let it be refused as one
	}
	return u.object(dst, text)
}

// object appends the object that the text begins with, and what is behind it.
func (u *Unwrapper) object(dst [][]byte, text []byte) [][]byte {
	text = bytes.Trim(text, blank)
	if end := objectEnd(text); end > 0 && end < len(text) {
		dst = u.one(dst, text[:end])
		text = bytes.Trim(text[end:], blank)
	}
	if len(text) == 0 {
		return dst
	}
	return u.one(dst, text)
}

// one appends an event, and reads in passing what Tetragon says of itself.
func (u *Unwrapper) one(dst [][]byte, event []byte) [][]byte {
	if bytes.HasPrefix(event, []byte(`{"rate_limit_info"`)) {
		var told struct {
			Info struct {
				Dropped uint64 `json:"number_of_dropped_process_events,string"`
			} `json:"rate_limit_info"`
		}
		if json.Unmarshal(event, &told) == nil {
			u.limited += told.Info.Dropped
		}
	}
	return append(dst, event)
}

// kinds are the events of Tetragon's API, by the member that an event begins with. Its
// value is an object: the labels of a pod, which anybody can choose, are strings.
var kinds = [][]byte{
	[]byte("process_exec"), []byte("process_exit"), []byte("process_kprobe"), []byte("process_tracepoint"), []byte("process_loader"), []byte("process_uprobe"), []byte("process_throttle"),
	[]byte("process_lsm"), []byte("process_usdt"), []byte("rate_limit_info"), []byte("test"),
}

// next returns where, at from or behind it, an event begins; -1: nowhere.
func next(text []byte, from int) int {
	for from < len(text) {
		i := bytes.Index(text[from:], []byte(`{"`))
		if i < 0 {
			return -1
		}
		from += i
		if begins(text[from+2:]) {
			return from
		}
		from += 2
	}
	return -1
}

func begins(member []byte) bool {
	switch {
	case len(member) == 0:
		return false
	case member[0] != 'p' && member[0] != 'r' && member[0] != 't':
		return false
	}
	for _, kind := range kinds {
		if rest, ok := bytes.CutPrefix(member, kind); ok && bytes.HasPrefix(rest, []byte(`":{`)) {
			return true
		}
	}
	return false
}

// objectEnd returns the length of the object that the text begins with, by its braces;
// 0: it does not end.
func objectEnd(text []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}
