package exporter

import (
	"bytes"
	"time"
	"unsafe"

	"tetracast/transcode"
)

// form says which bytes an event arrived as.
type form uint8

const (
	formWire form = iota // protobuf of a GetEventsResponse
	formLine             // one JSON object and a newline
)

// lane is a class of events of the same worth. Under a storm the queue makes room
// for one by shedding the other.
type lane uint8

const (
	// processLane: exec and exit, which anybody can cause without end.
	processLane lane = iota
	// policyLane: what a policy saw or did, and whatever is neither exec nor exit.
	policyLane

	lanes
)

// laneOf returns the lane of an event of that kind; 0 is one that a newer Tetragon
// has.
func laneOf(kind transcode.Kind) lane {
	if kind == transcode.KindProcessExec || kind == transcode.KindProcessExit {
		return processLane
	}
	return policyLane
}

// laneOfLine is laneOf for JSON, in which the kind is the first member.
func laneOfLine(line []byte) lane {
	if bytes.HasPrefix(line, []byte(`{"process_exec":`)) || bytes.HasPrefix(line, []byte(`{"process_exit":`)) {
		return processLane
	}
	return policyLane
}

// chunkBytes is the room of a chunk. The worker takes a chunk of each lane at a
// time, so it is also the size of a hand-over: large enough that taking the lock is
// nothing beside the work (about 100 events of default flags), small enough that
// the datagrams made from it stay in the cache.
const chunkBytes = 64 << 10

// spareChunks is how many empty chunks are kept for reuse. More than these go
// back to the garbage collector after a burst.
const spareChunks = 16

// An event longer than a chunk gets one of its own. Such chunks are kept, giantBytes of
// them, until giantIdle others were begun without need of one.
const (
	giantBytes = 1 << 20
	giantIdle  = 256
)

// chunk is a run of events of a lane, back to back in one buffer.
type chunk struct {
	bytes []byte
	items []item
	first int // the first item that nobody took
	born  time.Time
	next  *chunk
}

// item is one event of a chunk: it ends at end and begins where the one before
// it ends. number tells the order of arrival over both lanes; it wraps around.
type item struct {
	end    int
	number uint32
	form   form
}

// itemBytes is what an item takes in memory. It counts against the bound, so
// that events without a byte cannot fill the memory either.
const itemBytes = int(unsafe.Sizeof(item{}))

// start is where item i begins.
func (c *chunk) start(i int) int {
	if i == 0 {
		return 0
	}
	return c.items[i-1].end
}

// size is what the items from i up to k count against the bound.
func (c *chunk) size(i, k int) int { return c.start(k) - c.start(i) + (k-i)*itemBytes }

// left is how many events nobody took.
func (c *chunk) left() int { return len(c.items) - c.first }

// queue is the bounded buffer between intake and worker: a list of chunks for each
// lane, each in order of arrival. A queue has no lock of its own.
//
// Full means that the oldest events make room: those of processLane first, which
// never gets more than three quarters of the queue, and only when none of them
// is left those of policyLane. An event that finds no room even so is not taken.
//
// The owner sets now before it pushes: one look at the clock for many events.
//
// The bound is on the bytes of the events and of what it takes to list them,
// from push until release: what the worker holds still counts, because it is
// not sent yet.
type queue struct {
	lanes  [lanes]list
	number uint32 // of the next event
	now    time.Time
	spare  *chunk
	spares int
	giants *chunk // for events longer than a chunk
	giant  int    // bytes of room that they have
	idle   int    // chunks begun since one was needed

	bytes, maxBytes int
	events          uint64        // in the lists; what the worker holds is not among them
	dropped         [lanes]uint64 // events shed, or not taken
}

type list struct {
	head, tail *chunk
	bytes      int // with what the worker holds
}

// empty says whether no event waits.
func (q *queue) empty() bool { return q.events == 0 }

// push appends an event to its lane, or counts it as dropped.
func (q *queue) push(event []byte, f form, l lane) {
	size := len(event) + itemBytes
	bound := q.maxBytes
	if l == processLane {
		bound -= q.maxBytes / 4
	}
	for q.bytes+size > q.maxBytes || q.lanes[l].bytes+size > bound {
		if size > bound || !q.shed(processLane) && (l != policyLane || !q.shed(policyLane)) {
			q.dropped[l]++
			return
		}
	}
	list := &q.lanes[l]
	if list.tail == nil || len(list.tail.bytes)+len(event) > cap(list.tail.bytes) {
		q.grow(list, len(event))
	}
	c := list.tail
	c.bytes = append(c.bytes, event...)
	c.items = append(c.items, item{end: len(c.bytes), number: q.number, form: f})
	q.number++
	q.events++
	q.bytes += size
	list.bytes += size
}

// shed drops the oldest event of a lane, or returns false if none waits there.
func (q *queue) shed(l lane) bool {
	list := &q.lanes[l]
	c := list.head
	if c == nil {
		return false
	}
	c.first++
	q.events--
	q.dropped[l]++
	q.free(list, c.size(c.first-1, c.first))
	if c.left() == 0 {
		list.pop()
		q.keep(c)
	}
	return true
}

func (q *queue) free(list *list, bytes int) {
	q.bytes -= bytes
	list.bytes -= bytes
}

// grow appends an empty chunk with room for n bytes or more.
func (q *queue) grow(list *list, n int) {
	var c *chunk
	if n > chunkBytes {
		c = q.takeGiant(n)
	} else if c = q.spare; c != nil {
		q.spare, c.next = c.next, nil
		q.spares--
	}
	if c == nil {
		c = &chunk{bytes: make([]byte, 0, max(chunkBytes, n))}
	}
	if q.idle++; q.idle > giantIdle {
		q.giants, q.giant = nil, 0
	}
	c.born = q.now
	if list.tail == nil {
		list.head = c
	} else {
		list.tail.next = c
	}
	list.tail = c
}

// takeGiant returns a kept chunk with room for n bytes, or nil.
// If all that are kept are too short, one of them makes room for a longer one.
func (q *queue) takeGiant(n int) *chunk {
	for at := &q.giants; *at != nil; at = &(*at).next {
		if c := *at; cap(c.bytes) >= n {
			*at, c.next = c.next, nil
			q.giant -= cap(c.bytes)
			q.idle = 0
			return c
		}
	}
	if c := q.giants; c != nil {
		q.giants = c.next
		q.giant -= cap(c.bytes)
	}
	return nil
}

// pop takes the oldest chunk out of the list, which has one.
func (l *list) pop() *chunk {
	c := l.head
	l.head, c.next = c.next, nil
	if l.head == nil {
		l.tail = nil
	}
	return c
}

// keep keeps an empty chunk for reuse.
func (q *queue) keep(c *chunk) {
	giant := cap(c.bytes) > chunkBytes
	if giant && q.giant+cap(c.bytes) > giantBytes || !giant && q.spares == spareChunks {
		return
	}
	c.bytes, c.items, c.first = c.bytes[:0], c.items[:0], 0
	if giant {
		c.next, q.giants = q.giants, c
		q.giant += cap(c.bytes)
		return
	}
	c.next, q.spare = q.spare, c
	q.spares++
}

// taken is what the worker holds of the queue: the oldest chunk of each lane.
type taken struct {
	chunks [lanes]*chunk
	from   [lanes]int  // the first item of each that was taken
	more   [lanes]bool // others waited behind it
	events uint64
}

// pop takes the oldest chunk of each lane. They stay counted against the bound
// until release.
func (q *queue) pop() (t taken) {
	for l := range q.lanes {
		if list := &q.lanes[l]; list.head != nil {
			c := list.pop()
			t.chunks[l], t.from[l], t.more[l] = c, c.first, list.head != nil
			t.events += uint64(c.left())
		}
	}
	q.events -= t.events
	return t
}

// next returns the events in order of arrival over both lanes, until the next one
// may still be in the queue. The bytes are valid until release.
func (t *taken) next() (event []byte, f form, ok bool) {
	var from *chunk
	for l, c := range t.chunks {
		switch {
		case c == nil:
		case c.left() == 0:
			if t.more[l] {
				return nil, 0, false
			}
		case from == nil || int32(c.items[c.first].number-from.items[from.first].number) < 0:
			from = c
		}
	}
	if from == nil {
		return nil, 0, false
	}
	it := from.items[from.first]
	event = from.bytes[from.start(from.first):it.end]
	from.first++
	return event, it.form, true
}

// release gives back the room of the events that next returned, and puts the others
// back in front.
func (q *queue) release(t *taken) {
	for l, c := range t.chunks {
		if c == nil {
			continue
		}
		list := &q.lanes[l]
		q.free(list, c.size(t.from[l], c.first))
		if c.left() == 0 {
			q.keep(c)
			continue
		}
		q.events += uint64(c.left())
		if c.next = list.head; c.next == nil {
			list.tail = c
		}
		list.head = c
	}
}

// clear takes all events out and returns how many they were.
func (q *queue) clear() (events uint64) {
	for !q.empty() {
		t := q.pop()
		events += t.events
		for _, c := range t.chunks {
			if c != nil {
				c.first = len(c.items)
			}
		}
		q.release(&t)
	}
	return events
}
