package source

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// asked is what a subscription asks for.
type asked struct {
	filters Filters
	auto    bool // without filters, take those of Tetragon's own export
}

// running is a session from which messages are handed on.
type running struct {
	ctx     context.Context
	end     context.CancelCauseFunc
	want    *asked
	session session
	found   Tetragon
	reading chan struct{} // closed when it is Subscription.current
}

// errReplaced ends a session for one with other filters.
var errReplaced = errors.New("source: replaced by a subscription with other filters")

// overlapTime is how long the old session is read while the new one is open, so that
// what Tetragon had put into it before arrives. Tetragon keeps 10,000 events for the
// new one meanwhile, a fifth of a second at 50,000 a second.
const overlapTime = 200 * time.Millisecond

// SetFilters asks for other events from now on: filters, or where they are empty and
// auto is set, those of Tetragon's own export. The new subscription is open before the
// old one is closed, so no event is missed; what came through the old one meanwhile
// may come through the new one again, and is counted as Stats.Overlap. If the new one
// cannot be opened, the old one goes on and the error says why. While there is no
// subscription the filters are for the next one.
func (s *Subscription) SetFilters(ctx context.Context, filters Filters, auto bool) error {
	return s.replace(ctx, func(*asked) *asked { return &asked{filters, auto} })
}

// replace asks for what change makes of what was asked for.
func (s *Subscription) replace(ctx context.Context, change func(*asked) *asked) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	want := change(s.asked.Load())
	s.mu.Lock()
	run, old := s.run, s.current
	s.opening, s.early = old != nil, 0
	if old == nil {
		s.asked.Store(want)
	}
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	next, err := s.begin(run, want, ctx)
	s.mu.Lock()
	s.opening = false
	if err == nil {
		s.asked.Store(want)
		s.successor = next
		s.overlap += s.early
	}
	s.mu.Unlock()
	select {
	case s.follow <- struct{}{}: // it may be waiting to try again
	default:
	}
	if err != nil {
		return fmt.Errorf("source: subscribing with other filters: %w", err)
	}
	sleep(old.ctx, overlapTime)
	s.mu.Lock()
	if c := s.current; c != nil && c != next { // old, or what followed it when it broke
		c.end(errReplaced)
	}
	s.mu.Unlock()
	// Until it is read the next call would find no subscription to replace.
	select {
	case <-next.reading:
	case <-run.Done():
		s.closeSuccessor()
	case <-ctx.Done(): // it will be read all the same
	}
	return nil
}

// begin opens a session that ends with ctx. Opening it is given up with waiting.
func (s *Subscription) begin(ctx context.Context, want *asked, waiting context.Context) (*running, error) {
	r := &running{want: want, reading: make(chan struct{})}
	r.ctx, r.end = context.WithCancelCause(ctx)
	stop := context.AfterFunc(waiting, func() { r.end(context.Cause(waiting)) })
	var err error
	r.session, r.found, err = s.open(r.ctx, want)
	if err == nil && !stop() {
		r.session.close()
		err = context.Cause(waiting)
	}
	if err != nil {
		r.end(err)
		return nil, err
	}
	return r, nil
}

// succeed returns the session that was opened to follow the last one, or nil.
func (s *Subscription) succeed() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.successor
	s.successor = nil
	select {
	case <-s.follow:
	default:
	}
	return r
}

// closeSuccessor closes the session that nobody will read, if there is one.
func (s *Subscription) closeSuccessor() {
	if r := s.succeed(); r != nil {
		r.session.close()
	}
}

// setCurrent notes that r's messages are handed on from now. It does not, and says
// false, if other filters were asked for while r was being opened.
func (s *Subscription) setCurrent(r *running) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.want != s.asked.Load() {
		return false
	}
	s.current = r
	close(r.reading)
	return true
}

// unsetCurrent notes that no messages are handed on.
func (s *Subscription) unsetCurrent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = nil
}

// replaced tells whether another session is open that follows the current one.
func (s *Subscription) replaced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.successor != nil
}

// countOverlap counts messages of a session that is being replaced: from when its
// successor begins to open, because that may see events before open says so.
func (s *Subscription) countOverlap(messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.successor != nil:
		s.overlap += uint64(messages)
	case s.opening:
		s.early += uint64(messages)
	}
}
