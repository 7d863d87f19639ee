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
	"strconv"
)

// KeyBytes is the length of a pre-shared key.
const KeyBytes = 32

// MaxKeyHost is the longest name of a host that a key can be of, in bytes.
const MaxKeyHost = 96

// What begins a key's line in a file and names the format: a key, and one that was
// derived from it for a host.
const (
	keyWord     = "tetracast-key-1 "
	hostKeyWord = "tetracast-host-key-1 "
)

// ErrKeyFile is wrapped by the errors of [ParseKeys].
var ErrKeyFile = errors.New("not a key file")

// Key is a pre-shared key that frames are sealed with, or that of one host, derived
// from it, which seals frames that name the host. It is immutable and safe for any
// number of goroutines.
type Key struct {
	secret [KeyBytes]byte
	id     uint32 // of a host's key: of that which it was derived from
	host   string // empty: of none
}

// NewKey returns the key of that secret, which must be random.
func NewKey(secret [KeyBytes]byte) *Key {
	k := &Key{secret: secret}
	k.id = binary.BigEndian.Uint32(k.derive(nil, "tetracast frame 1 key id", 4))
	return k
}

// ID returns what names the key in a header. It tells nothing about the secret.
func (k *Key) ID() uint32 { return k.id }

// Host returns whose key this is; empty: nobody's in particular.
func (k *Key) Host() string { return k.host }

// String returns the key's id and host, never the secret.
func (k *Key) String() string {
	if k.host != "" {
		return fmt.Sprintf("key %08x for host %s", k.id, k.host)
	}
	return fmt.Sprintf("key %08x", k.id)
}

// ErrKeyHost is wrapped by the errors of [Key.ForHost].
var ErrKeyHost = errors.New("no name that a host's key can be of")

// ForHost returns the key of the host of that name: 1 to [MaxKeyHost] bytes of
// printable ASCII without spaces. Who has it can seal frames that name this host, and
// no others, and cannot find k.
func (k *Key) ForHost(name string) (*Key, error) {
	if k.host != "" || !isHost(name) {
		return nil, fmt.Errorf("datagram: %w: %.100q", ErrKeyHost, name)
	}
	return k.forHost(name), nil
}

func (k *Key) forHost(name string) *Key {
	host := &Key{id: k.id, host: name}
	copy(host.secret[:], k.derive(nil, "tetracast frame 1 host key "+name, KeyBytes))
	return host
}

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
	return NewKey(secret).AppendLine(dst)
}

// AppendLine appends the line of a key file that holds the key.
func (k *Key) AppendLine(dst []byte) []byte {
	if k.host != "" {
		dst = fmt.Appendf(dst, "%s%08x %s ", hostKeyWord, k.id, k.host)
	} else {
		dst = append(dst, keyWord...)
	}
	return append(hex.AppendEncode(dst, k.secret[:]), '\n')
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
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("datagram: line %d: %w", number, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > 2 {
		return nil, fmt.Errorf("datagram: %d keys, want one or two: %w", len(keys), ErrKeyFile)
	}
	return keys, nil
}

// parseKey reads the line of a key.
func parseKey(line []byte) (*Key, error) {
	fields := bytes.Fields(line)
	want := fmt.Errorf("want %q and %d hexadecimal digits, or %q, a key id, a host and as many: %w", keyWord, 2*KeyBytes, hostKeyWord, ErrKeyFile)
	switch {
	case len(fields) == 2 && string(fields[0])+" " == keyWord:
	case len(fields) == 4 && string(fields[0])+" " == hostKeyWord && isHost(fields[2]):
	default:
		return nil, want
	}
	var secret [KeyBytes]byte
	if digits := fields[len(fields)-1]; len(digits) != 2*KeyBytes {
		return nil, want
	} else if _, err := hex.Decode(secret[:], digits); err != nil {
		return nil, fmt.Errorf("not hexadecimal: %w", ErrKeyFile)
	}
	if len(fields) == 2 {
		return NewKey(secret), nil
	}
	id, err := strconv.ParseUint(string(fields[1]), 16, 32)
	if err != nil || len(fields[1]) != 8 {
		return nil, fmt.Errorf("a key id of %d digits, want 8 hexadecimal ones: %w", len(fields[1]), ErrKeyFile)
	}
	return &Key{secret: secret, id: uint32(id), host: string(fields[2])}, nil
}
