package transcode

import "math/bits"

// uvarint reads the varint at b[i:] and returns its value and where it ends;
// the end is negative if it is cut off or does not fit 64 bits. It is not inlined
// so that those are who call it.
//
// Source: https://protobuf.dev/programming-guides/encoding/#varints.
//
//go:noinline
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

// uvarint8 reads the varint that the lowest bytes of w hold and returns its value
// and length, which is 9 or more if w does not hold all of it.
func uvarint8(w uint64) (x uint64, size int) {
	stop := ^w & highs
	w &= stop ^ (stop - 1)
	w = w&0x007f007f007f007f | w&0x7f007f007f007f00>>1
	w = w&0x00003fff00003fff | w&0x3fff00003fff0000>>2
	w = w&0x000000000fffffff | w&0x0fffffff00000000>>4
	return w, bits.TrailingZeros64(stop)>>3 + 1
}

// uvarint1 is uvarint for the usual one byte, small enough to inline.
func uvarint1(b []byte, i int) (x uint64, end int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return uvarint(b, i)
}

// chunk reads the length at b[i:] and returns the bytes that it announces and
// where they end; the end is negative if they are cut off.
func chunk(b []byte, i int) (v []byte, end int) {
	var l uint64
	if i+1 < len(b) && b[i+1] < 0x80 { // the usual one or two bytes
		l = uint64(b[i])
		if i++; l >= 0x80 {
			l = l&0x7f | uint64(b[i])<<7
			i++
		}
	} else if l, i = uvarint1(b, i); i < 0 {
		return nil, -1
	}
	if l > uint64(len(b)-i) {
		return nil, -1
	}
	end = i + int(l)
	return b[i:end:end], end
}

// short returns where the field at b[i:] ends if it is of the usual form: a tag
// of one byte, a length of one byte, and that many bytes, which begin at i+2. It
// returns 0 for any other form. It is small enough to inline.
func short(b []byte, i int) (end int) {
	if i+1 < len(b) && b[i]&0x87 == wireBytes && b[i+1] < 0x80 {
		if end = i + 2 + int(b[i+1]); end <= len(b) {
			return end
		}
	}
	return 0
}

// maxNumber is the highest field number there is,
// https://protobuf.dev/programming-guides/proto3/#assigning.
const maxNumber = 1<<29 - 1

// fieldTag reads a tag. The end is negative if it is cut off or holds no valid
// field number.
func fieldTag(b []byte, i int) (tag uint32, end int) {
	if i+1 < len(b) { // the usual one or two bytes
		tag, end = uint32(b[i]), i+1
		if tag >= 0x80 {
			tag, end = tag&0x7f|uint32(b[i+1])<<7, i+2
		}
		if tag>>3 != 0 && b[end-1] < 0x80 {
			return tag, end
		}
	}
	x, i := uvarint(b, i)
	if i < 0 || x>>3 == 0 || x>>3 > maxNumber {
		return 0, -1
	}
	return uint32(x), i
}

// skip returns where the value of a field ends whose tag was read before i, or
// a negative number if it is malformed.
func skip(b []byte, i int, tag uint32) (end int) {
	switch tag & 7 {
	case wireBytes:
		_, end = chunk(b, i)
		return end
	case wireVarint:
		_, i = uvarint1(b, i)
		return i
	case wireFixed64:
		i += 8
	case wireFixed32:
		i += 4
	case wireGroup:
		return skipGroup(b, i, tag>>3)
	default:
		return -1
	}
	if i > len(b) {
		return -1
	}
	return i
}

// maxGroups bounds how deeply unknown groups may be nested.
const maxGroups = 64

// skipGroup is skip for a group of that number, and all groups in it.
func skipGroup(b []byte, i int, number uint32) (end int) {
	open := [maxGroups]uint32{number}
	for depth := 1; depth > 0; {
		tag, next := fieldTag(b, i)
		if i = next; i < 0 {
			return -1
		}
		switch tag & 7 {
		case wireGroup:
			if depth == maxGroups {
				return -1
			}
			open[depth] = tag >> 3
			depth++
		case wireEnd:
			if depth--; open[depth] != tag>>3 {
				return -1
			}
		default:
			if i = skip(b, i, tag); i < 0 {
				return -1
			}
		}
	}
	return i
}
