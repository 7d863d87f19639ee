package datagram

import (
	"encoding/binary"

	"tetracast/transcode"
)

// The most bytes that a part of a sentence has.
const maxPhrase = 256

// appendSentence appends what happened, in words that a person understands:
// which binary, what it did, what a policy did about it, in which pod. It is
// the inside of a JSON string.
func (h *headline) appendSentence(dst []byte) []byte {
	before, after, place := "", "", h.function
	switch string(h.kind) {
	case "process_exec":
		after, place = " started", nil
	case "process_exit":
		after, place = " ended", nil
	case "process_kprobe":
		after = " called "
	case "process_tracepoint":
		after = " reached tracepoint "
	case "process_uprobe":
		after = " reached user function "
	case "process_usdt":
		after = " reached user probe "
	case "process_lsm":
		after = " reached LSM hook "
	case "process_loader":
		after = " loaded "
	case "process_throttle":
		return h.appendThrottle(dst)
	case "rate_limit_info":
		return append(dst, "Tetragon dropped events of its export file: rate limit reached"...)
	case "agent_init":
		return append(dst, "tetracast started to send, or says again who it is"...)
	case "agent_stats":
		return append(dst, "tetracast says what it counted"...)
	default:
		before, place = "event of Tetragon: ", h.kind
	}
	dst = append(dst, before...)
	if before == "" {
		dst = appendPhrase(dst, h.binary, "a process")
		dst = append(dst, after...)
	}
	if h.subsystem != nil {
		dst = append(appendPhrase(dst, h.subsystem, ""), '/')
	}
	dst = appendPhrase(dst, place, "")
	if text := doneBy(actionNamed(h.action)); text != "" {
		dst = append(dst, text...)
		dst = appendPhrase(dst, h.policy, "unknown")
	} else if h.policy != nil {
		dst = append(dst, ", seen by policy "...)
		dst = appendPhrase(dst, h.policy, "")
	}
	if h.pod != nil {
		dst = append(dst, ", in pod "...)
		if h.namespace != nil {
			dst = append(appendPhrase(dst, h.namespace, ""), '/')
		}
		dst = appendPhrase(dst, h.pod, "")
	}
	return dst
}

func (h *headline) appendThrottle(dst []byte) []byte {
	dst = append(dst, "control group "...)
	dst = appendPhrase(dst, cutNULs(h.function), "unknown")
	if string(h.throttling) == "THROTTLE_STOP" {
		return append(dst, ": Tetragon reports its events again"...)
	}
	return append(dst, ": Tetragon holds its events back, there are too many"...)
}

// cutNULs cuts at the first NUL, which Tetragon fills the name of a control
// group up with.
func cutNULs(text []byte) []byte {
	for i := 0; i+6 <= len(text); i++ {
		if text[i] == '\\' {
			if string(text[i:i+6]) == `\u0000` {
				return text[:i]
			}
			i++
		}
	}
	return text
}

// doneBy says what a policy did, nothing where it only saw.
func doneBy(action transcode.Action) string {
	switch action {
	case actionSigkill:
		return ", killed by policy "
	case actionOverride:
		return ", denied by policy "
	case actionSignal:
		return ", got a signal by policy "
	case actionNotifyEnforcer:
		return ", handed to the enforcer by policy "
	case actionGetURL, actionDNSLookup:
		return ", reported to a URL by policy "
	}
	return ""
}

// appendPhrase appends the inside of a JSON string, cut to a length at which a
// sentence can still be read.
func appendPhrase(dst, text []byte, ifEmpty string) []byte {
	if len(text) == 0 {
		return append(dst, ifEmpty...)
	}
	if len(text) <= maxPhrase {
		return append(dst, text...)
	}
	n := 0
	for n < maxPhrase { // an escape sequence or a character is not cut
		size := 1
		switch c := text[n]; {
		case c == '\\' && text[n+1] == 'u':
			size = 6
		case c == '\\':
			size = 2
		case c >= 0xc0:
			for size < 4 && n+size < len(text) && text[n+size]&0xc0 == 0x80 {
				size++
			}
		}
		n += size
	}
	return append(append(dst, text[:n]...), "..."...)
}

// appendQuoted appends text as a JSON string. Eight bytes at a time are copied
// where none of them needs to be escaped.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, text)
	return append(dst, '"')
}

// appendEscaped appends text as the inside of a JSON string.
func appendEscaped(dst, text []byte) []byte {
	start, i := 0, 0
	for i < len(text) {
		if i+8 <= len(text) {
			w := binary.LittleEndian.Uint64(text[i:])
			quote, backslash := w^(ones*'"'), w^(ones*'\\')
			// As in scanner.string, but a byte of 0x80 and above is fine.
			if ((w-ones*0x20)&^w|(quote-ones)&^quote|(backslash-ones)&^backslash)&highs == 0 {
				i += 8
				continue
			}
		}
		for end := min(i+8, len(text)); i < end; i++ {
			c := text[i]
			if c >= 0x20 && c != '"' && c != '\\' {
				continue
			}
			dst = append(dst, text[start:i]...)
			start = i + 1
			if c < 0x20 {
				const digits = "0123456789abcdef"
				dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&0xf])
			} else {
				dst = append(dst, '\\', c)
			}
		}
	}
	return append(dst, text[start:]...)
}
