package transcode

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// memo keeps the JSON of pieces of messages: of the process, parent and
// ancestors of an event, of what a hook says each time it fires, and, inside of
// new processes, of capabilities, namespaces and pods. They are the same bytes
// again and again.
//
// A piece is found by a seeded hash and verified by comparing all its bytes. The
// store is a ring: it grows to its bound, then the oldest is overwritten.
//
// Whether a look pays is learned for each site, a place in the descriptor that
// pieces come from. Each found byte earns, each byte not found costs; a site
// that has spent its balance sleeps, and is tried again for 1/64 of its bytes.
// So a host that never repeats itself, or one who chooses the bytes to make us
// believe so, pays for those trials only.
type memo struct {
	seed  maphash.Seed
	sites []site
	slots []slot // pairs of them share a hash's low bits
	used  int    // slots filled since the table grew
	most  int    // slots up to which the table grows
	ring  []byte
	size  int    // length up to which the ring grows before it begins anew
	head  uint64 // bytes ever written, and skipped at the ring's end
	stats CacheStats
}

// slot is one place of the table.
type slot struct {
	owner             *message // how the bytes are read; nil: empty
	hash              uint64
	at                uint64 // head when it was written
	wire, json        uint32 // lengths in the ring, one behind the other
	repaired, unknown uint32 // as in Info
}

// site is what the memo knows about one place that pieces come from.
type site struct {
	balance int32 // in bytes; at 0 it falls asleep
	asleep  int32 // bytes to pass unlooked-at
}

const (
	// minMemo is the least size of a piece worth a look, in bytes.
	minMemo = 48
	// maxMemo is the most, so that the data of a system call is not kept.
	maxMemo = 16 << 10
	// minCache is the least memory that is used at all.
	minCache = 64 << 10
	// firstSlots is how many slots a table begins with: what a short life needs.
	firstSlots = 256
	// firstRing is how many bytes the ring begins with.
	firstRing = 32 << 10
	// entryBytes is how much of the ring a slot stands for.
	entryBytes = 512

	// A found byte earns three times what one not found costs: hashing and storing
	// take less than a quarter of the time of transcoding.
	foundWeight = 3
	trial       = 4 << 10 // balance at the start and after sleep
	longest     = 64 << 10
	sleep       = 64 * trial
)

// CacheStats tells what the memo did since the transcoder was made. The zero
// value is that of a transcoder without one.
type CacheStats struct {
	Looks uint64 // pieces looked for
	Found uint64 // pieces whose JSON was there
	Bytes uint64 // JSON bytes copied from there
}

// newMemo makes a memo of about size bytes, nil if that is too little.
func newMemo(size, sites int) *memo {
	if size < minCache {
		return nil
	}
	most := 1 << (bits.Len(uint(size/entryBytes)) - 1)
	c := &memo{
		seed:  maphash.MakeSeed(),
		sites: make([]site, sites),
		slots: make([]slot, min(firstSlots, most)),
		most:  most,
		size:  size - most*int(unsafe.Sizeof(slot{})),
	}
	for i := range c.sites {
		c.sites[i].balance = trial
	}
	return c
}

// awake reports whether the site is worth a look at a piece of that size.
func (s *site) awake(size int) bool {
	if s.asleep > 0 {
		if s.asleep -= int32(size); s.asleep <= 0 {
			s.balance = trial
		}
		return false
	}
	return true
}

// find returns the slot that holds the piece, or nil.
func (c *memo) find(owner *message, hash uint64, wire []byte) *slot {
	pair := hash & uint64(len(c.slots)-1) &^ 1
	for k := range uint64(2) {
		s := &c.slots[pair+k]
		if s.hash == hash && s.owner == owner && int(s.wire) == len(wire) && c.head-s.at <= uint64(len(c.ring)) {
			at := c.place(s)
			if bytes.Equal(c.ring[at:at+len(wire)], wire) {
				return s
			}
		}
	}
	return nil
}

// place returns where the bytes of a slot begin in the ring.
func (c *memo) place(s *slot) int { return int(s.at % uint64(len(c.ring))) }

// piece writes a piece of a message at buf[n:] by the memo: the message in wire,
// or, if run, the fields in wire of such a message, as message and fields do.
func (t *Transcoder) piece(m *message, number uint16, wire []byte, n int, run bool) int {
	c := t.memo
	site := &c.sites[number]
	if !site.awake(len(wire)) {
		return t.unmemoized(m, wire, n, run)
	}
	c.stats.Looks++
	hash := maphash.Bytes(c.seed, wire)
	if s := c.find(m, hash, wire); s != nil {
		site.balance = min(site.balance+foundWeight*int32(len(wire)), longest)
		size := int(s.json)
		if len(t.buf)-n < size+headroom {
			t.grow(n, size+headroom)
		}
		t.info.Repaired += int(s.repaired)
		t.info.Unknown += int(s.unknown)
		c.stats.Found++
		c.stats.Bytes += uint64(size)
		at := c.place(s) + len(wire)
		return n + copy(t.buf[n:], c.ring[at:at+size])
	}
	if site.balance -= int32(len(wire)); site.balance <= 0 {
		site.asleep = sleep
	}
	before := t.info
	end := t.unmemoized(m, wire, n, run)
	if end >= 0 {
		c.store(slot{
			owner:    m,
			hash:     hash,
			repaired: uint32(t.info.Repaired - before.Repaired),
			unknown:  uint32(t.info.Unknown - before.Unknown),
		}, wire, t.buf[n:end])
	}
	return end
}

func (t *Transcoder) unmemoized(m *message, wire []byte, n int, run bool) int {
	if run {
		return t.fields(m, wire, n)
	}
	return t.message(m, wire, n)
}

// store puts a piece into the ring, and what says where it is into the table.
func (c *memo) store(s slot, wire, json []byte) {
	size := len(wire) + len(json)
	if size > c.size/8 {
		return
	}
	if len(c.ring) < c.size && c.head+uint64(size) > uint64(len(c.ring)) { // still in its first round
		bigger := make([]byte, min(max(2*len(c.ring), firstRing, int(c.head)+size), c.size))
		copy(bigger, c.ring)
		c.ring = bigger
	}
	at := int(c.head % uint64(len(c.ring)))
	if rest := len(c.ring) - at; rest < size {
		c.head += uint64(rest)
		at = 0
	}
	copy(c.ring[at:], wire)
	copy(c.ring[at+len(wire):], json)
	s.at, s.wire, s.json = c.head, uint32(len(wire)), uint32(len(json))
	c.head += uint64(size)
	if c.used++; c.used > len(c.slots)/2 && len(c.slots) < c.most {
		c.rehash()
	}
	c.put(s)
}

// put fills the older slot of a pair.
func (c *memo) put(s slot) {
	pair := s.hash & uint64(len(c.slots)-1) &^ 1
	if c.slots[pair].owner != nil && (c.slots[pair+1].owner == nil || c.slots[pair+1].at < c.slots[pair].at) {
		pair++
	}
	c.slots[pair] = s
}

// rehash makes the table four times as large.
func (c *memo) rehash() {
	old := c.slots
	c.slots = make([]slot, min(4*len(old), c.most))
	c.used = 0
	for _, s := range old {
		if s.owner != nil {
			c.used++
			c.put(s)
		}
	}
}

// CacheStats returns what the memo did so far.
func (t *Transcoder) CacheStats() CacheStats {
	if t.memo == nil {
		return CacheStats{}
	}
	return t.memo.stats
}
