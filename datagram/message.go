package datagram

import "bytes"

// MaxMessages is how many messages [NextMessage] tells apart in a datagram: what it
// takes to write one must not be much more than what it took to send it.
const MaxMessages = 256

// NextMessage returns the first message of a datagram that holds text, and what
// follows it. Between two messages of syslog stands a line break, or before each its
// length as TCP has it (RFC 6587, section 3.4.1); lines of JSON are one message. A byte
// order mark before the first is left out. It does not allocate.
func NextMessage(datagram []byte) (message, rest []byte) {
	text := bytes.TrimPrefix(datagram, []byte(byteOrderMark))
	if n, after, ok := octetCount(text); ok {
		text = after
		if n < len(text) {
			return text[:n], bytes.TrimLeft(text[n:], "\r\n")
		}
	}
	if !IsSyslog(text) {
		return text, nil
	}
	for at := 0; ; {
		end := bytes.IndexByte(text[at:], '\n')
		if end < 0 {
			return text, nil
		}
		if at += end + 1; IsSyslog(text[at:]) {
			return text[:at-1], text[at:]
		}
	}
}

// octetCount reads the length that stands before a message.
func octetCount(text []byte) (n int, rest []byte, ok bool) {
	digits := 0
	for digits < len(text) && digits < len("65507") && isDigit(text[digits]) {
		n = 10*n + int(text[digits]-'0')
		digits++
	}
	if digits == 0 || text[0] == '0' || len(text) < digits+2 || text[digits] != ' ' || text[digits+1] != '<' && text[digits+1] != '{' {
		return 0, nil, false
	}
	return n, text[digits+1:], true
}

// maxBraces is how many objects are looked for in a text.
const maxBraces = 4

// UnpackText reads a text that ends with an event, as a header of a kind that nobody
// knows stands before it. What is none is [ErrNotEvent]; [ErrCutOff] is an event
// without its end.
func UnpackText(text []byte) (Payload, error) {
	text = bytes.TrimRight(text, "\x00\r\n ")
	if len(text) == 0 {
		return Payload{}, ErrNotEvent
	}
	fault := ErrNotEvent
	for range maxBraces {
		at := beginOfObject(text)
		if at < 0 {
			break
		}
		text = text[at:]
		p, err := UnpackJSON(text)
		if err == nil {
			return p, nil
		}
		if key, _ := firstString(text); err == ErrCutOff && (key == nil || isKind(key)) {
			fault = ErrCutOff
		}
		text = text[1:]
	}
	return Payload{}, fault
}

// beginOfObject returns where an object with a member seems to begin.
func beginOfObject(text []byte) int {
	for i := 0; ; {
		at := bytes.IndexByte(text[i:], '{')
		if at < 0 {
			return -1
		}
		i += at
		if rest := bytes.TrimLeft(text[i+1:min(len(text), i+9)], " \t\r\n"); len(rest) > 0 && rest[0] == '"' {
			return i
		}
		i++
	}
}

// IsText says whether a datagram is text of any kind: it has no control characters
// but those that text has, and NUL at its end. What is not UTF-8 may be text of an
// older encoding.
func IsText(datagram []byte) bool {
	text := bytes.TrimRight(datagram, "\x00")
	for _, c := range text {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != 0x1b {
			return false
		}
	}
	return len(bytes.TrimSpace(text)) > 0
}
