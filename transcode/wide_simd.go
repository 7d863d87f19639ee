//go:build goexperiment.simd && amd64 && !nounsafe

package transcode

import "simd/archsimd"

// wideBytes is how many bytes copyClean takes at a time.
const wideBytes = 32

// wide says whether this processor has what copyClean needs.
var wide = archsimd.X86.AVX2()

// copyClean copies s to buf[n:], 32 bytes at a time, until it meets bytes that
// JSON does not take as they are, and returns how many before them it copied. As
// signed bytes, control characters and those outside ASCII are both below a
// space. There is room.
func copyClean(buf []byte, n int, s []byte) int {
	if !wide {
		return 0
	}
	space, quote, backslash := archsimd.BroadcastInt8x32(' '), archsimd.BroadcastInt8x32('"'), archsimd.BroadcastInt8x32('\\')
	i := 0
	for ; i+wideBytes <= len(s); i += wideBytes {
		v := archsimd.LoadUint8x32((*[wideBytes]uint8)(s[i:]))
		v.Store((*[wideBytes]uint8)(buf[n+i:]))
		c := v.AsInt8x32()
		if c.Less(space).Or(c.Equal(quote)).Or(c.Equal(backslash)).ToBits() != 0 {
			break
		}
	}
	return i
}
