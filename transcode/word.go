package transcode

import "encoding/binary"

// load64 reads eight bytes at b[i:].
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

// store64 writes eight bytes at b[i:].
func store64(b []byte, i int, w uint64) { binary.LittleEndian.PutUint64(b[i:], w) }

// load32 reads four bytes at b[i:].
func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }

// store32 writes four bytes at b[i:].
func store32(b []byte, i int, w uint32) { binary.LittleEndian.PutUint32(b[i:], w) }

// store32x8 writes 32 bytes at b[i:].
func store32x8(b []byte, i int, p *[32]byte) { *(*[32]byte)(b[i:]) = *p }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks, with the high bit of its byte, the first byte of w that JSON
// does not take as it is: a control character, a quote, a backslash, or part of
// a character outside ASCII. Marks above the lowest one mean nothing.
//
// w^0x02 moves the quote, 0x22, to 0x20, and leaves the control characters
// below it; so one subtraction finds them all.
func special(w uint64) uint64 {
	return (((w ^ ones*0x02) - ones*0x21) | ((w ^ ones*'\\') - ones) | w) & highs
}
