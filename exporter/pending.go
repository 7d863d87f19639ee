package exporter

import (
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
)

// pendingBatch keeps datagrams in memory of its own.
type pendingBatch struct {
	datagram.Batch
	held   int    // bytes
	events uint64 // events
	pool   udp.Pool
}

// keep copies a datagram, or returns false if the bound is reached.
func (p *pendingBatch) keep(d []byte, events int) bool {
	if p.held+len(d) > pendingBytes {
		return false
	}
	p.Add(append(p.pool.Get(len(d)), d...), events)
	p.held += len(d)
	p.events += uint64(events)
	return true
}

// cut forgets n datagrams from the front, and uses their memory again if it may.
func (p *pendingBatch) cut(n int, reuse bool) {
	for i := range n {
		p.held -= len(p.Datagrams[i])
		p.events -= uint64(p.Events[i])
		if reuse {
			p.pool.Put(p.Datagrams[i])
		}
	}
	kept := copy(p.Datagrams, p.Datagrams[n:])
	clear(p.Datagrams[kept:])
	copy(p.Events, p.Events[n:])
	p.Datagrams, p.Events = p.Datagrams[:kept], p.Events[:kept]
}

// throttle lets a log line through at most once a minute.
type throttle struct {
	next  time.Time
	times int // since the last line
}

// allow counts one more time, and returns how many there were since the last
// line if another may be written.
func (t *throttle) allow() (times int, ok bool) {
	t.times++
	now := time.Now()
	if now.Before(t.next) {
		return 0, false
	}
	times, t.times, t.next = t.times, 0, now.Add(time.Minute)
	return times, true
}
