package datagram

import (
	"errors"
	"fmt"
)

// The limits of the frame format (docs/frame.md, Limits).
const (
	// MaxFrameEvent is the longest event a frame's fragments can carry, in
	// bytes: with its length before it, 16 MiB.
	MaxFrameEvent = maxExpanded - 4
	// MinFrameDatagram is the least that MaxDatagram of a [FrameConfig] may be,
	// in bytes. A header with every field at its longest takes 123, a host's name
	// 97 and a tag 16.
	MinFrameDatagram = 256
	// DefaultFrameDatagram is what MaxDatagram of a [FrameConfig] is by
	// default, in bytes: the IPv6 minimum MTU of 1,280 (RFC 8200, section 5)
	// less 40 of IPv6 header and 8 of UDP header.
	DefaultFrameDatagram = 1232

	maxExpanded  = 1 << 24 // bytes of a body after decompression
	maxGroup     = 1 << 18 // of them that a packer puts into a frame of several events
	maxFragments = 1<<16 - 1
	maxItems     = 1 << 14 // events of a frame
	maxOverhead  = 123 + tagBytes
)

// MaxNumber is the highest number of an event or a datagram, and the highest
// figure, that a mark or a header can state: far below what their fields hold, so
// that whoever sends cannot make anybody's arithmetic overflow.
const MaxNumber = 1<<48 - 1

// What a frame can have wrong with it before its check has passed: nothing in
// such a datagram may be trusted. [FrameReader.Open] returns these as they
// are, so that junk costs no allocation. The names in docs/frame.md stand
// behind them.
var (
	ErrNotFrame   = errors.New("datagram: not a frame")                                // not_a_frame
	ErrVersion    = errors.New("datagram: frame of an unknown version")                // unknown_version
	ErrFlag       = errors.New("datagram: frame with an unknown flag")                 // unknown_flag
	ErrHeader     = errors.New("datagram: frame with an impossible header")            // bad_header
	ErrNotSealed  = errors.New("datagram: frame that is not sealed")                   // not_sealed
	ErrUnknownKey = errors.New("datagram: frame sealed with an unknown key")           // unknown_key
	ErrCheck      = errors.New("datagram: frame whose checksum or tag does not fit")   // bad_check
	ErrFragment   = errors.New("datagram: fragment that contradicts its set")          // its event stays missing
	ErrDictionary = errors.New("datagram: frame compressed with unknown dictionary")   // unknown_dictionary
	ErrBroken     = errors.New("datagram: frame whose content is broken")              // broken
	ErrTooLong    = errors.New("datagram: frame whose content is longer than allowed") // too_long
)

// Compression says how a frame's body is compressed.
type Compression uint8

// The compressions.
const (
	CompressionNone Compression = iota
	CompressionS2
	CompressionZstd

	numCompressions
)

var compressionTexts = [numCompressions]string{"none", "s2", "zstd"}

// String returns none, s2 or zstd.
func (c Compression) String() string {
	if c < numCompressions {
		return compressionTexts[c]
	}
	return fmt.Sprintf("compression(%d)", uint8(c))
}

// ParseCompression is the inverse of String.
func ParseCompression(text string) (Compression, error) {
	for c, t := range compressionTexts {
		if t == text {
			return Compression(c), nil
		}
	}
	return 0, fmt.Errorf("datagram: compression %q: want none, s2 or zstd", text)
}

// Sums are a stream's cumulative figures, in events. A frame carries them so
// that every hole in the numbers has a cause.
type Sums struct {
	Seen     uint64 // came from Tetragon
	Excluded uint64 // left out on purpose
	Dropped  uint64 // lost before they were packed
	Refused  uint64 // packed, then not taken by the kernel
}

// Fragment says which piece of a body a frame holds. The zero value is a frame
// that holds a whole one.
type Fragment struct {
	Index, Total int
}

// Header is what a frame says beside its body.
type Header struct {
	Stream   uint64 // 64 random bits of an exporter process and destination
	Record   uint64 // digest of the agent_init that says who sends; 0: not known
	Datagram uint64 // number of the datagram in the stream: 1, 2, 3
	First    uint64 // number of the first event; without events, of the next one to come
	Count    int    // events; 1 in each fragment of an event
	Sums
	Fragment    Fragment
	Kind        Kind
	Goodbye     bool // the stream ends here; its figures are final
	JSON        bool // events are JSON, else protobuf
	Compression Compression

	Sealed        bool
	KeyID         uint32 // of the key it is sealed with
	Host          string // whose key was derived from it; empty: it is sealed with the key itself
	HasDictionary bool
	Dictionary    uint32 // digest of the dictionary it is compressed with

	salt    [saltBytes]byte
	padding int
}

// StreamName names a stream among all that a reader with a master key can see: each
// host draws ids of its own, and could draw another's.
type StreamName struct {
	ID   uint64
	Host string // whose key it is sealed with; empty: nobody's in particular
}

// Name returns the name of the frame's stream.
func (h *Header) Name() StreamName { return StreamName{h.Stream, h.Host} }

// Last returns the number of the last event that was packed up to this frame.
func (h *Header) Last() uint64 { return h.First + uint64(h.Count) - 1 }

// set returns the name of the fragment set that the frame belongs to: the
// number of the datagram that holds the first piece.
func (h *Header) set() uint64 { return h.Datagram - uint64(h.Fragment.Index) }
