package transcode

import (
	"encoding/base64"
	"strconv"
)

// firstOuter is the least number of the fields that stand beside an event
// (node_name, time and more, tetragon/events.proto); those of kinds are less, or
// KindTest and more.
const firstOuter = 1000

// UnknownKind returns the number of an event's kind if the event has one that this
// release does not know, and 0 for any other message and for malformed bytes.
func UnknownKind(wire []byte) (number uint32) {
	for i := 0; i < len(wire); {
		tag, value := fieldTag(wire, i)
		if value < 0 {
			return 0
		}
		end := skip(wire, value, tag)
		if end < 0 || isEvent(tag>>3) {
			return 0
		}
		i = end
		if n := tag >> 3; number == 0 && tag&7 == wireBytes && (n < firstOuter || n >= uint32(KindTest)) {
			number = n
		}
	}
	return number
}

// appendUndecoded puts what an event of an unknown kind is into the object that ends
// dst: the kind's number, and the whole event as it came, for a reader who knows it.
func appendUndecoded(dst []byte, kind uint32, wire []byte) []byte {
	dst = dst[:len(dst)-len("}")]
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, `"tetracast_kind":`...)
	dst = strconv.AppendUint(dst, uint64(kind), 10)
	dst = append(dst, `,"tetracast_undecoded":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, wire)
	return append(dst, `"}`...)
}
