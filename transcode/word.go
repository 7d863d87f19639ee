package transcode

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

// blockSize is the length of the longest move of fixed size, in bytes.
const blockSize = 32

// block is what storeBlock moves. It is a structure, for the assignment of an
// array through pointers is a call of memmove, 4 ns a field.
type block struct{ bytes [blockSize]byte }
