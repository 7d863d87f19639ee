package exporter

import (
	"bytes"
	"fmt"
	"testing"
)

// TestQueueKeepsOrderAndBound pushes events of many sizes, more than fit, and
// takes them out again in pieces.
func TestQueueKeepsOrderAndBound(t *testing.T) {
	q := queue{maxBytes: 1 << 20}
	var pushed, popped, refused int
	event := func(i int) []byte {
		return append(fmt.Appendf(nil, "%d:", i), bytes.Repeat([]byte{byte(i)}, i*7919%20000)...)
	}
	take := func() {
		c := q.pop()
		if c == nil {
			t.Fatal("the queue is empty too early")
		}
		start := 0
		for _, it := range c.items {
			if !bytes.Equal(c.bytes[start:it.end], event(popped)) {
				t.Fatalf("event %d came out changed or out of order", popped)
			}
			start = it.end
			popped++
		}
		before := q.bytes
		held := len(c.bytes) + len(c.items)*itemBytes
		q.release(c)
		if q.bytes != before-held {
			t.Fatalf("released %d bytes of %d", before-q.bytes, held)
		}
	}
	for range 20 {
		for {
			if !q.push(event(pushed), formWire) {
				refused++
				break
			}
			pushed++
			if q.bytes > q.maxBytes {
				t.Fatalf("%d bytes are queued, the bound is %d", q.bytes, q.maxBytes)
			}
		}
		take()
	}
	for popped < pushed {
		take()
	}
	if q.bytes != 0 || q.events != 0 || q.pop() != nil {
		t.Errorf("%d bytes and %d events are left in an empty queue", q.bytes, q.events)
	}
	if q.spares > spareChunks {
		t.Errorf("%d spare chunks are kept, at most %d may be", q.spares, spareChunks)
	}
	if refused != 20 {
		t.Errorf("refused %d pushes, want 20", refused)
	}
}

func TestQueueEventLongerThanAChunk(t *testing.T) {
	q := queue{maxBytes: 1 << 20}
	long := bytes.Repeat([]byte("x"), 5*chunkBytes)
	for _, e := range [][]byte{[]byte("a"), long, []byte("b")} {
		if !q.push(e, formLine) {
			t.Fatal("refused below the bound")
		}
	}
	var got []int
	for c := q.pop(); c != nil; c = q.pop() {
		start := 0
		for _, it := range c.items {
			got = append(got, it.end-start)
			start = it.end
		}
		q.release(c)
	}
	if fmt.Sprint(got) != fmt.Sprint([]int{1, len(long), 1}) {
		t.Errorf("lengths %v", got)
	}
}

func TestQueueAllocates(t *testing.T) {
	q := queue{maxBytes: 1 << 20}
	event := make([]byte, 600)
	cycle := func() {
		for range 200 {
			q.push(event, formWire)
		}
		for c := q.pop(); c != nil; c = q.pop() {
			q.release(c)
		}
	}
	cycle()
	if n := testing.AllocsPerRun(100, cycle); n != 0 {
		t.Errorf("200 events through a warm queue cost %v allocations, want 0", n)
	}
}
