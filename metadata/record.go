package metadata

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// Record is an agent_init with its rendered bytes. It is immutable and safe
// for any number of goroutines.
type Record struct {
	event  *MetadataEvent
	line   []byte
	digest uint64
}

// Renderer turns an event into one JSON object without a newline.
type Renderer func(*MetadataEvent) ([]byte, error)

// NewRecord renders the facts. A nil render is [MetadataEvent.ToJSON].
func NewRecord(f Facts, render Renderer) (*Record, error) {
	if render == nil {
		render = (*MetadataEvent).ToJSON
	}
	event := NewEvent(f)
	text, err := render(event)
	if err != nil {
		return nil, fmt.Errorf("metadata: making the record: %w", err)
	}
	line := make([]byte, 0, len(text)+1)
	line = append(append(line, text...), '\n')
	return &Record{event: event, line: line, digest: digest(*event)}, nil
}

// digest returns the first eight bytes of the SHA-256 of the event's JSON without
// what tells one start of an agent, and one destination, from another. It is not
// 0, which stands for no record.
func digest(event MetadataEvent) uint64 {
	event.Timestamp, event.PID, event.UDPDestination = "", 0, ""
	text, err := event.ToJSON()
	if err != nil {
		return 1 // two such records are taken for one
	}
	sum := sha256.Sum256(text)
	return max(1, binary.BigEndian.Uint64(sum[:]))
}

// Digest names what the record states of an agent, whenever it was started and
// wherever it sends: frames carry it, so that a receiver that lost this record
// knows it from another start. It is never 0.
func (r *Record) Digest() uint64 { return r.digest }

// Event returns what the record states. The caller must not change it.
func (r *Record) Event() *MetadataEvent { return r.event }

// JSON returns the rendered event. The caller must not change the bytes, which
// live as long as the record.
func (r *Record) JSON() []byte { return r.line[:len(r.line)-1] }

// Line returns the rendered event and one newline, under JSON's terms.
func (r *Record) Line() []byte { return r.line }

// Cache holds the current record of one destination. It is safe for any number
// of goroutines; while the record stands, [Cache.Get] is one atomic load and one
// atomic add.
type Cache struct {
	facts  func() Facts
	render Renderer

	record    atomic.Pointer[Record]
	making    sync.Mutex // one goroutine makes a record, the others wait for it
	hits      atomic.Uint64
	made      atomic.Uint64
	fallbacks atomic.Uint64
}

// CacheStats counts what a cache did.
type CacheStats struct {
	Hits      uint64 // exports that reused the record
	Made      uint64 // records made: the first, and one for each change
	Fallbacks uint64 // exports that had to make a plain event, because a record could not be made
}

// NewCache returns a cache that asks facts when it has to make a record. A nil
// render is [MetadataEvent.ToJSON].
func NewCache(facts func() Facts, render Renderer) *Cache {
	return &Cache{facts: facts, render: render}
}

// Get returns the record to send. If there is none it makes one; if that fails
// it returns a plain record for this one export, cached false and the cause.
// The record is never nil.
func (c *Cache) Get() (record *Record, cached bool, cause error) {
	if r := c.record.Load(); r != nil {
		c.hits.Add(1)
		return r, true, nil
	}
	c.making.Lock()
	defer c.making.Unlock()
	if r := c.record.Load(); r != nil {
		c.hits.Add(1)
		return r, true, nil
	}
	facts := c.facts()
	r, err := NewRecord(facts, c.render)
	if err == nil {
		c.made.Add(1)
		c.record.Store(r)
		return r, true, nil
	}
	c.fallbacks.Add(1)
	return plainRecord(facts), false, err
}

// Forget drops the record, so that the next export states the facts anew.
func (c *Cache) Forget() {
	c.making.Lock()
	defer c.making.Unlock()
	c.record.Store(nil)
}

// Stats returns the counts so far.
func (c *Cache) Stats() CacheStats {
	return CacheStats{Hits: c.hits.Load(), Made: c.made.Load(), Fallbacks: c.fallbacks.Load()}
}

// plainRecord renders without the renderer that failed.
func plainRecord(f Facts) *Record {
	r, err := NewRecord(f, nil)
	if err != nil {
		// Strings and integers always marshal.
		panic("metadata: BUG: " + err.Error())
	}
	return r
}
