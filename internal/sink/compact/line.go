package compact

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"tetracast/internal/printable"
)

// maxText is where a text from an event is cut, in bytes. Arguments alone can
// have 131,008.
const maxText = 512

// colour is the number of an ANSI foreground colour (ECMA-48, SGR).
type colour string

const (
	plain   colour = ""
	red     colour = "31"
	green   colour = "32"
	yellow  colour = "33"
	blue    colour = "34"
	magenta colour = "35"
	cyan    colour = "36"
)

// line is a line in the making: words with a space between them.
type line struct {
	color bool
	text  []byte
	width int // characters, without the colours
}

func (l *line) reset() { l.text, l.width = l.text[:0], 0 }

// put appends text from an event as one word or several; what is not printable
// is escaped, and what is too long is cut.
func (l *line) put(c colour, text string) {
	rest := 0
	if len(text) > maxText {
		cut := maxText
		for cut > maxText-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
			cut--
		}
		rest = len(text) - cut
		text = text[:cut]
	}
	text = printable.Quoted(text)
	if rest > 0 {
		text += "...(" + strconv.Itoa(rest) + " bytes more)"
	}
	l.raw(c, text)
}

// word is put for what must be one word, as a path: an empty one, and one with
// spaces, is quoted.
func (l *line) word(c colour, text string) {
	if text == "" || strings.Contains(text, " ") && len(text) <= maxText {
		l.raw(c, strconv.Quote(text))
		return
	}
	l.put(c, text)
}

// number appends a decimal number and, if there is one, its unit.
func (l *line) number(n uint64, unit string) {
	l.raw(cyan, strings.TrimSuffix(strconv.FormatUint(n, 10)+" "+unit, " "))
}

// verb appends the symbol and the verb that a line begins with.
func (l *line) verb(symbol, verb string) {
	l.raw(plain, symbol)
	if pad := 7 - len(verb); pad > 0 {
		verb += strings.Repeat(" ", pad)
	}
	l.put(blue, verb)
}

// raw appends text that is printable already.
func (l *line) raw(c colour, text string) {
	if len(l.text) > 0 {
		l.text = append(l.text, ' ')
		l.width++
	}
	l.width += utf8.RuneCountInString(text)
	if !l.color || c == plain {
		l.text = append(l.text, text...)
		return
	}
	l.text = append(l.text, "\x1b["+string(c)+"m"+text+"\x1b[0m"...)
}

// column appends spaces up to the column, if the line is not there yet.
func (l *line) column(width int) {
	for ; l.width < width; l.width++ {
		l.text = append(l.text, ' ')
	}
}
