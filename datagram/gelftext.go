package datagram

import (
	"encoding/binary"
	"math/bits"
	"slices"

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
		case c == '\\' && n+1 < len(text) && text[n+1] == 'u':
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
	return append(append(dst, text[:min(n, len(text))]...), "..."...)
}

// appendQuoted appends text as a JSON string.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, text)
	return append(dst, '"')
}

// appendEscaped appends text as the inside of a JSON string. It copies eight
// bytes at a time and takes back what is behind the first that needs an escape:
// JSON inside JSON has a quote in every eight bytes or so.
func appendEscaped(dst, text []byte) []byte {
	const most, word = len(`\u0000`), 8
	for len(text) > 0 {
		part := text[:min(len(text), 4<<10)]
		text = text[len(part):]
		n := len(dst)
		dst = slices.Grow(dst, most*len(part)+word)
		out := dst[n : n+most*len(part)+word]
		k, i := 0, 0
		for i+word <= len(part) {
			w := binary.LittleEndian.Uint64(part[i:])
			binary.LittleEndian.PutUint64(out[k:], w)
			quote, backslash := w^(ones*'"'), w^(ones*'\\')
			// As in scanner.string, but a byte of 0x80 and above is fine.
			marks := ((w-ones*0x20)&^w | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
			if marks == 0 {
				k, i = k+word, i+word
				continue
			}
			clean := bits.TrailingZeros64(marks) / 8
			k, i = k+clean, i+clean
			k += escapeTo(out[k:], part[i])
			i++
		}
		for ; i < len(part); i++ {
			k += escapeTo(out[k:], part[i])
		}
		dst = dst[:n+k]
	}
	return dst
}

// escapeTo writes one byte of a JSON string and returns how many it became.
func escapeTo(out []byte, c byte) int {
	switch {
	case c == '"' || c == '\\':
		out[0], out[1] = '\\', c
		return 2
	case c < 0x20:
		const digits = "0123456789abcdef"
		copy(out, `\u00`)
		out[4], out[5] = digits[c>>4], digits[c&0xf]
		return 6
	}
	out[0] = c
	return 1
}
