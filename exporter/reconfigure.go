package exporter

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"tetracast/datagram"
	"tetracast/metadata"
)

// change is another set of destinations on its way to the holder of the role.
type change struct {
	streams []*stream
	applied chan struct{}
}

// SetDestinations makes the destinations those given, all of them or, with an error
// that says what is wrong, none. A destination that is as it was keeps its stream. A
// new one begins a stream with agent_init, and gets every event that was not yet
// worked off. One that is gone gets what waits for it, for Config.DrainTimeout at
// the most, and a goodbye; its account stays. It returns when the change is in force.
func (e *UDPExporter) SetDestinations(destinations []Destination) error {
	var faults []error
	full := make([]Destination, len(destinations))
	for i, d := range destinations {
		var err error
		if full[i], err = d.withDefaults(); err != nil {
			faults = append(faults, err)
		}
	}
	if len(full) == 0 {
		faults = append(faults, errNoDestination)
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	e.changing.Lock()
	defer e.changing.Unlock()
	c := &change{applied: make(chan struct{})}
	kept := e.streams()
	var added []*stream
	for _, d := range full {
		if i := slices.IndexFunc(kept, func(s *stream) bool { return reflect.DeepEqual(s.configured, d) }); i >= 0 {
			c.streams = append(c.streams, kept[i])
			kept = slices.Delete(slices.Clone(kept), i, i+1)
			continue
		}
		s, err := e.makeStream(d)
		if err != nil {
			for _, s := range added {
				s.close()
			}
			return err
		}
		c.streams, added = append(c.streams, s), append(added, s)
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		for _, s := range added {
			s.close()
		}
		return ErrClosed
	}
	e.change = c
	if e.ended == nil && e.holder == nobody { // without Run nobody else would
		e.assume(caller)
		e.mu.Unlock()
		e.settle()
		return nil
	}
	if e.parked {
		e.tell()
	}
	e.delegate()
	ended := e.ended
	e.mu.Unlock()
	select {
	case <-c.applied:
		return nil
	case <-ended:
		return ErrClosed
	}
}

var errNoDestination = errors.New("exporter: no destination given, want at least one host:port")

// makeStream makes the stream to a destination, with a socket if there is a route.
func (e *UDPExporter) makeStream(d Destination) (*stream, error) {
	newCache := metadata.NewCache
	if e.config.MetadataCacheOff {
		newCache = metadata.NoCache
	}
	s, err := newStream(d, newCache(func() metadata.Facts { return e.facts(d) }, e.config.RenderMetadata), e.config)
	if err != nil {
		return nil, err
	}
	s.spoilt = e.spoilt
	if addr, ok := literal(d.Address); ok {
		s.conn, _ = e.dial(s, addr) // no route yet is no reason to fail: Run tries again
	}
	return s, nil
}

// streams returns the streams that get events now.
func (e *UDPExporter) streams() []*stream {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.worker.streams
}

// asked says whether the next holder of the role has to do more than to send what
// waits. Called with the lock.
func (e *UDPExporter) asked() bool { return e.announce || len(e.dialled) > 0 || e.change != nil }

// taken is how many events have left the queue for the streams. Called with the lock
// and the role, when none is in hand.
func (e *UDPExporter) taken() uint64 {
	return e.seen - e.excluded - e.dropped.Total() - e.queue.events
}

// apply puts another set of destinations in force. Called with the lock and the
// role.
func (e *UDPExporter) apply(c *change) {
	w, now := &e.worker, time.Now()
	for _, s := range w.streams {
		if !slices.Contains(c.streams, s) {
			s.parted, s.until = true, e.taken()
			s.leaveBy = now.Add(e.config.DrainTimeout)
			w.parting = append(w.parting, s)
		}
	}
	for _, s := range c.streams {
		if slices.Contains(w.streams, s) {
			continue
		}
		s.before = e.taken()
		if e.tetragon != nil {
			s.announceNow()
		}
		w.all = append(w.all, s)
		if s.conn == nil && e.keepResolving != nil {
			e.keepResolving(s)
		} else if s.conn == nil {
			e.unresolved = append(e.unresolved, s)
		}
	}
	w.streams, w.lineNeeded = c.streams, false
	for _, s := range w.streams {
		w.lineNeeded = w.lineNeeded || s.needsLine()
	}
	e.settled.streams = make([]streamCounts, len(w.all))
	befell := make([]befell, len(w.all))
	copy(befell, e.settled.befell)
	e.settled.befell = befell
	w.snapshot(&e.settled)
	e.renewPage()
	close(c.applied)
}

// part works off what waits for the destinations that are gone, and says goodbye.
func (w *worker) part(now time.Time) {
	for _, s := range w.parting {
		s.part(&w.intake, now)
	}
	w.parting = slices.DeleteFunc(w.parting, func(s *stream) bool { return s.left })
}

func (s *stream) part(in *intake, now time.Time) {
	s.setSums(in)
	s.flush(in, now, true)
	if len(s.pending.Datagrams) > 0 || s.waiting() > 0 {
		if now.Before(s.leaveBy) {
			return
		}
		s.abandon()
	}
	if s.statsInterval >= 0 && s.conn != nil && (s.announced || s.number > 0) && s.farewells < goodbyes {
		if now.Before(s.farewellDue) {
			return
		}
		s.sendStats(in, now, true)
		s.farewells++
		s.farewellDue = now.Add(goodbyeSpacing)
		if s.farewells < goodbyes {
			return
		}
	}
	s.left = true
	s.close()
	// Its figures stay; what made them goes.
	s.batch, s.record, s.extra, s.pending = datagram.Batch{}, datagram.Batch{}, datagram.Batch{}, pendingBatch{}
}

// partDue is when part has something to do again.
func (s *stream) partDue() time.Time {
	due := s.leaveBy
	if s.conn != nil && len(s.pending.Datagrams) > 0 && s.nextAttempt.Before(due) {
		due = s.nextAttempt
	}
	if s.farewells > 0 && s.farewellDue.Before(due) {
		due = s.farewellDue
	}
	return due
}

// close ends what belongs to the stream beside its figures.
func (s *stream) close() {
	if s.stopResolving != nil {
		s.stopResolving()
	}
	if s.conn != nil {
		_ = s.conn.Close() // nothing is in it that the kernel has not taken
		s.conn = nil
	}
}

// startResolving gives a stream a goroutine that keeps its address right, until ctx
// ends or the stream is closed. Called with the lock.
func (e *UDPExporter) startResolving(ctx context.Context, start func(func()), s *stream) {
	ctx, s.stopResolving = context.WithCancel(ctx)
	start(func() { e.keepResolved(ctx, s) })
}
