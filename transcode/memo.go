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
	seed   maphash.Seed
	sites  []site
	slots  []slot // pairs of them share a hash's low bits
	used   int    // slots filled since the table grew
	most   int    // slots up to which the table grows
	blocks [][]byte
	ring   int    // blocks up to which the store grows before it begins anew
	head   uint64 // bytes ever written, and skipped at the ends of blocks
	stats  CacheStats
}

// slot is one place of the table: 32 bytes, so that a pair is one cache line.
type slot struct {
	hash              uint64
	at                uint64 // head when it was written
	owner             owner
	json              uint16 // length in the store, behind the wire bytes; 0: empty
	wire              uint16 // length in the store
	repaired, unknown uint32 // as in Info
}

// owner says how the bytes of a piece are read: as which type of message, and
// whether they are the message or a run of its fields. The two are the same bytes
// where a message holds nothing but such a run, and their JSON differs by braces.
type owner uint32

func ownerOf(m *message, run bool) owner {
	o := owner(m.number) << 1
	if run {
		o |= 1
	}
	return o
}

// site is what the memo knows about one place that pieces come from.
type site struct {
	balance int32  // in bytes; at 0 it falls asleep
	asleep  int32  // bytes to pass unlooked-at
	last    uint32 // slot found last, which is often the next one too
}

const (
	// minMemo is the least size of a piece worth a look, in bytes.
	minMemo = 48
	// maxMemo is the most, so that the data of a system call is not kept.
	maxMemo = 8 << 10
	// minCache is the least memory that is used at all.
	minCache = 128 << 10
	// firstSlots is how many slots a table begins with: what a short life needs.
	firstSlots = 64
	// slotBytes is how much memory of the store there is for each slot.
	slotBytes = 512
	// memoBlock is what the store grows by: one of the sizes that the allocator
	// hands out without a lock. No piece crosses its end, so a length fits 16 bits.
	memoBlock = 24 << 10

	// hashHead and hashTail are how much of the two ends of a long piece is hashed.
	hashHead, hashTail = 64, 32

	// A found byte earns three times what one not found costs: hashing and storing
	// take less than a quarter of the time of transcoding.
	foundWeight = 3
	trial       = 2 << 10 // balance at the start and after sleep
	longest     = 64 << 10
	sleep       = 128 * trial
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
	most := 1 << (bits.Len(uint(size/slotBytes)) - 1)
	c := &memo{
		seed:  maphash.MakeSeed(),
		sites: make([]site, sites),
		slots: make([]slot, min(firstSlots, most)),
		most:  most,
		ring:  (size - most*int(unsafe.Sizeof(slot{}))) / memoBlock,
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

// spend takes bytes off the balance.
func (s *site) spend(bytes int) {
	if s.balance -= int32(bytes); s.balance <= 0 {
		s.asleep = sleep
	}
}

// hash looks at the ends of a long piece only. What tells processes apart, the
// exec_id, is in its beginning, and a piece is compared whole before it is used;
// one that differs in its middle alone shares a pair of slots with the other.
func (c *memo) hash(wire []byte) uint64 {
	if len(wire) <= hashHead+hashTail {
		return maphash.Bytes(c.seed, wire)
	}
	return maphash.Bytes(c.seed, wire[:hashHead]) + 31*maphash.Bytes(c.seed, wire[len(wire)-hashTail:]) + uint64(len(wire))
}

// find returns the JSON of the piece and its slot, or nil.
func (c *memo) find(o owner, hash uint64, wire []byte) ([]byte, uint32) {
	pair := uint32(hash) & uint32(len(c.slots)-1) &^ 1
	for i := pair; i < pair+2; i++ {
		if c.slots[i].hash == hash {
			if json := c.json(&c.slots[i], o, wire); json != nil {
				return json, i
			}
		}
	}
	return nil, 0
}

// json returns the JSON that belongs to a slot if that holds the piece, or nil.
func (c *memo) json(s *slot, o owner, wire []byte) []byte {
	if int(s.wire) != len(wire) || s.owner != o || s.json == 0 || c.head-s.at > uint64(c.ring-1)*memoBlock {
		return nil
	}
	block, at := c.place(s.at)
	if b := c.blocks[block][at:]; bytes.Equal(b[:len(wire)], wire) {
		return b[len(wire) : len(wire)+int(s.json)]
	}
	return nil
}

// place returns the block and the place in it that head stood at.
func (c *memo) place(head uint64) (block, at int) {
	return int(head / memoBlock % uint64(c.ring)), int(head % memoBlock)
}

// piece writes a piece of a message at buf[n:] by the memo: the message in wire,
// or, if run, the fields in wire of such a message, as message and fields do.
func (t *Transcoder) piece(m *message, number uint16, wire []byte, n int, run bool) int {
	c := t.memo
	site := &c.sites[number]
	if !site.awake(len(wire)) {
		return t.unmemoized(m, wire, n, run)
	}
	c.stats.Looks++
	i, o := site.last, ownerOf(m, run)
	json, hash := c.json(&c.slots[i], o, wire), uint64(0)
	if json == nil {
		hash = c.hash(wire)
		json, i = c.find(o, hash, wire)
	}
	if json != nil {
		site.last = i
		site.balance = min(site.balance+foundWeight*int32(len(wire)), longest)
		if len(t.buf)-n < len(json)+headroom {
			t.grow(n, len(json)+headroom)
		}
		t.info.Repaired += int(c.slots[i].repaired)
		t.info.Unknown += int(c.slots[i].unknown)
		c.stats.Found++
		c.stats.Bytes += uint64(len(json))
		return n + copy(t.buf[n:], json)
	}
	site.spend(len(wire))
	before := t.info
	end := t.unmemoized(m, wire, n, run)
	if end >= 0 {
		c.store(slot{
			owner:    o,
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

// store puts a piece into the store, and what says where it is into the table.
func (c *memo) store(s slot, wire, json []byte) {
	size := len(wire) + len(json)
	if size > memoBlock {
		return
	}
	if rest := memoBlock - c.head%memoBlock; rest < uint64(size) {
		c.head += rest
	}
	block, at := c.place(c.head)
	if block == len(c.blocks) { // still in its first round
		c.blocks = append(c.blocks, make([]byte, memoBlock))
	}
	b := c.blocks[block][at:]
	copy(b[copy(b, wire):], json)
	s.at, s.wire, s.json = c.head, uint16(len(wire)), uint16(len(json))
	c.head += uint64(size)
	if c.used++; c.used > len(c.slots)/2 && len(c.slots) < c.most {
		c.rehash()
	}
	c.put(s)
}

// put fills the older slot of a pair.
func (c *memo) put(s slot) {
	pair := uint32(s.hash) & uint32(len(c.slots)-1) &^ 1
	if c.slots[pair].json != 0 && (c.slots[pair+1].json == 0 || c.slots[pair+1].at < c.slots[pair].at) {
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
		if s.json != 0 {
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
