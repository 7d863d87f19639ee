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

// keep copies n datagrams of b.
func (p *pendingBatch) keep(b *datagram.Batch, from, n int) {
	for i := from; i < from+n; i++ {
		d := append(p.pool.Get(len(b.Datagrams[i])), b.Datagrams[i]...)
		if b.More[i] {
			p.AddPart(d)
		} else {
			p.Add(d, b.Events[i])
		}
		p.held += len(d)
		p.events += uint64(b.Events[i])
	}
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
	clear(p.Datagrams[:n])
	if n < len(p.Datagrams)/2 { // a few of many: the slices move along, until they grow the next time
		p.Datagrams, p.Events, p.More = p.Datagrams[n:], p.Events[n:], p.More[n:]
		return
	}
	kept := copy(p.Datagrams, p.Datagrams[n:])
	clear(p.Datagrams[kept:])
	copy(p.Events, p.Events[n:])
	copy(p.More, p.More[n:])
	p.Datagrams, p.Events, p.More = p.Datagrams[:kept], p.Events[:kept], p.More[:kept]
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
