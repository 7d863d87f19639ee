package datagram

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// The fixed part of a header (docs/frame.md, Layout).
const (
	frameMagic   = 0xd754
	frameVersion = 1

	atVersion = 2
	atFlags   = 3
	atContent = 4
	atStream  = 5
	atRecord  = 13
	atPadding = 21
	fixedSize = 23

	saltBytes = 16
	crcBytes  = 4
	tagBytes  = 16
)

// The flags.
const (
	flagSealed = 1 << iota
	flagJSON
	flagGoodbye
	flagFragment
	flagDictionary
	flagHost

	flagsUnknown = 0xff &^ (1<<iota - 1)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader appends the header's bytes.
func appendHeader(dst []byte, h *Header) []byte {
	flags := flagIf(h.Sealed, flagSealed) | flagIf(h.JSON, flagJSON) | flagIf(h.Goodbye, flagGoodbye) |
		flagIf(h.Fragment.Total > 0, flagFragment) | flagIf(h.HasDictionary, flagDictionary) |
		flagIf(h.Host != "", flagHost)
	dst = append(dst, frameMagic>>8, frameMagic&0xff, frameVersion, flags, byte(h.Kind)|byte(h.Compression)<<4)
	dst = binary.BigEndian.AppendUint64(dst, h.Stream)
	dst = binary.BigEndian.AppendUint64(dst, h.Record)
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.padding))
	if h.HasDictionary {
		dst = binary.BigEndian.AppendUint32(dst, h.Dictionary)
	}
	if h.Sealed {
		dst = binary.BigEndian.AppendUint32(dst, h.KeyID)
		dst = append(dst, h.salt[:]...)
	}
	if h.Host != "" {
		dst = append(append(dst, byte(len(h.Host))), h.Host...)
	}
	dst = binary.AppendUvarint(dst, h.Datagram)
	dst = binary.AppendUvarint(dst, h.First)
	dst = binary.AppendUvarint(dst, uint64(h.Count))
	dst = binary.AppendUvarint(dst, h.Excluded)
	dst = binary.AppendUvarint(dst, h.Dropped)
	dst = binary.AppendUvarint(dst, h.Refused)
	dst = binary.AppendVarint(dst, h.ahead())
	if h.Fragment.Total > 0 {
		dst = binary.AppendUvarint(dst, uint64(h.Fragment.Index))
		dst = binary.AppendUvarint(dst, uint64(h.Fragment.Total))
	}
	return dst
}

func flagIf(on bool, flag byte) byte {
	if on {
		return flag
	}
	return 0
}

// headerSize returns how many bytes appendHeader appends.
func headerSize(h *Header) int {
	n := fixedSize
	if h.HasDictionary {
		n += 4
	}
	if h.Sealed {
		n += 4 + saltBytes
	}
	if h.Host != "" {
		n += 1 + len(h.Host)
	}
	d := h.ahead()
	n += uvarintSize(h.Datagram) + uvarintSize(h.First) + uvarintSize(uint64(h.Count)) +
		uvarintSize(h.Excluded) + uvarintSize(h.Dropped) + uvarintSize(h.Refused) + uvarintSize(uint64(d)<<1^uint64(d>>63))
	if h.Fragment.Total > 0 {
		n += uvarintSize(uint64(h.Fragment.Index)) + uvarintSize(uint64(h.Fragment.Total))
	}
	return n
}

// ahead returns the figure seen as a header states it: less what the other
// fields say. It does not depend on the count, so that a packer knows the
// header's size before it knows how many events fit.
func (h *Header) ahead() int64 { return int64(h.Seen - (h.First - 1) - h.Excluded - h.Dropped) }

// uvarintSize returns the length of v as a varint.
//
// The formula is that of protobuf's SizeVarint: exact, and without a division.
func uvarintSize(v uint64) int { return (bits.Len64(v)*9 + 64) / 64 }

// checkPrelude reads what says how to go on, before any check has passed.
func checkPrelude(d []byte) (flags byte, err error) {
	switch {
	case len(d) <= atVersion || d[0] != frameMagic>>8 || d[1] != frameMagic&0xff:
		return 0, ErrNotFrame
	case d[atVersion] != frameVersion:
		return 0, ErrVersion
	case len(d) < fixedSize+crcBytes:
		return 0, ErrHeader
	}
	flags = d[atFlags]
	kind, compression := Kind(d[atContent]&0xf), Compression(d[atContent]>>4)
	if flags&flagsUnknown != 0 || kind < KindEvent || kind > KindAgentStats || compression >= numCompressions {
		return 0, ErrFlag
	}
	return flags, nil
}

// parseHeader reads the header of a datagram whose prelude is known, without
// its check at the end, and returns how long it is, and the host that it names, which
// is not in h yet. The error is ErrHeader.
func parseHeader(d []byte, h *Header) (n int, host []byte, err error) {
	flags := d[atFlags]
	*h = Header{
		Kind: Kind(d[atContent] & 0xf), Compression: Compression(d[atContent] >> 4),
		Sealed: flags&flagSealed != 0, JSON: flags&flagJSON != 0, Goodbye: flags&flagGoodbye != 0,
		HasDictionary: flags&flagDictionary != 0,
		Stream:        binary.BigEndian.Uint64(d[atStream:]), Record: binary.BigEndian.Uint64(d[atRecord:]),
		padding: int(binary.BigEndian.Uint16(d[atPadding:])),
	}
	r := fieldReader{rest: d[fixedSize:]}
	if h.HasDictionary {
		h.Dictionary = binary.BigEndian.Uint32(r.fixed(4))
	}
	if h.Sealed {
		h.KeyID = binary.BigEndian.Uint32(r.fixed(4))
		copy(h.salt[:], r.fixed(saltBytes))
	}
	if flags&flagHost != 0 {
		host = r.name()
		r.failed = r.failed || !h.Sealed
	}
	h.Datagram, h.First = r.uvarint(), r.uvarint()
	count := r.uvarint()
	h.Excluded, h.Dropped, h.Refused = r.uvarint(), r.uvarint(), r.uvarint()
	seen := r.uvarint()
	index, total := uint64(0), uint64(0)
	if flags&flagFragment != 0 {
		index, total = r.uvarint(), r.uvarint()
		r.failed = r.failed || total < 2 || total > maxFragments || index >= total
	}
	if r.failed || count > maxItems {
		return 0, nil, ErrHeader
	}
	h.Count, h.Fragment = int(count), Fragment{int(index), int(total)}
	h.Seen = h.First - 1 + h.Excluded + h.Dropped + (seen>>1 ^ -(seen & 1))
	if !h.possible() || h.padding >= len(r.rest) {
		return 0, nil, ErrHeader
	}
	return len(d) - len(r.rest), host, nil
}

// possible says whether the fields agree with each other.
func (h *Header) possible() bool {
	switch {
	case h.First == 0 || h.Last() > MaxNumber || h.Datagram > MaxNumber || h.Datagram <= uint64(h.Fragment.Index):
		return false
	case h.Seen > MaxNumber || h.Excluded > MaxNumber || h.Dropped > MaxNumber || h.Refused > MaxNumber:
		return false
	case (h.Count > 0) != (h.Kind == KindEvent), h.Fragment.Total > 0 && h.Count > 1:
		return false
	case h.Goodbye && h.Kind != KindAgentStats, h.HasDictionary && h.Compression == CompressionNone:
		return false
	}
	return true
}

// fieldReader reads fields from the front. After one that is not there or not
// in its shortest form failed is set, and all others are zero.
type fieldReader struct {
	rest   []byte
	failed bool
}

var zeroField [saltBytes]byte

func (r *fieldReader) fixed(n int) []byte {
	if r.failed = r.failed || len(r.rest) < n; r.failed {
		return zeroField[:n]
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

// name reads a host's name behind its length.
func (r *fieldReader) name() []byte {
	n := int(r.fixed(1)[0])
	if r.failed = r.failed || n > len(r.rest) || !isHost(r.rest[:min(n, len(r.rest))]); r.failed {
		return nil
	}
	name := r.rest[:n:n]
	r.rest = r.rest[n:]
	return name
}

// isHost says whether a key can be of a host of that name.
func isHost[T string | []byte](name T) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return false
		}
	}
	return len(name) > 0 && len(name) <= MaxKeyHost
}

func (r *fieldReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if r.failed = r.failed || n <= 0 || n > 1 && r.rest[n-1] == 0; r.failed {
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
