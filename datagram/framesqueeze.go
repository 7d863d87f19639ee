package datagram

import (
	"fmt"
	"sort"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// squeezer makes bodies of the items that wait: as many of them as fit.
//
// A group is compressed once, with somewhat more events than are expected to
// fit. An S2 block that got too long can be cut behind the last event that
// fits, without compressing again; a Zstandard frame cannot, so there the next
// attempt takes as many events as the last one says.
type squeezer struct {
	compression Compression
	dictionary  *Dictionary
	zstd        *zstd.Encoder
	out, short  []byte
	ratio       float64 // expanded by compressed bytes, of the last groups

	attempts, groups uint64 // compressions, and how many groups they made
}

// notFull is what fit returns for a group that more events still fit into.
const notFull = -1

// How many events are tried. See BenchmarkFramePack for what other values give.
const (
	s2Overshoot = 1.15 // times what is expected to fit
	fullEnough  = 0.9  // of the room: not worth waiting for more
	ratioWeight = 0.25 // of the newest group in the ratio
)

func (s *squeezer) init(c Compression, d *Dictionary) (err error) {
	if d == nil {
		d = BuiltinDictionary()
	}
	s.compression, s.dictionary, s.ratio = c, d, 4
	if c == CompressionZstd {
		if s.zstd, err = zstd.NewWriter(nil, d.zstdEncode()...); err != nil {
			return fmt.Errorf("datagram: making the compressor: %w", err)
		}
	}
	return nil
}

// compress returns src compressed, valid until the next call.
func (s *squeezer) compress(src []byte) []byte {
	s.attempts++
	switch {
	case s.compression == CompressionZstd:
		s.out = s.zstd.EncodeAll(src, s.out[:0])
	default:
		if n := s2.MaxEncodedLen(len(src)); cap(s.out) < n {
			s.out = make([]byte, n)
		}
		if s.dictionary.s2 == nil {
			s.out = s2.Encode(s.out[:cap(s.out)], src)
		} else {
			s.out = s.dictionary.s2.Encode(s.out[:cap(s.out)], src)
		}
	}
	return s.out
}

// target returns how many bytes of events are likely to fill the room.
func (s *squeezer) target(room int) int {
	switch s.compression {
	case CompressionNone:
		return room
	case CompressionS2:
		return min(int(s2Overshoot*s.ratio*float64(room)), maxGroup)
	}
	return min(int(s.ratio*float64(room)), maxGroup)
}

// fit returns how many of the first items fit into room, and a body that holds
// them: a slice of items or of the squeezer's memory, valid until the next
// call. It returns 0 if the first item does not fit, and, where more says that
// others follow, notFull if they should be waited for.
func (s *squeezer) fit(items []byte, ends []int, room int, more bool) (n int, body []byte, c Compression) {
	limit := maxGroup
	if s.compression == CompressionNone {
		limit = room
	}
	n = sort.SearchInts(ends, limit+1)
	more = more && n == len(ends) && n < maxItems
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
	n = len(ends)
	body = s.compress(items[:ends[n-1]])
	s.learn(ends[n-1], len(body))
	if len(body) <= room {
		if more && float64(len(body)) < fullEnough*float64(room) {
			return notFull, nil
		}
		return n, body
	}
	s.short, n = cutS2(s.short[:0], body, ends, room, min(len(s.dictionary.content), s2.MaxDictSize))
	return n, s.short
}

func (s *squeezer) fitZstd(items []byte, ends []int, room int, more bool) (n int, body []byte) {
	n = max(1, sort.SearchInts(ends, s.target(room)+1))
	if more {
		n = len(ends)
	}
	for n > 0 {
		body = s.compress(items[:ends[n-1]])
		s.learn(ends[n-1], len(body))
		if len(body) <= room {
			if more && n == len(ends) && float64(len(body)) < fullEnough*float64(room) {
				return notFull, nil
			}
			return n, body
		}
		n = min(n-1, sort.SearchInts(ends, ends[n-1]*room/len(body)+1))
	}
	return 0, nil
}

// learn takes a group's ratio into that of the last groups.
func (s *squeezer) learn(expanded, compressed int) {
	s.ratio += ratioWeight * (float64(expanded)/float64(compressed) - s.ratio)
}

// whole returns the compressed form of one item, or the item itself if that is
// shorter or the form would be taken for a bomb (docs/frame.md, Limits).
func (s *squeezer) whole(item []byte) ([]byte, Compression) {
	if s.compression == CompressionNone {
		return item, CompressionNone
	}
	s.groups++
	body := s.compress(item)
	if len(body) >= len(item) || len(item) > expandedLimit(len(body)) {
		return item, CompressionNone
	}
	return body, s.compression
}

// expandedLimit returns the most bytes that a body of so many compressed bytes
// may have after decompression.
func expandedLimit(compressed int) int {
	return min(max(maxGroup, maxRatio*compressed), maxExpanded)
}
