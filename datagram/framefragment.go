package datagram

import (
	"cmp"
	"container/list"
	"slices"
	"time"
)

// FragmentLimits bounds the fragments that wait for the others of their set.
// Zero values are replaced by the defaults. What exceeds a limit makes the
// oldest set go, of the same stream first.
type FragmentLimits struct {
	SetsPerStream int           // 64
	Sets          int           // 1,024, of all streams
	Bytes         int           // 67,108,864, of all streams, with what it takes to keep them
	Age           time.Duration // 5 s since the first fragment of the set
	Budget        *Budget       // what several readers keep together; nil: no more than the above
}

// FragmentStats says what waits, and counts what was given up. A set is an
// event, an agent_init or an agent_stats.
type FragmentStats struct {
	Sets, Bytes int    // that wait now
	TooOld      uint64 // sets given up for their age
	TooMany     uint64 // sets given up for a limit on sets or bytes
}

// pieceOverhead is what keeping a fragment takes beside its bytes.
const pieceOverhead = 48

// assembler joins fragments. Its memory is in proportion to what came, never to
// what a header promises.
type assembler struct {
	limits FragmentLimits
	gaveUp func(stream StreamName, number uint64)
	sets   map[setName]*list.Element
	byAge  list.List // of *fragmentSet, the oldest in front
	joined []byte
	stats  FragmentStats
}

type setName struct {
	stream   StreamName
	datagram uint64
}

type fragmentSet struct {
	header Header // of the fragment that came first
	since  time.Time
	pieces []piece // by index
	bytes  int     // of memory
	size   int     // of the bodies and their padding
}

type piece struct {
	index int
	bytes []byte
}

func newAssembler(l FragmentLimits, gaveUp func(stream StreamName, number uint64)) assembler {
	l.SetsPerStream, l.Sets = cmp.Or(l.SetsPerStream, 64), cmp.Or(l.Sets, 1024)
	l.Bytes, l.Age = cmp.Or(l.Bytes, 64<<20), cmp.Or(l.Age, 5*time.Second)
	return assembler{limits: l, gaveUp: gaveUp, sets: map[setName]*list.Element{}}
}

// add keeps a fragment. It returns the whole body, valid until the next call, when it
// was the last one missing, and its size with the padding of all.
func (a *assembler) add(h *Header, body []byte, now time.Time) (whole []byte, size int, err error) {
	a.expire(now)
	name := setName{h.Name(), h.set()}
	element := a.sets[name]
	if element == nil {
		a.makeRoom(h.Name())
		element = a.byAge.PushBack(&fragmentSet{header: *h, since: now})
		a.sets[name] = element
		a.stats.Sets++
	}
	s := element.Value.(*fragmentSet)
	at, there := slices.BinarySearchFunc(s.pieces, h.Fragment.Index, func(p piece, index int) int { return cmp.Compare(p.index, index) })
	if there || !s.fits(h) {
		return nil, 0, ErrFragment
	}
	s.size += len(body) + h.padding
	s.pieces = slices.Insert(s.pieces, at, piece{h.Fragment.Index, slices.Clone(body)})
	a.grow(s, len(body)+pieceOverhead)
	if len(s.pieces) == h.Fragment.Total {
		a.joined = s.join(a.joined[:0])
		a.remove(element)
		if cap(a.joined) > maxKept {
			joined := a.joined
			a.joined = nil
			return joined, s.size, nil
		}
		return a.joined, s.size, nil
	}
	for a.stats.Bytes > a.limits.Bytes || a.limits.Budget.exceeded() {
		oldest := a.byAge.Front()
		a.giveUp(oldest, &a.stats.TooMany)
		if oldest == element {
			return nil, 0, ErrFragment
		}
	}
	return nil, 0, nil
}

// fits says whether a fragment belongs to the set.
func (s *fragmentSet) fits(h *Header) bool {
	o := &s.header
	return h.Kind == o.Kind && h.First == o.First && h.Fragment.Total == o.Fragment.Total && h.JSON == o.JSON &&
		h.Goodbye == o.Goodbye && h.Compression == o.Compression && h.Dictionary == o.Dictionary && h.HasDictionary == o.HasDictionary
}

// join appends the pieces to dst.
func (s *fragmentSet) join(dst []byte) []byte {
	for _, p := range s.pieces {
		dst = append(dst, p.bytes...)
	}
	return dst
}

// makeRoom makes room for one more set of the stream.
func (a *assembler) makeRoom(stream StreamName) {
	ofStream := 0
	var oldest *list.Element
	for e := a.byAge.Back(); e != nil; e = e.Prev() {
		if e.Value.(*fragmentSet).header.Name() == stream {
			ofStream++
			oldest = e
		}
	}
	if ofStream >= a.limits.SetsPerStream {
		a.giveUp(oldest, &a.stats.TooMany)
	} else if a.stats.Sets >= a.limits.Sets {
		a.giveUp(cmp.Or(oldest, a.byAge.Front()), &a.stats.TooMany)
	}
}

// expire gives up the sets whose age is over.
func (a *assembler) expire(now time.Time) {
	for e := a.byAge.Front(); e != nil && now.Sub(e.Value.(*fragmentSet).since) > a.limits.Age; e = a.byAge.Front() {
		a.giveUp(e, &a.stats.TooOld)
	}
}

// giveUp forgets an incomplete set and counts it.
func (a *assembler) giveUp(e *list.Element, counter *uint64) {
	*counter++
	s := a.remove(e)
	if a.gaveUp != nil && s.header.Kind == KindEvent {
		a.gaveUp(s.header.Name(), s.header.First)
	}
}

func (a *assembler) remove(e *list.Element) *fragmentSet {
	s := a.byAge.Remove(e).(*fragmentSet)
	delete(a.sets, setName{s.header.Name(), s.header.set()})
	a.stats.Sets--
	a.stats.Bytes -= s.bytes
	a.limits.Budget.add(-s.bytes)
	return s
}

func (a *assembler) grow(s *fragmentSet, bytes int) {
	s.bytes += bytes
	a.stats.Bytes += bytes
	a.limits.Budget.add(bytes)
}
