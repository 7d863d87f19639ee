package transcode

import (
	"math/bits"
	"unicode/utf8"
)

// textSlack is the room that text leaves behind a string: for the closing
// quote, the longest escape sequence, and what follows without asking again.
const textSlack = headroom

// text writes s as the rest of a JSON string: the opening quote stands already.
func (t *Transcoder) text(n int, s []byte) int {
	if len(t.buf)-n < len(s)+textSlack {
		t.grow(n, len(s)+textSlack)
	}
	buf := t.buf
	if len(s) < 8 {
		return t.shortText(n, s)
	}
	i := 0
	if wide && len(s) >= wideSize {
		if i = copyClean(buf, n, s); i < len(s) {
			return t.escape(n, s, i)
		}
		n += len(s)
		buf[n] = '"'
		return n + 1
	}
	for ; i+16 <= len(s); i += 16 {
		w, x := load64(s, i), load64(s, i+8)
		store64(buf, n+i, w)
		store64(buf, n+i+8, x)
		if special(w)|special(x) != 0 {
			return t.escape(n, s, i)
		}
	}
	for ; i+8 <= len(s); i += 8 {
		w := load64(s, i)
		store64(buf, n+i, w)
		if m := special(w); m != 0 {
			return t.escape(n, s, i+bits.TrailingZeros64(m)>>3)
		}
	}
	if i < len(s) {
		i = len(s) - 8 // overlaps bytes that are copied already
		w := load64(s, i)
		store64(buf, n+i, w)
		if m := special(w); m != 0 {
			return t.escape(n, s, i+bits.TrailingZeros64(m)>>3)
		}
	}
	n += len(s)
	buf[n] = '"'
	return n + 1
}

// shortText is text for less than eight bytes. There is room.
func (t *Transcoder) shortText(n int, s []byte) int {
	w := uint64(ones * ' ')
	buf := t.buf
	switch {
	case len(s) >= 4:
		lo, hi := load32(s, 0), load32(s, len(s)-4)
		store32(buf, n, lo)
		store32(buf, n+len(s)-4, hi)
		w = uint64(lo) | uint64(hi)<<32
	case len(s) > 0:
		a, b, c := s[0], s[len(s)>>1], s[len(s)-1]
		buf[n], buf[n+len(s)>>1], buf[n+len(s)-1] = a, b, c
		w = w<<24 | uint64(a) | uint64(b)<<8 | uint64(c)<<16
	}
	if special(w) != 0 {
		return t.escape(n, s, 0)
	}
	n += len(s)
	buf[n] = '"'
	return n + 1
}

// escapes holds the letter of a character's short escape sequence, 'u' for the
// long one, and 0 for a character that stands for itself.
var escapes = func() (table [utf8.RuneSelf]byte) {
	for c := range ' ' {
		table[c] = 'u'
	}
	table['\b'], table['\f'], table['\n'], table['\r'], table['\t'] = 'b', 'f', 'n', 'r', 't'
	table['"'], table['\\'] = '"', '\\'
	return table
}()

const hexDigits = "0123456789abcdef"

// escape is text for a string that needs more than copying; its first i bytes
// are copied already.
//
// Each maximal run of invalid UTF-8 becomes one U+FFFD, as strings.ToValidUTF8
// does it, and is counted.
func (t *Transcoder) escape(n int, s []byte, i int) int {
	for n += i; i < len(s); {
		if len(t.buf)-n < len(s)-i+textSlack {
			t.grow(n, len(s)-i+textSlack)
		}
		buf := t.buf
		if wide && i+wideSize <= len(s) {
			clean := copyClean(buf, n, s[i:])
			n, i = n+clean, i+clean
			if i == len(s) {
				break
			}
		} else if i+8 <= len(s) {
			w := load64(s, i)
			store64(buf, n, w)
			clean := bits.TrailingZeros64(special(w)) >> 3
			n, i = n+clean, i+clean
			if clean == 8 {
				continue
			}
		}
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			before := i
			n, i = copyRunes(buf, n, s, i)
			if i > before {
				continue
			}
			if r, size := utf8.DecodeRune(s[i:]); r != utf8.RuneError || size != 1 {
				n, i = n+copy(buf[n:], s[i:i+size]), i+size
				continue
			}
			i += invalidRun(s[i:])
			n += copy(buf[n:], "\uFFFD")
			t.info.Repaired++
		case escapes[c] == 0:
			buf[n] = c
			n, i = n+1, i+1
		case escapes[c] == 'u':
			store64(buf, n, 0x3030755c|uint64(hexDigits[c>>4])<<32|uint64(hexDigits[c&15])<<40) // \u00 and two digits
			n, i = n+6, i+1
		default:
			buf[n], buf[n+1] = '\\', escapes[c]
			n, i = n+2, i+1
		}
	}
	if len(t.buf) == n {
		t.grow(n, textSlack)
	}
	t.buf[n] = '"'
	return n + 1
}

// copyRunes copies characters of two and three bytes, for those outside ASCII
// come together, as long as four bytes are left to read. It returns where it
// stopped in buf and in s.
func copyRunes(buf []byte, n int, s []byte, i int) (int, int) {
	for i+4 <= len(s) {
		w := load32(s, i)
		switch {
		case isRune3(w):
			for i+8 <= len(s) {
				w := load64(s, i)
				if !isRune3(uint32(w)) || !isRune3(uint32(w>>24)) {
					break
				}
				store64(buf, n, w)
				n, i = n+6, i+6
			}
			if i+4 > len(s) || !isRune3(load32(s, i)) {
				continue
			}
			store32(buf, n, load32(s, i))
			n, i = n+3, i+3
		case w&0xc0e0 == 0x80c0 && w&0x1e != 0: // two bytes, not overlong
			store32(buf, n, w)
			n, i = n+2, i+2
		default:
			return n, i
		}
	}
	return n, i
}

// isRune3 reports whether w begins with a character of three bytes, which is not
// overlong and no surrogate.
func isRune3(w uint32) bool {
	return w&0xc0c0f0 == 0x8080e0 && w&0x200f != 0 && w&0x200f != 0x200d
}

// invalidRun returns the length of the run of invalid bytes that s begins with.
func invalidRun(s []byte) int {
	i := 1
	for i < len(s) {
		if r, size := utf8.DecodeRune(s[i:]); r != utf8.RuneError || size != 1 {
			break
		}
		i++
	}
	return i
}
