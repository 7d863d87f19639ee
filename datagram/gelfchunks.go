package datagram

import (
	"cmp"
	"container/list"
	"encoding/binary"
	"net/netip"
	"time"
)

// GELFChunkLimits bounds the chunks that wait for the others of their message.
// Zero values are replaced by the defaults. What exceeds a limit makes the
// oldest set go, of the same sender first.
type GELFChunkLimits struct {
	SetsPerSender int           // 64
	Sets          int           // 1,024, of all senders
	Bytes         int           // 67,108,864, with what it takes to keep them
	Age           time.Duration // 5 s since the first chunk of the set
	Budget        *Budget       // what several readers keep together; nil: no more than the above
}

// GELFChunkStats says what waits, and counts what was given up. A set is the
// chunks of one message.
type GELFChunkStats struct {
	Sets, Bytes int    // that wait now
	TooOld      uint64 // sets given up for their age
	TooMany     uint64 // sets given up for a limit on sets or bytes
	Duplicate   uint64 // chunks that were there already
}

// What a chunk and a set take beside their bytes.
const (
	chunkOverhead = 64
	setOverhead   = 512
)

// chunkSets joins chunks. Its memory is in proportion to what came.
type chunkSets struct {
	limits  GELFChunkLimits
	sets    map[chunkSetName]*list.Element
	senders map[netip.AddrPort]int // sets of each
	byAge   list.List              // of *chunkSet, the oldest in front
	joined  []byte
	stats   GELFChunkStats
}

// chunkSetName tells sets apart: two senders may use one message id.
type chunkSetName struct {
	from    netip.AddrPort
	message uint64
}

type chunkSet struct {
	name   chunkSetName
	since  time.Time
	chunks [][]byte // by sequence number, as many as came at most
	count  int      // of the whole message
	have   int
	bytes  int
}

func newChunkSets(l GELFChunkLimits) chunkSets {
	l.SetsPerSender, l.Sets = cmp.Or(max(l.SetsPerSender, 0), 64), cmp.Or(max(l.Sets, 0), 1024)
	l.Bytes, l.Age = cmp.Or(max(l.Bytes, 0), 64<<20), cmp.Or(max(l.Age, 0), 5*time.Second)
	return chunkSets{limits: l, sets: map[chunkSetName]*list.Element{}, senders: map[netip.AddrPort]int{}}
}

// add keeps a chunk. It returns the whole message, valid until the next call,
// when it was the last one missing. [ErrChunk] is for one that contradicts
// itself or its set, which is kept.
func (c *chunkSets) add(chunk []byte, from netip.AddrPort, now time.Time) ([]byte, error) {
	c.expire(now)
	if len(chunk) <= gelfChunkHeader {
		return nil, ErrChunk
	}
	name := chunkSetName{from, binary.BigEndian.Uint64(chunk[2:])}
	index, count, body := int(chunk[10]), int(chunk[11]), chunk[gelfChunkHeader:]
	if index >= count || count > maxGELFChunks {
		return nil, ErrChunk
	}
	element := c.sets[name]
	if element == nil {
		c.makeRoom(from)
		element = c.byAge.PushBack(&chunkSet{name: name, since: now, count: count})
		c.sets[name] = element
		c.senders[from]++
		c.stats.Sets++
		c.grow(element.Value.(*chunkSet), setOverhead)
	}
	s := element.Value.(*chunkSet)
	if s.count != count {
		return nil, ErrChunk
	}
	if index < len(s.chunks) && s.chunks[index] != nil {
		c.stats.Duplicate++
		return nil, nil
	}
	for len(s.chunks) <= index {
		s.chunks = append(s.chunks, nil)
	}
	s.chunks[index] = append([]byte(nil), body...)
	s.have++
	c.grow(s, len(body)+chunkOverhead)
	if s.have < s.count {
		c.shrink()
		return nil, nil
	}
	c.joined = c.joined[:0]
	if cap(c.joined) > maxBlock {
		c.joined = nil
	}
	for _, part := range s.chunks {
		c.joined = append(c.joined, part...)
	}
	c.remove(element)
	return c.joined, nil
}

func (c *chunkSets) grow(s *chunkSet, bytes int) {
	s.bytes += bytes
	c.stats.Bytes += bytes
	c.limits.Budget.add(bytes)
}

// makeRoom gives up sets until another one of the sender may begin.
func (c *chunkSets) makeRoom(from netip.AddrPort) {
	if c.senders[from] >= c.limits.SetsPerSender {
		for e := c.byAge.Front(); e != nil; e = e.Next() {
			if e.Value.(*chunkSet).name.from == from {
				c.giveUp(e, &c.stats.TooMany)
				break
			}
		}
	}
	for c.stats.Sets >= c.limits.Sets {
		c.giveUp(c.byAge.Front(), &c.stats.TooMany)
	}
}

// shrink gives up the oldest sets until what waits is within its bytes.
func (c *chunkSets) shrink() {
	for c.byAge.Len() > 0 && (c.stats.Bytes > c.limits.Bytes || c.limits.Budget.exceeded()) {
		c.giveUp(c.byAge.Front(), &c.stats.TooMany)
	}
}

// expire gives up the sets that are too old.
func (c *chunkSets) expire(now time.Time) {
	for e := c.byAge.Front(); e != nil && now.Sub(e.Value.(*chunkSet).since) > c.limits.Age; e = c.byAge.Front() {
		c.giveUp(e, &c.stats.TooOld)
	}
}

func (c *chunkSets) giveUp(e *list.Element, counter *uint64) {
	*counter++
	c.remove(e)
}

func (c *chunkSets) remove(e *list.Element) {
	s := c.byAge.Remove(e).(*chunkSet)
	delete(c.sets, s.name)
	if c.senders[s.name.from]--; c.senders[s.name.from] == 0 {
		delete(c.senders, s.name.from)
	}
	c.stats.Sets--
	c.stats.Bytes -= s.bytes
	c.limits.Budget.add(-s.bytes)
}
