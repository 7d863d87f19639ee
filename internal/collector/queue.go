package collector

import (
	"slices"

	"tetracast/internal/sink"
)

// blockBytes is the size of a block of lines, and so of a write call. Beyond
// some 64 KiB a larger write saves nothing more (BenchmarkBlock); a quarter MiB
// lets one write stand for some 200 events.
const blockBytes = 256 << 10

// keptBlocks bounds the empty blocks that wait for use, 4 MiB in all. More than
// that were only needed while the sink stalled.
const keptBlocks = 16

// block is a piece of the queue: lines, in the form that a sink takes.
type block struct {
	sink.Batch
	// others are the lines that are no events, by index, ascending.
	others []int
}

// eventsBefore returns how many of the first lines are events.
func (b *block) eventsBefore(lines int) uint64 {
	others, _ := slices.BinarySearch(b.others, lines)
	return uint64(lines - others)
}

func (b *block) events() uint64 { return b.eventsBefore(b.Len()) }

// queue is a list of blocks between the receiver and the writer, bounded in
// bytes. It is guarded by the collector's lock.
type queue struct {
	limit  int // bytes of lines
	bytes  int // in blocks and writing
	blocks []*block
	// writing is the block that the sink has; its lines are still queued.
	writing *block
	free    []*block
}

// put appends a line and its newline, and reports false, changing nothing, if
// there is no room for it.
func (q *queue) put(line []byte, event bool) bool {
	size := len(line) + 1
	if q.bytes+size > q.limit {
		return false
	}
	b := q.last()
	if b == nil || len(b.Text)+size > blockBytes && b.Len() > 0 {
		b = q.newBlock()
		q.blocks = append(q.blocks, b)
	}
	if !event {
		b.others = append(b.others, b.Len())
	}
	b.Add(line)
	q.bytes += size
	return true
}

func (q *queue) last() *block {
	if len(q.blocks) == 0 {
		return nil
	}
	return q.blocks[len(q.blocks)-1]
}

func (q *queue) newBlock() *block {
	if n := len(q.free); n > 0 {
		b := q.free[n-1]
		q.free = q.free[:n-1]
		return b
	}
	return &block{Batch: sink.Batch{Text: make([]byte, 0, blockBytes)}}
}

// full reports whether a block waits that will get no more lines.
func (q *queue) full() bool { return len(q.blocks) > 1 }

func (q *queue) empty() bool { return len(q.blocks) == 0 }

// take gives the oldest block to the writer, who returns it with release.
func (q *queue) take() *block {
	if q.empty() {
		return nil
	}
	q.writing = q.blocks[0]
	q.blocks = slices.Delete(q.blocks, 0, 1) // clears the slot it frees
	return q.writing
}

// release takes the written block back.
func (q *queue) release() {
	b := q.writing
	q.writing = nil
	q.bytes -= len(b.Text)
	// A line longer than a block made this one grow: let it go.
	if len(q.free) < keptBlocks && cap(b.Text) <= blockBytes {
		b.Reset()
		b.others = b.others[:0]
		q.free = append(q.free, b)
	}
}

// events counts the events that wait or are being written.
func (q *queue) events() (n uint64) {
	if q.writing != nil {
		n = q.writing.events()
	}
	for _, b := range q.blocks {
		n += b.events()
	}
	return n
}
