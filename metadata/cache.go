package metadata

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Reason says why a record was given up, or why one that a process before this
// one had left was not taken.
type Reason uint8

// The reasons.
const (
	NewTetragon   Reason = iota // Tetragon answered, with other facts than the record states
	OtherBoot                   // the record left is from before the host was started
	OtherKernel                 // the record left is of another kernel
	OtherTetragon               // the record left is of another process of Tetragon
	OtherFacts                  // the record left is not what this process would write
	Damaged                     // the record left is no record, or its file was changed while it was in use

	numReasons
)

var reasonTexts = [numReasons]string{"new_tetragon", "other_boot", "other_kernel", "other_tetragon", "other_facts", "damaged"}

// String returns the reason's name in metrics and logs.
func (r Reason) String() string {
	if r < numReasons {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Invalidations counts records given up, by [Reason].
type Invalidations [numReasons]uint64

// Cache holds the current record of one destination. It is safe for any number
// of goroutines; while the record stands, [Cache.Get] is one atomic load and one
// atomic add.
type Cache struct {
	facts  func() Facts
	render Renderer
	off    bool

	record        atomic.Pointer[Record]
	making        sync.Mutex // one goroutine makes a record, the others wait for it
	hits          atomic.Uint64
	misses        atomic.Uint64
	made          atomic.Uint64
	fallbacks     atomic.Uint64
	badFacts      atomic.Uint64
	warmStarts    atomic.Uint64
	storeErrors   atomic.Uint64
	invalidations [numReasons]atomic.Uint64
}

// CacheStats counts what a cache did.
type CacheStats struct {
	Hits          uint64 // exports that reused the record
	Misses        uint64 // exports that found none
	Made          uint64 // records made: the first, and one for each change
	Fallbacks     uint64 // exports that had to make a plain event, because a record could not be made
	BadFacts      uint64 // facts in records made that were missing, too long or not UTF-8
	WarmStarts    uint64 // records taken over from the process before this one: 0 or 1
	StoreErrors   uint64 // calls of the store that failed
	Invalidations Invalidations
	RecordBytes   int           // of the record in use, newline included; 0: there is none
	RecordAge     time.Duration // since it was made
}

// Add adds the counts of another cache. The record is the larger of the two, and the
// older.
func (s *CacheStats) Add(o *CacheStats) {
	s.Hits += o.Hits
	s.Misses += o.Misses
	s.Made += o.Made
	s.Fallbacks += o.Fallbacks
	s.BadFacts += o.BadFacts
	s.WarmStarts += o.WarmStarts
	s.StoreErrors += o.StoreErrors
	for why, n := range o.Invalidations {
		s.Invalidations[why] += n
	}
	s.RecordBytes = max(s.RecordBytes, o.RecordBytes)
	s.RecordAge = max(s.RecordAge, o.RecordAge)
}

// NewCache returns a cache that asks facts when it has to make a record. A nil
// render is [MetadataEvent.ToJSON].
func NewCache(facts func() Facts, render Renderer) *Cache {
	return &Cache{facts: facts, render: render}
}

// NoCache returns a cache that keeps nothing: each export asks for the facts and
// makes its event anew.
func NoCache(facts func() Facts, render Renderer) *Cache {
	return &Cache{facts: facts, render: render, off: true}
}

// Keeps says whether a record is kept at all.
func (c *Cache) Keeps() bool { return !c.off }

// Get returns the record to send. If there is none it makes one; if that fails
// it returns a plain record for this one export, cached false and the cause.
// Where nothing is kept, cached is false without a cause. The record is never nil.
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
	c.misses.Add(1)
	facts := c.facts()
	r, err := NewRecord(facts, c.render)
	if err == nil {
		c.made.Add(1)
		c.badFacts.Add(uint64(r.bad))
		if !c.off {
			c.record.Store(r)
		}
		return r, !c.off, nil
	}
	c.fallbacks.Add(1)
	return plainRecord(facts), false, err
}

// Forget drops the record, so that the next export states the facts anew.
func (c *Cache) Forget(why Reason) {
	c.making.Lock()
	defer c.making.Unlock()
	if c.record.Swap(nil) != nil {
		c.Invalidated(why)
	}
}

// Adopt takes over a record that a process before this one had left, if there is
// none yet, and says whether it did.
func (c *Cache) Adopt(r *Record) bool {
	if c.off || !c.record.CompareAndSwap(nil, r) {
		return false
	}
	c.warmStarts.Add(1)
	return true
}

// Settle has the record, if it is the given one, kept in memory from now on. It
// states the same in the same bytes.
func (c *Cache) Settle(r *Record) { c.record.CompareAndSwap(r, r.InMemory()) }

// Current returns the record in use, without counting that; nil: there is none.
func (c *Cache) Current() *Record { return c.record.Load() }

// Invalidated counts a record that was given up.
func (c *Cache) Invalidated(why Reason) { c.invalidations[why].Add(1) }

// StoreFailed counts a call of a store that failed.
func (c *Cache) StoreFailed() { c.storeErrors.Add(1) }

// Stats returns the counts so far.
func (c *Cache) Stats() CacheStats {
	s := CacheStats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Made: c.made.Load(), Fallbacks: c.fallbacks.Load(),
		BadFacts: c.badFacts.Load(), WarmStarts: c.warmStarts.Load(), StoreErrors: c.storeErrors.Load(),
	}
	for why := range s.Invalidations {
		s.Invalidations[why] = c.invalidations[why].Load()
	}
	if r := c.record.Load(); r != nil {
		s.RecordBytes, s.RecordAge = r.Len(), time.Since(r.made)
	}
	return s
}

// plainRecord renders without the renderer that failed.
func plainRecord(f Facts) *Record {
	r, err := NewRecord(f, nil)
	if err != nil {
		// Labels that nobody checked can make a record too long: it goes without.
		f.Labels = nil
		if r, err = NewRecord(f, nil); err != nil {
			panic("metadata: BUG: " + err.Error()) // strings and integers always marshal, and facts are cut
		}
	}
	return r
}
