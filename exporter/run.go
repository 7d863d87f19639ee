package exporter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tetracast/ledger"
)

// Run works off what the callers of Send leave, repeats agent_init, and
// resolves the destinations' names. It returns nil after ctx has ended or Close
// was called, everything that could be sent within Config.DrainTimeout was sent,
// the rest was counted as dropped for shutdown, and every goroutine it started
// has ended. Run it once.
func (e *UDPExporter) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.closed || e.ended != nil {
		e.mu.Unlock()
		return ErrClosed
	}
	ended := make(chan struct{})
	e.ended = ended
	e.mu.Unlock()
	defer close(ended)

	resolving, stopResolving := context.WithCancel(ctx)
	var resolvers sync.WaitGroup
	e.mu.Lock()
	e.keepResolving = func(s *stream) { e.startResolving(resolving, resolvers.Go, s) }
	for _, s := range e.unresolved {
		e.keepResolving(s)
	}
	e.unresolved = nil
	e.mu.Unlock()
	if e.config.storesMetadata() {
		resolvers.Go(func() { e.keepStored(resolving) })
	}
	e.untilDone(ctx)
	e.mu.Lock()
	e.keepResolving = nil
	e.mu.Unlock()
	stopResolving()
	resolvers.Wait()
	e.drain()
	return nil
}

// untilDone works whenever there is something to do.
func (e *UDPExporter) untilDone(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		again := e.work(time.Time{})
		e.rounds.Add(1)
		timer.Reset(time.Until(again))
		select {
		case <-timer.C:
		case <-e.wake:
		case <-e.closing:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Alive returns nil when Run's goroutine has gone round once more, which it does when
// it is asked to, with or without events; or the error of ctx, if that ends first.
func (e *UDPExporter) Alive(ctx context.Context) error {
	before := e.rounds.Load()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		e.tell()
		if !sleep(ctx, wait) {
			return fmt.Errorf("exporter: Run does not go round: %w", ctx.Err())
		}
		if e.rounds.Load() != before {
			return nil
		}
	}
}

// drain closes the intake and sends what is queued, until the time is over.
func (e *UDPExporter) drain() {
	e.closeIntake()
	e.worker.final = true
	deadline := time.Now().Add(e.config.DrainTimeout)
	timer := time.NewTimer(e.config.DrainTimeout)
	defer timer.Stop()
	for {
		again := e.work(deadline)
		e.mu.Lock()
		done := e.holder == nobody || e.holder == runner && !time.Now().Before(deadline)
		e.mu.Unlock()
		if done {
			e.end(deadline)
			return
		}
		timer.Reset(min(time.Until(again), max(0, time.Until(deadline))))
		select {
		case <-timer.C:
		case <-e.wake:
		}
	}
}

// closeIntake makes the Send methods return ErrClosed from now on.
func (e *UDPExporter) closeIntake() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.endServing()
}

// end counts what is left as lost, and says goodbye.
func (e *UDPExporter) end(deadline time.Time) {
	e.mu.Lock()
	e.drop()
	e.assume(runner) // nobody else comes any more
	e.mu.Unlock()
	e.worker.sayGoodbye(func(d time.Duration) bool {
		time.Sleep(d)
		return time.Now().Before(deadline.Add(goodbyes * goodbyeSpacing))
	})
	e.mu.Lock()
	e.publish()
	e.holder = nobody
	e.mu.Unlock()
}

// abandon ends the role for good. Called with the lock, when no caller has it.
func (e *UDPExporter) abandon() {
	e.drop()
	e.publish()
	e.holder = nobody
}

// drop counts what is still queued as lost. Called with the lock.
func (e *UDPExporter) drop() {
	e.dropped[ledger.Shutdown] += e.queue.clear()
	for _, s := range e.worker.streams {
		s.abandon()
	}
	for _, s := range e.worker.parting {
		s.abandon()
	}
}

// work takes the role, if no caller has it, and does all that can be done now,
// but not past the deadline, if there is one. It returns when there will be
// something to do without being woken.
func (e *UDPExporter) work(deadline time.Time) (again time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder == caller {
		e.armed = never
		return never // it tells when it is done
	}
	e.parked = false
	for {
		e.assume(runner)
		now := time.Now()
		if !deadline.IsZero() && now.After(deadline) {
			return deadline
		}
		var t taken
		if e.worker.ready(now) {
			t = e.queue.pop()
		}
		e.inHand = t.events
		e.mu.Unlock()
		e.workOff(&t, now)
		e.mu.Lock()
		e.queue.release(&t)
		e.publish()
		if t.events > 0 || e.asked() || !e.queue.empty() && e.worker.ready(now) {
			continue
		}
		if e.queue.empty() && !e.worker.pending() {
			e.holder = nobody
		}
		e.parked = e.holder == runner
		e.armed = e.worker.again(!e.queue.empty())
		return e.armed
	}
}

// workOff does what is due, and the events that t has.
func (e *UDPExporter) workOff(t *taken, now time.Time) {
	for event, f, ok := t.next(); ok; event, f, ok = t.next() {
		e.worker.add(event, f)
	}
	e.worker.finish(now)
}

// Close ends Run, if it runs, and closes the sockets. Without Run, what is
// queued is counted as dropped for shutdown. It is safe to call it twice.
func (e *UDPExporter) Close() error {
	e.closeIntake()
	e.mu.Lock()
	ended := e.ended
	select {
	case <-e.closing:
	default:
		close(e.closing)
	}
	for ended == nil && e.holder == caller {
		e.mu.Unlock()
		<-e.wake // settle tells us, since nobody else listens
		e.mu.Lock()
	}
	if ended == nil {
		e.abandon()
	}
	e.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return e.closeSockets()
}

func (e *UDPExporter) closeSockets() error {
	var errs []error
	if e.page != nil {
		errs = append(errs, e.page.Close())
		e.page = nil
	}
	for _, s := range e.worker.all {
		if s.conn != nil {
			errs = append(errs, s.conn.Close())
			s.conn = nil
		}
	}
	return errors.Join(errs...)
}
