package transcode

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// memo keeps the JSON of sub-messages that came twice: the process, parent and
// ancestors of events, and inside them capabilities, namespaces and pods, are
// the same bytes again and again.
//
// Bytes are found by a seeded hash and verified by comparing all of them. Only
// what comes a second time is stored, so a first sight costs a hash and one slot
// touched, and a stream that never repeats itself evicts nothing. The store is a
// ring: it grows to its bound, then the oldest is overwritten.
type memo struct {
	seed  maphash.Seed
	slots []slot
	mask  uint64
	ring  []byte
	most  int    // length up to which the ring grows before it begins anew
	head  uint64 // bytes ever written, and skipped at the ring's end
}

// slot is one place of the table; hash chooses it.
type slot struct {
	message           *message // the type, for the same bytes mean another thing in another
	hash              uint64
	at                uint64 // head when it was written
	wire, json        uint32 // lengths in the ring, one behind the other; 0: empty
	repaired, unknown uint32 // as in Info
	door              uint32 // part of the hash of what was seen once and not stored
}

const (
	// minMemo is the least size of a sub-message worth a hash, in bytes.
	minMemo = 64
	// maxMemo is the most, so that the data of a system call is not kept.
	maxMemo = 16 << 10
	// minCache is the least memory that is used at all.
	minCache = 64 << 10
	// memoDepth is the depth from which on messages are kept: an event's member
	// of the oneof never comes twice.
	memoDepth = 2
)

// newMemo makes a memo of about size bytes, nil if that is too little.
func newMemo(size int) *memo {
	if size < minCache {
		return nil
	}
	slots := 1 << (bits.Len(uint(size/1024)) - 1) // entries of both lengths measure about 1 KiB in the corpus
	return &memo{
		seed:  maphash.MakeSeed(),
		slots: make([]slot, slots),
		mask:  uint64(slots - 1),
		most:  size - slots*int(unsafe.Sizeof(slot{})),
	}
}

// memoized is message through the memo.
func (t *Transcoder) memoized(m *message, wire []byte, n int) int {
	c := t.memo
	h := maphash.Bytes(c.seed, wire)
	s := &c.slots[h&c.mask]
	if s.hash == h && s.message == m && int(s.wire) == len(wire) && s.json > 0 && c.head-s.at <= uint64(len(c.ring)) {
		at := int(s.at % uint64(len(c.ring)))
		if bytes.Equal(c.ring[at:at+len(wire)], wire) {
			at += len(wire)
			if len(t.buf)-n < int(s.json)+headroom {
				t.grow(n, int(s.json)+headroom)
			}
			t.info.Repaired += int(s.repaired)
			t.info.Unknown += int(s.unknown)
			return n + copy(t.buf[n:], c.ring[at:at+int(s.json)])
		}
	}
	before := t.info
	end := t.message(m, wire, n)
	if door := uint32(h >> 32); s.door != door {
		s.door = door
	} else if end >= 0 {
		c.store(s, slot{
			message:  m,
			hash:     h,
			repaired: uint32(t.info.Repaired - before.Repaired),
			unknown:  uint32(t.info.Unknown - before.Unknown),
			door:     door,
		}, wire, t.buf[n:end])
	}
	return end
}

// store puts an entry into the ring, and what says where it is into s.
func (c *memo) store(s *slot, entry slot, wire, json []byte) {
	size := len(wire) + len(json)
	if size > c.most/8 {
		return
	}
	if len(c.ring) < c.most && c.head+uint64(size) > uint64(len(c.ring)) { // still in its first round
		bigger := make([]byte, min(max(2*len(c.ring), minCache, int(c.head)+size), c.most))
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
	entry.at, entry.wire, entry.json = c.head, uint32(len(wire)), uint32(len(json))
	*s = entry
	c.head += uint64(size)
}
