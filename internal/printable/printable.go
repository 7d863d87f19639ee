// Package printable writes what others said where a person, or a program that reads
// lines, will read it. Host names, stream ids, reasons and error texts come from whoever
// can send a datagram or answer a call: they hold terminal escapes, line breaks and
// names that look like a word of ours.
package printable

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Line returns the text on one line without a character that a terminal would act on:
// such a one, and what is not UTF-8, is written as Go writes it in a string, as \n or
// \x1b. Text that is fine is returned as it is.
func Line(text string) string {
	if isLine(text) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			quoted := strconv.QuoteToASCII(text[i : i+n])
			out.WriteString(quoted[1 : len(quoted)-1])
		} else {
			out.WriteString(text[i : i+n])
		}
		i += n
	}
	return out.String()
}

// Quoted returns the text as it is, or in quotes and escaped if it has a character that
// Line would not leave alone.
func Quoted(text string) string {
	if isLine(text) {
		return text
	}
	return strconv.Quote(text)
}

// Name returns a name that stands among others, in a column or a sentence: one that is not
// a single word of printable characters stands in quotes, so that it cannot pass for
// several, or for a word of ours.
func Name(text string) string {
	if text == "" || strings.ContainsAny(text, " \"") {
		return strconv.Quote(text)
	}
	return Quoted(text)
}

// isLine says whether every character is printable.
func isLine(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) })
}
