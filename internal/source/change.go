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
	ctx         context.Context
	end         context.CancelCauseFunc
	session     session
	found       Tetragon
	overlapping bool // another one is open already; guarded by Subscription.mu
}

// errReplaced ends a session whose successor is open.
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
	s.changing.Lock()
	defer s.changing.Unlock()
	want := &asked{filters, auto}
	s.mu.Lock()
	run, old := s.run, s.current
	s.mu.Unlock()
	if old == nil {
		s.asked.Store(want)
		return nil
	}
	next, err := s.begin(run, want, ctx)
	if err != nil {
		return fmt.Errorf("source: subscribing with other filters: %w", err)
	}
	s.asked.Store(want)
	s.mu.Lock()
	s.successor, old.overlapping = next, true
	s.mu.Unlock()
	sleep(old.ctx, overlapTime)
	old.end(errReplaced)
	return nil
}

// begin opens a session that ends with ctx. Opening it is given up with waiting.
func (s *Subscription) begin(ctx context.Context, want *asked, waiting context.Context) (*running, error) {
	r := new(running)
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
	return r
}

// setCurrent notes from which session messages are handed on; nil: from none.
func (s *Subscription) setCurrent(r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = r
}

// countOverlap counts messages of a session that is being replaced.
func (s *Subscription) countOverlap(r *running, messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.overlapping {
		s.overlap += uint64(messages)
	}
}
