package datagram

import (
	"fmt"
	"sort"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// squeezer makes bodies of the items that wait: as many of them as fit.
//
// Nobody knows before how long a group gets by compression. So it is compressed
// with more events than are expected to fit, and an S2 block that got too long
// is cut behind the last event that fits, without compressing again. A
// Zstandard frame cannot be cut, but how long it gets follows from how long the
// S2 block is; that costs a fifth of it and saves two of three compressions.
type squeezer struct {
	compression Compression
	dictionary  *Dictionary
	zstd        *zstd.Encoder
	out         []byte  // the last Zstandard frame
	block       []byte  // the last S2 block
	short       []byte  // the block, cut
	ratio       float64 // expanded by compressed bytes, of the last groups
	gain        float64 // with Zstandard: length as an S2 block by length as a frame

	attempts, groups uint64 // compressions, and how many groups they made
}

// notFull is what fit returns for a group that more events still fit into.
const notFull = -1

// How many events are tried. Other values give more compressions a group or
// emptier frames; on recordings a and b, S2 takes 1.08 and 1.07 compressions a
// group with these, Zstandard 1.15 and 1.13 (AMD EPYC, klauspost/compress
// 1.20.3).
const (
	overshoot   = 1.25 // bytes of events by what is expected to fill a frame
	fullEnough  = 0.9  // of the room: not worth waiting for more
	caution     = 0.98 // of what S2 says that a Zstandard frame will hold
	ratioWeight = 0.25 // of the newest group in the averages
)

func (s *squeezer) init(c Compression, d *Dictionary) (err error) {
	if d == nil {
		d = BuiltinDictionary()
	}
	s.compression, s.dictionary, s.ratio, s.gain = c, d, 4, 1.4
	if c == CompressionZstd {
		if s.zstd, err = zstd.NewWriter(nil, d.zstdEncode()...); err != nil {
			return fmt.Errorf("datagram: making the compressor: %w", err)
		}
	}
	return nil
}

// named returns what a header says of the dictionary.
func (s *squeezer) named() (has bool, digest uint32) {
	if s.compression == CompressionNone || s.dictionary.content == nil {
		return false, 0
	}
	return true, s.dictionary.digest
}

// compress returns src compressed, valid until the next call.
func (s *squeezer) compress(src []byte) []byte {
	s.attempts++
	if s.compression == CompressionS2 {
		return s.compressS2(src)
	}
	s.out = s.zstd.EncodeAll(src, s.out[:0])
	return s.out
}

func (s *squeezer) compressS2(src []byte) []byte {
	if n := s2.MaxEncodedLen(len(src)); cap(s.block) < n {
		s.block = make([]byte, n+n/2)
	}
	if s.dictionary.s2 == nil {
		return s2.Encode(s.block[:cap(s.block)], src)
	}
	return s.dictionary.s2.Encode(s.block[:cap(s.block)], src)
}

// target returns how many bytes of events are likely to fill the room.
func (s *squeezer) target(room int) int {
	if s.compression == CompressionNone {
		return room
	}
	return min(int(overshoot*s.ratio*float64(room)), groupLimit(room))
}

// fit returns how many of the first items fit into room, and a body that holds
// them: a slice of items or of the squeezer's memory, valid until the next
// call. It returns 0 if the first item does not fit, and, where more says that
// others follow, notFull if they should be waited for.
func (s *squeezer) fit(items []byte, ends []int, room int, more bool) (n int, body []byte, c Compression) {
	limit, most := groupLimit(room), itemAllowance(room)
	if s.compression == CompressionNone {
		limit = room
	}
	n = min(sort.SearchInts(ends, limit+1), most)
	more = more && n == len(ends) && n < most
	switch {
	case n == 0:
		return 0, nil, CompressionNone
	case s.compression == CompressionNone:
		return n, items[:ends[n-1]], CompressionNone
	case s.compression == CompressionS2:
		n, body = s.fitS2(items, ends[:n], room, more)
	default:
		n, body = s.fitZstd(items, ends[:n], room, more)
	}
	if n == notFull {
		return n, nil, CompressionNone
	}
	s.groups++
	if n > 0 && len(body) >= ends[n-1] {
		return n, items[:ends[n-1]], CompressionNone
	}
	return n, body, s.compression
}

func (s *squeezer) fitS2(items []byte, ends []int, room int, more bool) (n int, body []byte) {
	s.attempts++
	n, body = s.cut(items, ends, room, more)
	switch {
	case n == notFull:
		s.ratio = float64(len(items)) / float64(len(body))
	case n > 0:
		s.learn(&s.ratio, ends[n-1], len(body))
	}
	return n, body
}

// fitZstd has S2 say how many events to try: the two compress alike, so what
// one makes of a group tells what the other will, within a few percent.
func (s *squeezer) fitZstd(items []byte, ends []int, room int, more bool) (n int, body []byte) {
	n, block := s.cut(items, ends, int(float64(room)*s.gain*caution), more)
	if n == notFull {
		s.ratio = float64(len(items)) / float64(len(block)) * s.gain
		return notFull, nil
	}
	learns := n > 0
	for n = max(n, 1); n > 0; {
		body = s.compress(items[:ends[n-1]])
		if learns {
			s.learn(&s.gain, len(block), len(body))
			s.learn(&s.ratio, ends[n-1], len(body))
			learns = false
		}
		if len(body) <= room {
			return n, body
		}
		n = min(n-1, sort.SearchInts(ends, ends[n-1]*room/len(body)+1))
	}
	return 0, nil
}

// cut returns how many of the first items an S2 block of the length of room
// holds, and the block.
func (s *squeezer) cut(items []byte, ends []int, room int, more bool) (n int, block []byte) {
	n = len(ends)
	block = s.compressS2(items[:ends[n-1]])
	if len(block) > room {
		s.short, n = cutS2(s.short[:0], block, ends, room, min(len(s.dictionary.content), s2.MaxDictSize))
		return n, s.short
	}
	if more && float64(len(block)) < fullEnough*float64(room) {
		return notFull, block
	}
	return n, block
}

// learn takes what a group shows into the average of the last groups.
func (s *squeezer) learn(average *float64, by, of int) {
	*average += ratioWeight * (float64(by)/float64(of) - *average)
}

// whole returns the compressed form of one item, or the item itself if that is
// shorter.
func (s *squeezer) whole(item []byte) ([]byte, Compression) {
	if s.compression == CompressionNone {
		return item, CompressionNone
	}
	s.groups++
	body := s.compress(item)
	if len(body) >= len(item) {
		return item, CompressionNone
	}
	return body, s.compression
}

// groupLimit returns the most bytes of events that fill the room, padded if need be.
func groupLimit(room int) int { return min(allowance(KindEvent, room), maxGroup) }
