package exporter

import (
	"slices"
	"time"
)

// The role is held by one goroutine at a time, and only while it is at work: a caller
// of Send or SendMetadataEvent, or Run's goroutine. docs/exporter.md has the rules.

// assume takes the role. Called with the lock, when nobody has it.
func (e *UDPExporter) assume() {
	e.held = true
	in := &e.worker.intake
	in.seen, in.excluded, in.dropped, in.clusterName = e.seen, e.excluded, e.dropped, e.clusterName
	e.worker.final = e.closed
}

// settle is release for one who does not have the lock.
func (e *UDPExporter) settle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.release()
	e.arrange()
}

// release makes what was done with the role part of the account, and gives the role
// back. Called with the lock and the role.
func (e *UDPExporter) release() {
	e.inHand = 0
	e.publish()
	e.giveBack()
}

// giveBack gives the role back, and carries out what was ordered meanwhile. Called
// with the lock and the role.
func (e *UDPExporter) giveBack() {
	e.held = false
	if e.announce {
		e.announce = false
		e.announceNow()
	}
	for len(e.orders) > 0 {
		do := e.orders[0]
		e.orders = slices.Delete(e.orders, 0, 1)
		do()
	}
}

// order has something done with the lock while nobody has the role: at once, or when
// the holder gives it back, which it does soon, for it never waits.
func (e *UDPExporter) order(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.held {
		e.orders = append(e.orders, do)
		return
	}
	do()
	e.arrange()
}

// arrange has Run's goroutine come when there is something to do, unless it comes by
// then anyhow. Called with the lock.
func (e *UDPExporter) arrange() {
	if e.held {
		return // the holder does it when it gives the role back
	}
	if due := e.worker.due(!e.queue.empty()); due.Before(e.comes) || e.closed {
		e.comes = due
		e.tell()
	}
}

// tell makes Run's goroutine look for work.
func (e *UDPExporter) tell() {
	select {
	case e.wake <- struct{}{}:
	default: // it has been told already
	}
}

// publish makes the worker's counts part of the account. Called with the lock and
// the role.
func (e *UDPExporter) publish() {
	e.worker.snapshot(&e.settled)
	if e.worker.left && !e.closed { // at the end each keeps its row
		e.retire()
	}
	e.storePage()
}

// announceNow makes agent_init due everywhere. Called with the lock, when nobody has
// the role.
func (e *UDPExporter) announceNow() {
	for _, s := range e.worker.streams {
		s.announceNow()
	}
}

// work takes the role, if nobody has it, and does all that can be done now. It
// returns when there will be something to do without being told, and whether there
// never will be: intake is closed and nothing is left.
func (e *UDPExporter) work(ended <-chan struct{}) (again time.Time, done bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.held {
		now := time.Now()
		e.assume()
		var t taken
		if e.worker.ready(now) {
			t = e.queue.pop()
		}
		e.inHand = t.events
		e.mu.Unlock()
		e.workOff(&t, now)
		e.mu.Lock()
		e.queue.release(&t)
		e.release()
		e.comes = e.worker.due(!e.queue.empty())
		if e.comes.After(now) || isOver(ended) {
			return e.comes, e.closed && e.queue.empty() && !e.worker.pending()
		}
	}
	e.comes = never
	return never, false // who has the role tells when there is more to do
}

func isOver(ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// workOff does what is due, and the events that t has.
func (e *UDPExporter) workOff(t *taken, now time.Time) {
	for event, f, ok := t.next(); ok; event, f, ok = t.next() {
		e.worker.add(event, f)
	}
	e.worker.finish(now)
}
