package exporter

import "unsafe"

// form says which bytes an event arrived as.
type form uint8

const (
	formWire form = iota // protobuf of a GetEventsResponse
	formLine             // one JSON object and a newline
)

// chunkBytes is the room of a chunk. The worker takes a chunk at a time, so it
// is also the size of a hand-over: large enough that taking the lock is nothing
// beside the work (about 100 events of default flags), small enough that the
// datagrams made from it stay in the cache.
const chunkBytes = 64 << 10

// spareChunks is how many empty chunks are kept for reuse. More than these go
// back to the garbage collector after a burst.
const spareChunks = 4

// chunk is a run of events, back to back in one buffer.
type chunk struct {
	bytes []byte
	items []item
	next  *chunk
}

// item is one event of a chunk: it ends at end and begins where the one before
// it ends.
type item struct {
	end  int
	form form
}

// itemBytes is what an item takes in memory. It counts against the bound, so
// that events without a byte cannot fill the memory either.
const itemBytes = int(unsafe.Sizeof(item{}))

func (c *chunk) add(event []byte, f form) {
	c.bytes = append(c.bytes, event...)
	c.items = append(c.items, item{end: len(c.bytes), form: f})
}

// queue is the bounded buffer between intake and worker: a list of chunks in
// order of arrival. Full means that the newest event is not taken; the caller
// counts it. A queue has no lock of its own.
//
// The bound is on the bytes of the events and of what it takes to list them,
// from push until release: a chunk that the worker holds still counts, because
// its events are not sent yet.
type queue struct {
	head, tail *chunk
	spare      *chunk
	spares     int

	bytes, maxBytes int
	events          uint64 // in the list; what the worker holds is not among them
}

// push appends an event, or returns false if there is no room for it.
func (q *queue) push(event []byte, f form) bool {
	if q.bytes+len(event)+itemBytes > q.maxBytes {
		return false
	}
	if q.tail == nil || len(q.tail.bytes)+len(event) > cap(q.tail.bytes) {
		q.grow(len(event))
	}
	q.tail.add(event, f)
	q.bytes += len(event) + itemBytes
	q.events++
	return true
}

// grow appends an empty chunk with room for n bytes or more.
func (q *queue) grow(n int) {
	c := q.spare
	if c != nil && n <= chunkBytes {
		q.spare, c.next = c.next, nil
		q.spares--
	} else {
		c = &chunk{bytes: make([]byte, 0, max(chunkBytes, n))}
	}
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// pop takes the oldest chunk, or returns nil. Its bytes stay counted until
// release.
func (q *queue) pop() *chunk {
	c := q.head
	if c == nil {
		return nil
	}
	q.head, c.next = c.next, nil
	if q.head == nil {
		q.tail = nil
	}
	q.events -= uint64(len(c.items))
	return c
}

// release gives back the room of a chunk that pop returned.
func (q *queue) release(c *chunk) {
	q.bytes -= len(c.bytes) + len(c.items)*itemBytes
	if cap(c.bytes) > chunkBytes || q.spares == spareChunks {
		return
	}
	c.bytes, c.items = c.bytes[:0], c.items[:0]
	c.next, q.spare = q.spare, c
	q.spares++
}
