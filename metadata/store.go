package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Store keeps what agents say of themselves for those who did not hear it: the
// next process on the same host, another collector. What is in it can always be
// made or heard again, so a store may forget, and nobody waits for one to send or
// receive an event.
//
// Implementations are safe for concurrent use. Errors other than ErrNotFound say
// that the store is away or broken.
type Store interface {
	// Get returns the value that was last put under the key. The bytes are only
	// read. ErrNotFound: there is none, or it has expired.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put keeps a copy of the value, of at most MaxEntry bytes.
	Put(ctx context.Context, key string, value []byte) error
	// Watch calls f, one call at a time, for what anybody puts from now on. A store
	// that takes a while to listen calls f with an empty key when it does. It
	// returns when ctx ends or the store can no longer tell.
	Watch(ctx context.Context, f func(key string, value []byte)) error
}

// ErrNotFound says that a store has nothing under a key.
var ErrNotFound = errors.New("metadata: not found")

// ErrBadEntry says that what stands under a key is not what belongs there.
var ErrBadEntry = errors.New("metadata: bad entry")

// MaxEntry is the largest value of a store, in bytes: an agent_init fits a
// datagram.
const MaxEntry = 64 << 10

// RecordKey is the key of a record, by its digest.
func RecordKey(digest uint64) string { return fmt.Sprintf("record.%016x", digest) }

// StreamKey is the key of the agent that sends a stream, by the stream's id.
func StreamKey(stream uint64) string { return fmt.Sprintf("stream.%016x", stream) }

// parseStreamKey is the other way.
func parseStreamKey(key string) (stream uint64, ok bool) {
	digits, ok := strings.CutPrefix(key, "stream.")
	stream, err := strconv.ParseUint(digits, 16, 64)
	return stream, ok && err == nil && len(digits) == 16
}

// entry is a value as stores hold it. It repeats its key, so that a value which
// was put under another agent's is found out.
type entry struct {
	Key    string          `json:"key"`
	Record json.RawMessage `json:"record"`
}

// NewEntry returns the value that belongs under the key for an agent_init, which is
// one JSON object.
func NewEntry(key string, record []byte) ([]byte, error) {
	var value bytes.Buffer
	encoder := json.NewEncoder(&value)
	encoder.SetEscapeHTML(false) // the record comes back byte for byte
	if err := encoder.Encode(entry{Key: key, Record: record}); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadEntry, key, err)
	}
	if value.Len() > MaxEntry {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrBadEntry, key, value.Len(), MaxEntry)
	}
	return bytes.TrimSuffix(value.Bytes(), []byte{'\n'}), nil
}

// ReadEntry returns the agent_init in a value that a store has under the key, in
// memory of its own and on one line, or an ErrBadEntry that says what is wrong with
// it.
func ReadEntry(key string, value []byte) ([]byte, error) {
	record, _, err := readEntry(key, value)
	return record, err
}

// readEntry returns the record's digest too.
func readEntry(key string, value []byte) (record []byte, digest uint64, err error) {
	bad := func(format string, args ...any) ([]byte, uint64, error) {
		return nil, 0, fmt.Errorf("%w: %s "+format, append([]any{ErrBadEntry, key}, args...)...)
	}
	if len(value) > MaxEntry {
		return bad("has %d bytes, more than %d", len(value), MaxEntry)
	}
	var e entry
	if err := json.Unmarshal(value, &e); err != nil {
		return bad("is no entry: %w", err)
	}
	if e.Key != key {
		return bad("holds what belongs under %.40q", e.Key)
	}
	digest, err = digestOf(e.Record)
	switch {
	case err != nil:
		return bad("holds no agent_init: %w", err)
	case strings.HasPrefix(key, "record.") && key != RecordKey(digest):
		return bad("is not the digest of its record, %016x", digest)
	case !utf8.Valid(e.Record):
		return bad("is not UTF-8")
	}
	var line bytes.Buffer
	if err := json.Compact(&line, e.Record); err != nil {
		return bad("holds no JSON: %w", err)
	}
	return line.Bytes(), digest, nil
}

// digestOf returns the digest of an agent_init.
func digestOf(record []byte) (uint64, error) {
	var event MetadataEvent
	if err := json.Unmarshal(record, &event); err != nil {
		return 0, err
	}
	if event.Event != EventAgentInit {
		return 0, fmt.Errorf("the event is %.40q, want %s", event.Event, EventAgentInit)
	}
	return digest(event), nil
}

// MemoryStore is a store in this process's memory.
type MemoryStore struct {
	maxEntries int
	expiry     time.Duration

	mu       sync.Mutex
	values   map[string]kept
	watchers map[chan<- put]struct{}
}

// kept is a value and when it was put.
type kept struct {
	value []byte
	at    time.Time
}

// put is what a watcher is told.
type put struct {
	key   string
	value []byte
}

// NewMemoryStore returns a store that forgets what was put longer than expiry ago
// (zero: nothing), and what was put first when it holds maxEntries.
func NewMemoryStore(maxEntries int, expiry time.Duration) *MemoryStore {
	return &MemoryStore{maxEntries: maxEntries, expiry: expiry, values: map[string]kept{}, watchers: map[chan<- put]struct{}{}}
}

// Get returns the value under the key.
func (m *MemoryStore) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	if !ok || m.expired(v) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	return v.value, nil
}

func (m *MemoryStore) expired(v kept) bool { return m.expiry > 0 && time.Since(v.at) >= m.expiry }

// Put keeps a copy of the value. A watcher that is too slow misses it.
func (m *MemoryStore) Put(_ context.Context, key string, value []byte) error {
	if len(value) > MaxEntry {
		return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrBadEntry, key, len(value), MaxEntry)
	}
	value = bytes.Clone(value)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[key]; !ok && len(m.values) >= m.maxEntries {
		m.makeRoom()
	}
	m.values[key] = kept{value, time.Now()}
	for w := range m.watchers {
		select {
		case w <- put{key, value}:
		default:
		}
	}
	return nil
}

// makeRoom forgets what has expired, or else what was put longest ago.
func (m *MemoryStore) makeRoom() {
	first, at := "", time.Time{}
	for key, v := range m.values {
		if m.expired(v) {
			delete(m.values, key)
		} else if at.IsZero() || v.at.Before(at) {
			first, at = key, v.at
		}
	}
	if len(m.values) >= m.maxEntries {
		delete(m.values, first)
	}
}

// Watch calls f for what is put, until ctx ends.
func (m *MemoryStore) Watch(ctx context.Context, f func(key string, value []byte)) error {
	puts := make(chan put, 64)
	m.mu.Lock()
	m.watchers[puts] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, puts)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-puts:
			f(p.key, p.value)
		}
	}
}
