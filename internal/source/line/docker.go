package line

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// docker takes a line of docker's log driver json-file apart. What was printed stands
// in its member log, which ends with a newline if it is the last part of its line.
func (u *Unwrapper) docker(line []byte) (content []byte, stream int, last, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return nil, 0, false, false
	}
	start := len(u.text)
	u.text, rest, ok = appendUnquoted(u.text, rest)
	if !ok {
		return nil, 0, false, false
	}
	content, last = bytes.CutSuffix(u.text[start:], []byte{'\n'})
	if bytes.HasPrefix(rest, []byte(`,"stream":"stderr"`)) {
		stream = stderr
	}
	return content, stream, last, true
}

// appendUnquoted appends the JSON string whose opening quotation mark is before text,
// without its escapes, and returns what is behind the closing one. ok is false if
// there is none, or an escape is wrong.
func appendUnquoted(dst, text []byte) (_, rest []byte, ok bool) {
	for {
		i := bytes.IndexAny(text, `"\`)
		if i < 0 || i+1 >= len(text) && text[i] == '\\' {
			return dst, nil, false
		}
		dst = append(dst, text[:i]...)
		if text[i] == '"' {
			return dst, text[i+1:], true
		}
		c := text[i+1]
		text = text[i+2:]
		switch c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, ok := hexRune(text)
			if !ok {
				return dst, nil, false
			}
			text = text[4:]
			if utf16.IsSurrogate(r) {
				low := rune(utf8.RuneError)
				if bytes.HasPrefix(text, []byte(`\u`)) {
					low, _ = hexRune(text[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					text = text[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return dst, nil, false
		}
	}
}

// hexRune reads the four digits of an escape.
func hexRune(text []byte) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[:4]), 16, 16)
	return rune(n), err == nil
}
