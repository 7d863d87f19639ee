package collector

import (
	"time"

	"tetracast/ledger"
)

// write hands blocks to the sink until the queue is closed and empty.
func (c *Collector) write() {
	timer := time.NewTimer(c.config.FlushInterval)
	defer timer.Stop()
	var trouble sinkLog
	for {
		b := c.next(timer)
		if b == nil {
			return
		}
		begin := time.Now()
		lines, err := c.config.Sink.Write(&b.Batch)
		if m := c.config.Measure; m != nil && m.Sink != nil {
			m.Sink(time.Since(begin))
		}
		lost, ok := c.settle(b, lines)
		if !ok {
			return
		}
		trouble.report(c, lost, err)
	}
}

// next waits for a block that is due: full, or its first line has waited for
// the flush interval, or no more lines come. It returns nil when the queue is
// closed and empty.
func (c *Collector) next(timer *time.Timer) *block {
	flush := false
	for {
		c.mu.Lock()
		var b *block
		if c.queue.full() || flush || c.closed {
			b = c.queue.take()
		}
		closed, waiting := c.closed, !c.queue.empty()
		c.mu.Unlock()
		if b != nil || closed {
			return b
		}
		if !waiting {
			<-c.wake
			continue
		}
		timer.Reset(c.config.FlushInterval)
		select {
		case <-timer.C:
			flush = true
		case <-c.wake:
		}
	}
}

// settle counts what became of a block and gives it back. It returns how many
// events the sink did not take, and false if the account was closed meanwhile.
func (c *Collector) settle(b *block, lines int) (lost uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abandoned {
		return 0, false
	}
	delivered := b.eventsBefore(lines)
	lost = b.events() - delivered
	c.account.Delivered += delivered
	c.account.Dropped[ledger.SinkFailed] += lost
	if lost < uint64(b.Len()-lines) {
		c.agents.forget() // a record is among the lost lines
	}
	c.queue.release()
	return lost, true
}

func (c *Collector) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default: // it has not seen the last wake-up yet
	}
}

// sinkLog logs that the sink fails, at most once in logInterval, and that it
// works again.
type sinkLog struct {
	failing bool // logged, and not yet logged as working again
	next    time.Time
	lost    uint64 // events since the last line
}

// reportState does the same for saving the state.
func (l *sinkLog) reportState(c *Collector, err error) {
	switch now := time.Now(); {
	case err == nil && l.failing:
		c.config.Log.Info("The state is saved again")
		l.failing = false
	case err != nil && !now.Before(l.next):
		l.failing, l.next = true, now.Add(logInterval)
		c.config.Log.Error("The state is not saved: after a kill more will be unknown", "cause", err)
	}
}

func (l *sinkLog) report(c *Collector, lost uint64, err error) {
	if err == nil {
		if l.failing {
			c.config.Log.Info("The sink works again", "events_lost", l.lost)
			l.failing, l.lost = false, 0
		}
		return
	}
	l.lost += lost
	if now := time.Now(); !now.Before(l.next) {
		l.failing, l.next = true, now.Add(logInterval)
		c.config.Log.Error("The sink fails", "events_lost", l.lost, "cause", err)
	}
}
