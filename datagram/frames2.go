package datagram

import "encoding/binary"

// The tags of an S2 block: the low two bits of an element's first byte (Snappy
// format description, section 2; in S2 a tagCopy1 with offset 0 is a repeat).
const (
	tagLiteral = iota
	tagCopy1
	tagCopy2
	tagCopy4
)

// maxCopy is the most bytes that one element of tagCopy2 or tagCopy4 makes.
const maxCopy = 64

// cutS2 appends to dst the part of an S2 block that holds as many whole events
// as fit into room, and returns how many those are. The block was made by our
// own compressor and is not checked; ends says where each event ends after
// decompression, and repeat is the offset of a repeat before any copy.
//
// A block is a row of elements, each of which makes some bytes more, so it may
// end behind any of them; the element that an event ends within is shortened.
// To walk a block takes a fraction of the time that it takes to make one.
func cutS2(dst, block []byte, ends []int, room, repeat int) ([]byte, int) {
	_, head := binary.Uvarint(block)
	e := s2Element{offset: repeat}
	n, made := 0, 0
	var last s2Element // the one that the last event which fits ends in
	var lastAt, lastMakes int
walk:
	for at := head; at < room && n < len(ends); {
		e.read(block[at:])
		for ; n < len(ends) && ends[n] <= made+e.makes; n++ {
			makes := ends[n] - made
			if at+e.sizeOf(makes) > room {
				break walk
			}
			last, lastAt, lastMakes = e, at, makes
		}
		at += e.size
		made += e.makes
	}
	if n == 0 {
		return dst, 0
	}
	dst = binary.AppendUvarint(dst, uint64(ends[n-1]))
	dst = append(dst, block[head:lastAt]...)
	return last.appendShort(dst, block[lastAt:], lastMakes), n
}

// s2Element is one element of a block.
type s2Element struct {
	tag    byte
	size   int // of the element in the block, in bytes
	makes  int // bytes after decompression
	offset int // of the last copy, this one or before it
}

// read reads the element at the front of block. The offset of the one before
// stays where the element is a literal or a repeat.
func (e *s2Element) read(block []byte) {
	first := int(block[0])
	e.tag = block[0] & 3
	switch e.tag {
	case tagLiteral:
		e.size, e.makes = 1, first>>2+1
		if extra := first>>2 - 59; extra > 0 { // the length is in so many bytes more
			e.size, e.makes = 1+extra, littleEndian(block[1:1+extra])+1
		}
		e.size += e.makes
	case tagCopy1:
		e.size, e.makes = 2, first>>2&7+4
		if offset := first&0xe0<<3 | int(block[1]); offset != 0 {
			e.offset = offset
			return
		}
		switch first >> 2 & 7 { // a repeat, with its length behind
		case 5:
			e.size, e.makes = 3, littleEndian(block[2:3])+8
		case 6:
			e.size, e.makes = 4, littleEndian(block[2:4])+1<<8+4
		case 7:
			e.size, e.makes = 5, littleEndian(block[2:5])+1<<16+4
		}
	case tagCopy2:
		e.size, e.makes, e.offset = 3, first>>2+1, littleEndian(block[1:3])
	case tagCopy4:
		e.size, e.makes, e.offset = 5, first>>2+1, littleEndian(block[1:5])
	}
}

// sizeOf returns the size of the element shortened so that it makes so many
// bytes.
func (e *s2Element) sizeOf(makes int) int {
	switch {
	case makes == e.makes:
		return e.size
	case e.tag == tagLiteral && makes <= 60:
		return 1 + makes
	case e.tag == tagLiteral:
		return 4 + makes
	case e.offset < 1<<16:
		return (makes + maxCopy - 1) / maxCopy * 3
	}
	return (makes + maxCopy - 1) / maxCopy * 5
}

// appendShort appends the element, which is at the front of block, shortened so
// that it makes so many bytes. It appends what sizeOf says.
func (e *s2Element) appendShort(dst, block []byte, makes int) []byte {
	switch {
	case makes == e.makes:
		return append(dst, block[:e.size]...)
	case e.tag == tagLiteral:
		if makes <= 60 {
			dst = append(dst, byte(makes-1)<<2) // tagLiteral is 0
		} else {
			dst = append(dst, 62<<2, byte(makes-1), byte((makes-1)>>8), byte((makes-1)>>16))
		}
		start := e.size - e.makes
		return append(dst, block[start:start+makes]...)
	}
	for ; makes > 0; makes -= maxCopy {
		length := byte(min(makes, maxCopy)-1) << 2
		if e.offset < 1<<16 {
			dst = append(dst, length|tagCopy2, byte(e.offset), byte(e.offset>>8))
		} else {
			dst = append(dst, length|tagCopy4, byte(e.offset), byte(e.offset>>8), byte(e.offset>>16), byte(e.offset>>24))
		}
	}
	return dst
}

func littleEndian(b []byte) int {
	v := 0
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | int(b[i])
	}
	return v
}
