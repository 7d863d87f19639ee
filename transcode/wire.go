package transcode

// uvarint reads the varint at b[i:] and returns its value and where it ends;
// the end is negative if it is cut off or does not fit 64 bits.
//
// Source: https://protobuf.dev/programming-guides/encoding/#varints.
func uvarint(b []byte, i int) (x uint64, end int) {
	for shift := uint(0); shift < 70; shift += 7 {
		if uint(i) >= uint(len(b)) {
			return 0, -1
		}
		c := b[i]
		i++
		if c < 0x80 {
			if shift == 63 && c > 1 {
				return 0, -1
			}
			return x | uint64(c)<<shift, i
		}
		x |= uint64(c&0x7f) << shift
	}
	return 0, -1
}

// uvarint2 is uvarint for the usual one or two bytes, small enough to inline.
func uvarint2(b []byte, i int) (x uint64, end int) {
	if i < len(b) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return uvarint(b, i)
}

// chunk reads the length at b[i:] and returns the bytes that it announces and
// where they end; the end is negative if they are cut off.
func chunk(b []byte, i int) (v []byte, end int) {
	l, i := uvarint2(b, i)
	if i < 0 || l > uint64(len(b)-i) {
		return nil, -1
	}
	end = i + int(l)
	return b[i:end:end], end
}

// maxNumber is the highest field number there is,
// https://protobuf.dev/programming-guides/proto3/#assigning.
const maxNumber = 1<<29 - 1

// fieldTag reads a tag. The end is negative if it is cut off or holds no valid
// field number.
func fieldTag(b []byte, i int) (tag uint32, end int) {
	x, i := uvarint2(b, i)
	if i < 0 || x>>3 == 0 || x>>3 > maxNumber {
		return 0, -1
	}
	return uint32(x), i
}

// maxGroups bounds how deeply unknown groups may be nested.
const maxGroups = 64

// skip returns where the value of a field ends whose tag was read before i, or
// a negative number if it is malformed.
func skip(b []byte, i int, tag uint32) (end int) {
	var groups [maxGroups]uint32 // the numbers of the open groups
	depth := 0
	for {
		switch tag & 7 {
		case wireVarint:
			_, i = uvarint(b, i)
		case wireFixed64:
			i += 8
		case wireBytes:
			_, i = chunk(b, i)
		case wireFixed32:
			i += 4
		case wireGroup:
			if depth == maxGroups {
				return -1
			}
			groups[depth] = tag >> 3
			depth++
		case wireEnd:
			depth--
			if depth < 0 || groups[depth] != tag>>3 {
				return -1
			}
		default:
			return -1
		}
		if i < 0 || i > len(b) {
			return -1
		}
		if depth == 0 {
			return i
		}
		if tag, i = fieldTag(b, i); i < 0 {
			return -1
		}
	}
}
