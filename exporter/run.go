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
// resolves the destinations' names. It returns nil when everything was sent after
// Finish was called; or after ctx has ended or Close was called, when everything that
// could be sent within Config.DrainTimeout was sent and the rest was counted as
// dropped for shutdown. Every goroutine it started has ended then. Run it once.
func (e *UDPExporter) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	resolving, stopResolving := context.WithCancel(ctx)
	defer stopResolving()
	var beside sync.WaitGroup
	e.mu.Lock()
	if e.stopRun != nil || isOver(e.done) {
		e.mu.Unlock()
		return ErrClosed
	}
	e.stopRun = stop
	e.keepResolving = func(s *stream) { e.startResolving(resolving, beside.Go, s) }
	for _, s := range e.worker.streams {
		if s.conn == nil {
			e.keepResolving(s)
		}
	}
	e.mu.Unlock()
	defer close(e.done)
	if e.config.storesMetadata() {
		beside.Go(func() { e.keepStored(resolving) })
	}
	e.untilDone(ctx)
	e.mu.Lock()
	e.keepResolving = nil
	e.mu.Unlock()
	stopResolving()
	beside.Wait()
	e.drain()
	return nil
}

// untilDone works whenever there is something to do, until ctx ends or nothing will
// ever be left to do.
func (e *UDPExporter) untilDone(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		again, done := e.work(ctx.Done())
		e.rounds.Add(1)
		if done {
			return
		}
		timer.Reset(time.Until(again))
		select {
		case <-timer.C:
		case <-e.wake:
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

// Finish ends the intake, and returns when everything that was taken has been sent,
// however long the destinations take for it, or was lost and counted, and Run has
// ended. It is for a source that ends by itself: a recording, or standard input. If
// ctx ends first Finish returns its error, and Run goes on: end its context, too, or
// call Close, and what is left gets Config.DrainTimeout.
//
// Without Run nobody sends: Finish then waits for Run to be called.
func (e *UDPExporter) Finish(ctx context.Context) error {
	e.closeIntake()
	if n := e.QueuedEvents(); n > 0 {
		e.config.Logger.Info("No more events come; those that are queued are sent, however long that takes", "events", n)
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeIntake makes the Send methods return ErrClosed from now on.
func (e *UDPExporter) closeIntake() {
	e.noteChange(false)
	e.mu.Lock()
	e.closed = true
	e.arrange()
	e.mu.Unlock()
	e.endServing()
}

// drain sends what is queued, until the time is over, counts what is left as lost,
// and has all streams say goodbye.
func (e *UDPExporter) drain() {
	e.closeIntake()
	ctx, stop := context.WithTimeout(context.Background(), e.config.DrainTimeout)
	e.untilDone(ctx)
	stop()
	e.mu.Lock()
	e.awaitRole()
	e.drop()
	w, now := &e.worker, time.Now()
	for _, s := range w.streams {
		s.leaveBy = now
	}
	w.parting, w.streams = append(w.parting, w.streams...), nil
	e.mu.Unlock()
	e.untilDone(context.Background()) // it ends when all have parted
}

// awaitRole waits until nobody has the role. Called with the lock, when intake is
// closed: whoever gives the role back then tells.
func (e *UDPExporter) awaitRole() {
	for e.held {
		e.mu.Unlock()
		<-e.wake
		e.mu.Lock()
	}
}

// drop counts what is still queued as lost. Called with the lock, when nobody has the
// role.
func (e *UDPExporter) drop() {
	e.dropped[ledger.Shutdown] += e.queue.clear()
	for _, s := range e.worker.all {
		s.abandon()
	}
	e.publish()
}

// Close ends Run, if it runs, and closes the sockets. Without Run, what is
// queued is counted as dropped for shutdown. It is safe to call it twice.
func (e *UDPExporter) Close() error {
	e.closeIntake()
	e.mu.Lock()
	defer e.mu.Unlock()
	if stop := e.stopRun; stop != nil {
		e.mu.Unlock()
		stop()
		<-e.done
		e.mu.Lock()
	} else if !isOver(e.done) { // nobody calls Run any more
		close(e.done)
		e.awaitRole()
		e.drop()
	}
	var errs []error
	if e.page != nil {
		errs = append(errs, e.page.Close())
		e.page = nil
	}
	for _, s := range e.worker.all {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}
