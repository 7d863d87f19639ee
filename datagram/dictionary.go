package datagram

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// The length of a dictionary, in bytes.
const (
	MinDictionary = s2.MinDictSize
	MaxDictionary = 1 << 20
)

// ErrDictionaryFile is wrapped by the errors of [NewDictionary].
var ErrDictionaryFile = errors.New("not a dictionary")

// zstdDictionary begins a dictionary in the format of Zstandard (RFC 8878,
// section 5).
var zstdDictionary = []byte{0x37, 0xa4, 0x30, 0xec}

// Dictionary is what bodies are compressed against: bytes that both sides have,
// so that what repeats from frame to frame is not sent again. One serves S2 and
// Zstandard. It is immutable and safe for any number of goroutines.
type Dictionary struct {
	content []byte
	digest  uint32
	s2      *s2.Dict
}

// NoDictionary compresses each body by itself.
var NoDictionary = &Dictionary{}

// NewDictionary returns the dictionary of that content, which it keeps. The
// error wraps [ErrDictionaryFile].
func NewDictionary(content []byte) (*Dictionary, error) {
	if len(content) < MinDictionary || len(content) > MaxDictionary {
		return nil, fmt.Errorf("datagram: dictionary of %d bytes: want %d to %d: %w", len(content), MinDictionary, MaxDictionary, ErrDictionaryFile)
	}
	sum := sha256.Sum256(content)
	d := &Dictionary{content: content, digest: binary.BigEndian.Uint32(sum[:]), s2: s2.MakeDict(content, nil)}
	if _, err := zstd.NewReader(nil, d.zstdDecode()...); err != nil {
		return nil, fmt.Errorf("datagram: dictionary %08x: %w: %w", d.digest, ErrDictionaryFile, err)
	}
	return d, nil
}

// Digest returns what names the dictionary in a header: the first four bytes of
// its SHA-256.
func (d *Dictionary) Digest() uint32 { return d.digest }

// Content returns the dictionary's bytes. The caller must not change them.
func (d *Dictionary) Content() []byte { return d.content }

// zstdEncode returns the options of an encoder that uses the dictionary.
func (d *Dictionary) zstdEncode() []zstd.EOption {
	options := []zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithEncoderLevel(zstd.SpeedDefault)}
	switch {
	case d.content == nil:
		return options
	case bytes.HasPrefix(d.content, zstdDictionary):
		return append(options, zstd.WithEncoderDict(d.content))
	}
	return append(options, zstd.WithEncoderDictRaw(0, d.content))
}

// zstdDecode returns the options of a decoder that uses the dictionary and
// writes no more than it has room for.
func (d *Dictionary) zstdDecode() []zstd.DOption {
	options := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxExpanded)}
	switch {
	case d.content == nil:
		return options
	case bytes.HasPrefix(d.content, zstdDictionary):
		return append(options, zstd.WithDecoderDicts(d.content))
	}
	return append(options, zstd.WithDecoderDictRaw(0, d.content))
}
