package datagram

import (
	"crypto/cipher"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// FrameReaderConfig is the configuration of a [FrameReader]. The zero value
// takes frames that are not sealed.
type FrameReaderConfig struct {
	// Keys that frames may be sealed with. With one, frames that are not sealed
	// are refused.
	Keys []*Key
	// Dictionaries beside the built-in ones.
	Dictionaries []*Dictionary
	// Fragments bounds what waits for its other fragments.
	Fragments FragmentLimits
	// GaveUp, if it is set, is told each event whose fragments were given up. It
	// is called from within Read and Expire.
	GaveUp func(stream StreamName, number uint64)
}

// maxCiphers bounds how many streams' ciphers a reader keeps, at about 1 KiB
// each. Only streams that sealed a frame in good order are among them.
const maxCiphers = 1 << 15

// FrameReader reads the frames of any number of streams. It has one owner, and
// does not allocate but for fragments and for what it sees the first time.
//
// Open says what a datagram is, and Read gives the events in it. Between them
// the caller decides whether the datagram is a duplicate or a replay.
type FrameReader struct {
	keys         []*Key
	dictionaries map[uint32]*expander // by digest; 0 is none
	ciphers      map[cipherKey]streamCipher
	nonce        [12]byte
	opened       []byte // the plaintext of the last sealed frame
	expanded     []byte // the last body
	fragments    assembler
}

// streamCipher opens the frames of a stream.
type streamCipher struct {
	cipher.AEAD
	host string // that its key is of; empty: of none
}

// cipherKey names the key of a stream.
type cipherKey struct {
	keyID  uint32
	stream uint64
	salt   [saltBytes]byte
}

// NewFrameReader returns a reader.
func NewFrameReader(c FrameReaderConfig) *FrameReader {
	r := &FrameReader{
		keys:         c.Keys,
		dictionaries: map[uint32]*expander{},
		ciphers:      map[cipherKey]streamCipher{},
		opened:       make([]byte, 0, MaxPayload),
		expanded:     make([]byte, 0, maxGroup),
		fragments:    newAssembler(c.Fragments, c.GaveUp),
	}
	for _, d := range append(builtinDictionaries(), c.Dictionaries...) {
		r.dictionaries[d.digest] = &expander{dictionary: d}
	}
	r.dictionaries[0] = &expander{dictionary: NoDictionary}
	return r
}

// SetKeys makes the keys those that frames may be sealed with from now on. What was
// derived from others is forgotten.
func (r *FrameReader) SetKeys(keys []*Key) {
	r.keys = keys
	clear(r.ciphers)
}

// Open reads the header of a datagram into h and returns its body, which is
// valid until the datagram changes or the next Open. An error means that
// nothing in the datagram may be trusted; h is not defined then. The errors are
// ErrNotFrame, ErrVersion, ErrFlag, ErrHeader, ErrNotSealed, ErrUnknownKey and
// ErrCheck, as docs/frame.md has them.
func (r *FrameReader) Open(datagram []byte, h *Header) (body []byte, err error) {
	flags, err := checkPrelude(datagram)
	if err != nil {
		return nil, err
	}
	if flags&flagSealed != 0 {
		return r.unseal(datagram, h)
	}
	if len(r.keys) > 0 {
		return nil, ErrNotSealed
	}
	end := len(datagram) - crcBytes
	if crc32.Checksum(datagram[:end], castagnoli) != binary.BigEndian.Uint32(datagram[end:]) {
		return nil, ErrCheck
	}
	start, _, err := parseHeader(datagram[:end], h)
	if err != nil {
		return nil, err
	}
	return datagram[start : end-h.padding], nil
}

// unseal opens a sealed datagram.
func (r *FrameReader) unseal(datagram []byte, h *Header) (body []byte, err error) {
	end := len(datagram) - tagBytes
	if end < fixedSize {
		return nil, ErrHeader
	}
	start, host, err := parseHeader(datagram[:end], h)
	if err != nil {
		return nil, err
	}
	name := cipherKey{keyID: h.KeyID, stream: h.Stream, salt: h.salt}
	aead, known := r.ciphers[name]
	if !known || aead.host != string(host) {
		known = false
		key := r.keyOf(h.KeyID, host)
		if key == nil {
			return nil, ErrUnknownKey
		}
		aead = streamCipher{key.stream(h.Stream, h.salt[:]), key.host}
	}
	binary.BigEndian.PutUint64(r.nonce[4:], h.Datagram)
	plain, err := aead.Open(r.opened[:0], r.nonce[:], datagram[start:], datagram[:start])
	if err != nil {
		return nil, ErrCheck
	}
	if !known {
		for other := range r.ciphers {
			if len(r.ciphers) < maxCiphers {
				break
			}
			delete(r.ciphers, other) // any: it costs its stream one derivation
		}
		r.ciphers[name] = aead
	}
	h.Host = aead.host
	return plain[:len(plain)-h.padding], nil
}

// keyOf returns the key of that id: for a host, the one that is derived for it.
func (r *FrameReader) keyOf(id uint32, host []byte) *Key {
	for _, k := range r.keys {
		switch {
		case k.id != id:
		case k.host == string(host):
			return k
		case k.host == "":
			return k.forHost(string(host))
		}
	}
	return nil
}

// Read gives each event in an opened frame to take, with its number; or the
// JSON of an agent_init or agent_stats, with number 0. The bytes are valid
// during the call. A fragment gives nothing until its set is complete, and then
// the whole event. now orders fragments by age; it never goes back.
//
// An error means that h may be trusted and the content cannot be used, and take
// was not called: ErrDictionary, ErrBroken or ErrTooLong. Of a fragment it says
// so of the whole event. ErrFragment is different: that one fragment was not
// kept, for it contradicts others of its set or exceeds the limits, and its
// event may yet be completed.
func (r *FrameReader) Read(h *Header, body []byte, now time.Time, take func(number uint64, event []byte)) error {
	size := len(body) + h.padding
	if h.Fragment.Total > 0 {
		whole, all, err := r.fragments.add(h, body, now)
		if err != nil || whole == nil {
			return err
		}
		body, size = whole, all
	}
	x := r.dictionaries[h.Dictionary]
	if x == nil || h.HasDictionary != (x.dictionary.content != nil) {
		return ErrDictionary
	}
	limit := allowance(h.Kind, size)
	if h.Count > itemAllowance(size) || len(body) > limit {
		return ErrTooLong
	}
	items := body
	if h.Compression != CompressionNone {
		var err error
		if items, err = x.expand(r.expanded[:0], body, h.Compression, limit); err != nil {
			return err
		}
		if cap(items) > cap(r.expanded) && cap(items) <= maxKept {
			r.expanded = items
		}
	}
	number, count := h.First, h.Count
	if h.Kind != KindEvent {
		number, count = 0, 1
	}
	if !areItems(items, count) {
		return ErrBroken
	}
	for len(items) > 0 {
		length, n := binary.Uvarint(items)
		end := n + int(length)
		take(number, items[n:end:end])
		items = items[end:]
		number++
	}
	return nil
}

// maxKept is how large a body's memory may be for the next body to use it too.
const maxKept = 2 << 20

// Expire gives up the fragments that waited too long. Read does so too where
// fragments come; call it now and then where none do.
func (r *FrameReader) Expire(now time.Time) { r.fragments.expire(now) }

// Fragments returns what waits for its other fragments, and what was given up.
func (r *FrameReader) Fragments() FragmentStats { return r.fragments.stats }

// areItems says whether a body is a row of so many items.
func areItems(body []byte, count int) bool {
	for ; count > 0; count-- {
		length, n := binary.Uvarint(body)
		if n <= 0 || length > uint64(len(body)-n) {
			return false
		}
		body = body[n+int(length):]
	}
	return len(body) == 0
}

// expander undoes the compression with one dictionary.
type expander struct {
	dictionary *Dictionary
	zstd       *zstd.Decoder // made when the first frame needs it
}

// expand returns what the body was compressed from, in the memory of dst if
// that has room. It checks the length before it makes room.
func (x *expander) expand(dst, body []byte, c Compression, limit int) ([]byte, error) {
	length, err := expandedLength(body, c)
	switch {
	case err != nil:
		return nil, ErrBroken
	case length > uint64(limit):
		return nil, ErrTooLong
	}
	if cap(dst) < int(length) {
		dst = make([]byte, 0, length)
	}
	if c == CompressionS2 {
		if x.dictionary.s2 == nil {
			dst, err = s2.Decode(dst[:length], body)
		} else {
			dst, err = x.dictionary.s2.Decode(dst, body)
		}
	} else {
		if x.zstd == nil {
			if x.zstd, err = zstd.NewReader(nil, x.dictionary.zstdDecode()...); err != nil {
				return nil, ErrDictionary
			}
		}
		dst, err = x.zstd.DecodeAll(body, dst[:0:length])
	}
	if err != nil {
		return nil, ErrBroken
	}
	return dst, nil
}

// expandedLength returns what a compressed body says of its own length.
func expandedLength(body []byte, c Compression) (uint64, error) {
	if c == CompressionS2 {
		n, err := s2.DecodedLen(body)
		return uint64(n), err
	}
	var h zstd.Header
	if err := h.Decode(body); err != nil {
		return 0, err
	}
	if !h.HasFCS {
		return 0, ErrBroken
	}
	return h.FrameContentSize, nil
}
