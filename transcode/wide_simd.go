//go:build amd64 && goexperiment.simd && !nounsafe

package transcode

import (
	"math/bits"
	"simd/archsimd"
)

// The scans of text and base64 with AVX2, by the standard library's experiment:
// GOEXPERIMENT=simd compiles them in. Without it, or on a processor without
// AVX2, the eight-byte words of text.go and base64.go do all; both write the same.

// wide says whether the functions below may be called.
var wide = archsimd.X86.AVX2()

// wideSize is the least length of a text that copyClean takes, in bytes.
const wideSize = 32

// copyClean copies s, of at least wideSize bytes, to buf[n:] up to its first byte
// that JSON does not take as it is, and returns where that is, len(s) if there is
// none. Behind the copy, up to len(s) bytes are overwritten.
func copyClean(buf []byte, n int, s []byte) int {
	space, quote, backslash := archsimd.BroadcastInt8x32(' '), archsimd.BroadcastInt8x32('"'), archsimd.BroadcastInt8x32('\\')
	for i := 0; ; i = min(i+wideSize, len(s)-wideSize) { // the last step overlaps
		v := archsimd.LoadUint8x32((*[wideSize]byte)(at(s, i)))
		v.Store((*[wideSize]byte)(at(buf, n+i)))
		x := v.AsInt8x32() // what is not ASCII is below the space too
		if m := x.Less(space).Or(x.Equal(quote)).Or(x.Equal(backslash)).ToBits(); m != 0 {
			archsimd.ClearAVXUpperBits()
			return i + bits.TrailingZeros32(m)
		}
		if i == len(s)-wideSize {
			archsimd.ClearAVXUpperBits()
			return len(s)
		}
	}
}

// base64Wide writes the base64 of s at buf[n:], 24 bytes at a time, as long as 28
// can be read. It returns where it stopped, and what is left of s.
//
// The way is that of W. Muła and D. Lemire, Faster Base64 Encoding and Decoding
// using AVX2 Instructions, https://arxiv.org/abs/1704.00605.
func base64Wide(buf []byte, n int, s []byte) (int, []byte) {
	if len(s) < 28 {
		return n, s
	}
	spread := archsimd.LoadInt8x32(&[32]int8{
		1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10,
		1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10,
	})
	const up, down, none = '0' - 52, 'a' - 26, 0
	shifts := archsimd.LoadUint8x32(&[32]uint8{
		down, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + '+' - 62, 256 + '/' - 63, 'A', none, none,
		down, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + up, 256 + '+' - 62, 256 + '/' - 63, 'A', none, none,
	})
	highMask, high := archsimd.BroadcastUint32x8(0x0fc0fc00).AsUint16x16(), archsimd.BroadcastUint32x8(0x04000040).AsUint16x16()
	lowMask, low := archsimd.BroadcastUint32x8(0x003f03f0).AsUint16x16(), archsimd.BroadcastUint32x8(0x01000010).AsUint16x16()
	letters, capital, thirteen := archsimd.BroadcastUint8x32(51), archsimd.BroadcastInt8x32(26), archsimd.BroadcastUint8x32(13)
	var v archsimd.Uint8x32
	for len(s) >= 28 {
		v = v.SetLo(archsimd.LoadUint8x16((*[16]byte)(at(s, 0)))).SetHi(archsimd.LoadUint8x16((*[16]byte)(at(s, 12))))
		w := v.AsInt8x32().PermuteOrZeroGrouped(spread).AsUint16x16()
		sextets := w.And(highMask).MulHigh(high).Or(w.And(lowMask).Mul(low)).AsUint8x32()
		class := sextets.SubSaturated(letters).Or(sextets.AsInt8x32().Less(capital).ToInt8x32().AsUint8x32().And(thirteen))
		shifts.PermuteOrZeroGrouped(class.AsInt8x32()).Add(sextets).Store((*[32]byte)(at(buf, n)))
		s, n = s[24:], n+32
	}
	archsimd.ClearAVXUpperBits()
	return n, s
}
