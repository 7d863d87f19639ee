package datagram

import (
	"bytes"
	"errors"
)

// ErrNotSyslog is returned for a datagram that does not begin with a priority.
var ErrNotSyslog = errors.New("datagram: no syslog message")

// UnpackSyslog reads a message of the format syslog, RFC 5424 or RFC 3164. It
// is lenient: it wants a priority, and finds the JSON where MSG begins, or as
// [UnpackText] does behind a header that it cannot read.
//
// What is no event is [ErrNotEvent], with or without JSON in it; the other
// errors are [ErrEmpty], [ErrNotSyslog], [ErrNotJSON] and [ErrCutOff]. It does
// not allocate unless the JSON has to be repaired.
func UnpackSyslog(datagram []byte) (Payload, error) {
	if len(datagram) == 0 {
		return Payload{}, ErrEmpty
	}
	n := priorityEnd(datagram)
	if n == 0 {
		return Payload{}, ErrNotSyslog
	}
	message, mark, ok := syslogMessage(datagram[n:])
	if !ok {
		return UnpackText(datagram[n:])
	}
	message = bytes.Trim(message, "\x00\r\n ") // some senders end a message so
	if len(message) == 0 || message[0] != '{' {
		return UnpackText(message)
	}
	p, err := UnpackJSON(message)
	if mark.Stream != 0 && (err == nil || err == ErrNotEvent) {
		if p.Mark = mark; err != nil {
			p.Kind, p.Kindred = KindEvent, false // its sender says so
		}
		return p, nil
	}
	return p, err
}

// IsSyslog says whether a datagram begins with a priority, as no other format
// does.
func IsSyslog(datagram []byte) bool { return priorityEnd(datagram) > 0 }

// priorityEnd returns the length of the priority that a datagram begins with,
// 0 without one: RFC 5424, section 6.2.1.
func priorityEnd(datagram []byte) int {
	const most = len("<191>")
	for i, c := range datagram[:min(len(datagram), most)] {
		switch {
		case i == 0 && c == '<' || i > 0 && isDigit(c):
		case i > 1 && c == '>':
			return i + 1
		default:
			return 0
		}
	}
	return 0
}

// syslogMessage finds MSG behind the priority, and our mark, in a message of RFC 5424.
func syslogMessage(text []byte) (message []byte, mark Mark, ok bool) {
	if rest, ok := bytes.CutPrefix(text, []byte("1 ")); ok {
		for range 5 { // TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID
			_, rest, ok = bytes.Cut(rest, []byte(" "))
		}
		if ok {
			if message, mark, ok := structuredData(rest); ok {
				return bytes.TrimPrefix(bytes.TrimLeft(message, " "), []byte(byteOrderMark)), mark, true
			}
		}
	}
	return nil, Mark{}, false
}

// structuredData reads STRUCTURED-DATA, RFC 5424, section 6.3, and returns what
// follows it.
func structuredData(text []byte) (rest []byte, mark Mark, ok bool) {
	if rest, ok := bytes.CutPrefix(text, []byte("-")); ok {
		return rest, Mark{}, true
	}
	for len(text) > 0 && text[0] == '[' {
		end := bytes.IndexAny(text, " ]")
		if end < 0 {
			return nil, Mark{}, false
		}
		ours := bytes.HasPrefix(text[1:], []byte("tetracast@"))
		text = text[end:]
		for len(text) > 0 && text[0] != ']' {
			var name, value []byte
			if name, value, text, ok = parameter(text); !ok {
				return nil, Mark{}, false
			}
			if ours {
				mark.set(name, value)
			}
		}
		if len(text) == 0 {
			return nil, Mark{}, false
		}
		text, ok = text[1:], true
	}
	return text, mark, ok
}

// parameter reads one SD-PARAM. The value is as it stands there, escaped.
func parameter(text []byte) (name, value, rest []byte, ok bool) {
	text = bytes.TrimLeft(text, " ")
	name, text, ok = bytes.Cut(text, []byte(`="`))
	if !ok {
		return nil, nil, nil, false
	}
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++ // whatever follows is part of the value
		case '"':
			return name, text[:i], text[i+1:], true
		}
	}
	return nil, nil, nil, false
}
