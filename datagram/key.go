package datagram

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// KeyBytes is the length of a pre-shared key.
const KeyBytes = 32

// keyWord begins a key's line in a file and names the format.
const keyWord = "tetracast-key-1 "

// ErrKeyFile is wrapped by the errors of [ParseKeys].
var ErrKeyFile = errors.New("not a key file")

// Key is a pre-shared key that frames are sealed with. It is immutable and
// safe for any number of goroutines.
type Key struct {
	secret [KeyBytes]byte
	id     uint32
}

// NewKey returns the key of that secret, which must be random.
func NewKey(secret [KeyBytes]byte) *Key {
	k := &Key{secret: secret}
	k.id = binary.BigEndian.Uint32(k.derive(nil, "tetracast frame 1 key id", 4))
	return k
}

// ID returns what names the key in a header. It tells nothing about the secret.
func (k *Key) ID() uint32 { return k.id }

// String returns the key's id, never the secret.
func (k *Key) String() string { return fmt.Sprintf("key %08x", k.id) }

// derive is HKDF-SHA-256 (RFC 5869).
func (k *Key) derive(salt []byte, info string, length int) []byte {
	out, err := hkdf.Key(sha256.New, k.secret[:], salt, info, length)
	if err != nil {
		panic("BUG: datagram: HKDF refuses fixed lengths: " + err.Error()) // in FIPS mode only for shorter keys
	}
	return out
}

// Derive returns what only those can make who have the key, and what tells nothing
// about it. The purpose keeps one use of a key apart from another.
func (k *Key) Derive(purpose string) (secret [KeyBytes]byte) {
	copy(secret[:], k.derive(nil, "tetracast derived "+purpose, KeyBytes))
	return secret
}

// stream returns the cipher for one stream.
func (k *Key) stream(stream uint64, salt []byte) cipher.AEAD {
	info := binary.BigEndian.AppendUint64([]byte("tetracast frame 1 stream key"), stream)
	block, err := aes.NewCipher(k.derive(salt, string(info), 32))
	if err != nil {
		panic("BUG: datagram: AES refuses a key of 32 bytes: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("BUG: datagram: GCM refuses AES: " + err.Error())
	}
	return aead
}

// AppendKey appends the line of a key file that holds the secret.
func AppendKey(dst []byte, secret [KeyBytes]byte) []byte {
	dst = append(dst, keyWord...)
	return append(hex.AppendEncode(dst, secret[:]), '\n')
}

// ParseKeys reads the text of a key file (docs/frame.md, Sealing): one key, or
// two during a rotation. The first is the one to seal with. The error wraps
// [ErrKeyFile] and names the line, but no part of it.
func ParseKeys(text []byte) ([]*Key, error) {
	var keys []*Key
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		digits, ok := bytes.CutPrefix(line, []byte(keyWord))
		if !ok || len(digits) != 2*KeyBytes {
			return nil, fmt.Errorf("datagram: line %d: want %q and %d hexadecimal digits: %w", number, keyWord, 2*KeyBytes, ErrKeyFile)
		}
		var secret [KeyBytes]byte
		if _, err := hex.Decode(secret[:], digits); err != nil {
			return nil, fmt.Errorf("datagram: line %d: not hexadecimal: %w", number, ErrKeyFile)
		}
		keys = append(keys, NewKey(secret))
	}
	if len(keys) == 0 || len(keys) > 2 {
		return nil, fmt.Errorf("datagram: %d keys, want one or two: %w", len(keys), ErrKeyFile)
	}
	return keys, nil
}
