package exporter

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"tetracast/metadata"
)

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
	host := e.config.hostFacts()
	kept := e.streams()
	var streams, added []*stream
	for _, d := range full {
		if i := slices.IndexFunc(kept, func(s *stream) bool { return reflect.DeepEqual(s.configured, d) }); i >= 0 {
			streams = append(streams, kept[i])
			kept = slices.Delete(slices.Clone(kept), i, i+1)
			continue
		}
		s, err := e.makeStream(d, host)
		if err != nil {
			closeAll(added)
			return err
		}
		streams, added = append(streams, s), append(added, s)
	}
	done := make(chan error, 1)
	e.order(func() {
		if e.closed {
			closeAll(added)
			done <- ErrClosed
			return
		}
		e.host = host
		e.apply(streams)
		e.renewPage()
		done <- nil
	})
	return <-done
}

var errNoDestination = errors.New("exporter: no destination given, want at least one host:port")

// makeStream makes the stream to a destination, with a socket if there is a route.
func (e *UDPExporter) makeStream(d Destination, host metadata.Facts) (*stream, error) {
	newCache := metadata.NewCache
	if e.config.MetadataCacheOff {
		newCache = metadata.NoCache
	}
	s, err := newStream(d, newCache(func() metadata.Facts { return e.facts(d) }, e.config.RenderMetadata), e.config, host)
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

// apply makes the streams those that get events. Called with the lock, when nobody has
// the role.
func (e *UDPExporter) apply(streams []*stream) {
	w, now := &e.worker, time.Now()
	workedOff := e.accepted() - e.queue.events
	for _, s := range w.streams {
		if !slices.Contains(streams, s) {
			s.parted, s.until = true, workedOff
			s.leaveBy = now.Add(e.config.DrainTimeout)
			w.parting = append(w.parting, s)
		}
	}
	for _, s := range streams {
		if slices.Contains(w.streams, s) {
			continue
		}
		s.before = workedOff
		if e.tetragon != nil {
			s.announceNow()
		}
		w.all = append(w.all, s)
		if s.conn == nil && e.keepResolving != nil { // else Run does it
			e.keepResolving(s)
		}
	}
	w.streams, w.lineNeeded = streams, false
	for _, s := range w.streams {
		w.lineNeeded = w.lineNeeded || s.needsLine()
	}
	e.settled.fit(w)
}

// part works off what waits for the destinations that are gone, and says goodbye.
func (w *worker) part(now time.Time) {
	for _, s := range w.parting {
		s.part(&w.intake, now)
		w.left = w.left || s.left
	}
	if w.left {
		w.parting = slices.DeleteFunc(w.parting, func(s *stream) bool { return s.left })
	}
}

func (s *stream) part(in *intake, now time.Time) {
	s.setSums(in)
	s.flush(in, now, true)
	if s.counts.queued > 0 {
		if now.Before(s.leaveBy) {
			return
		}
		s.abandon()
	}
	if giveUp := s.leaveBy.Add(goodbyeWait); s.takesLeave() && s.farewells < goodbyes && now.Before(giveUp) {
		if now.Before(s.partDue()) {
			return
		}
		if s.sendStats(in, now, true) || !s.patient() {
			s.farewells++
			s.farewellDue = now.Add(goodbyeSpacing)
		}
		if s.farewells < goodbyes {
			return
		}
	}
	s.left = true
}

// takesLeave says whether the stream's end is worth telling, and somebody may hear it.
func (s *stream) takesLeave() bool {
	return s.statsInterval >= 0 && s.conn != nil && (s.announced || s.number > 0)
}

// patient says whether a goodbye that was not taken is worth another try: the send
// buffer of a destination that took all that waited is full for a moment.
func (s *stream) patient() bool { return s.failed.IsZero() && !s.abandoned }

// partDue is when part has something to do again.
func (s *stream) partDue() time.Time {
	if s.counts.queued > 0 {
		return earlier(s.due(true), s.leaveBy)
	}
	due := s.farewellDue
	if s.patient() && due.Before(s.nextAttempt) {
		due = s.nextAttempt
	}
	return earlier(due, s.leaveBy.Add(goodbyeWait))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// close ends what belongs to the stream beside its figures. Called with the lock, when
// nobody has the role.
func (s *stream) close() (err error) {
	if s.stopResolving != nil {
		s.stopResolving()
	}
	if s.conn != nil {
		err = s.conn.Close() // nothing is in it that the kernel has not taken
		s.conn = nil
	}
	s.closed = true
	return err
}

func closeAll(streams []*stream) {
	for _, s := range streams {
		_ = s.close()
	}
}

// startResolving gives a stream a goroutine that keeps its address right, until ctx
// ends or the stream is closed. Called with the lock.
func (e *UDPExporter) startResolving(ctx context.Context, start func(func()), s *stream) {
	ctx, s.stopResolving = context.WithCancel(ctx)
	start(func() { e.keepResolved(ctx, s) })
}
