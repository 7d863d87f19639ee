package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

// broadcaster is a Tetragon: every session that is open gets every event.
type broadcaster struct {
	mu       sync.Mutex
	sessions []*listener
	refuse   error
	asked    []int // filters of each session, by their number
}

type listener struct {
	ctx    context.Context
	events chan []byte
}

func (b *broadcaster) open(ctx context.Context, want *asked) (session, Tetragon, error) {
	time.Sleep(10 * time.Millisecond) // it takes its time
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, len(want.filters.Allow))
	if b.refuse != nil {
		return nil, Tetragon{}, b.refuse
	}
	l := &listener{ctx, make(chan []byte, 10_000)}
	b.sessions = append(b.sessions, l)
	return l, Tetragon{Filters: want.filters}, nil
}

func (b *broadcaster) send(event string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.sessions {
		if l.ctx.Err() == nil {
			l.events <- []byte(event)
		}
	}
}

func (l *listener) next() ([][]byte, error) {
	select {
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	case e := <-l.events:
		if e == nil {
			return nil, io.EOF
		}
		return [][]byte{e}, nil
	}
}

func (l *listener) close() {}

// TestSetFilters: while the filters change under a stream of events none is missed;
// those that come twice are no more than the overlap says; if the new subscription
// cannot be opened the old one goes on.
func TestSetFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Reconnect: true})
		if err != nil {
			t.Fatal(err)
		}
		var server broadcaster
		s.open = server.open
		ctx, cancel := context.WithCancel(t.Context())
		seen := map[string]int{}
		ended := make(chan error, 1)
		go func() {
			ended <- s.Run(ctx, func(batch [][]byte) {
				for _, e := range batch {
					seen[string(e)]++
				}
			})
		}()
		time.Sleep(time.Second)
		sending, stop := context.WithCancel(t.Context())
		all := make(chan int)
		go func() {
			sent := 0
			for ; sending.Err() == nil; sent++ {
				server.send(fmt.Sprint(sent))
				time.Sleep(time.Millisecond)
			}
			all <- sent
		}()
		filters := func(n int) Filters { return Filters{Allow: make([]*tetragon.Filter, n)} }
		for i := range 5 {
			time.Sleep(time.Second)
			if err := s.SetFilters(t.Context(), filters(i+1), false); err != nil {
				t.Error(err)
			}
		}
		refused := errors.New("no such filter")
		server.refuse = refused
		if err := s.SetFilters(t.Context(), filters(9), false); !errors.Is(err, refused) {
			t.Errorf("refused: %v", err)
		}
		server.refuse = nil
		time.Sleep(time.Second)
		stop()
		sent := <-all
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		twice := uint64(0)
		for i := range sent {
			switch seen[fmt.Sprint(i)] {
			case 1:
			case 2:
				twice++
			default:
				t.Fatalf("event %d of %d came %d times", i, sent, seen[fmt.Sprint(i)])
			}
		}
		stats := s.Stats()
		if stats.Overlap < twice || twice == 0 || stats.Overlap > 5*uint64(overlapTime/time.Millisecond+20) || stats.Breaks != 0 || stats.BlindTime != 0 || stats.Connects != 6 {
			t.Errorf("%d came twice, stats %+v", twice, stats)
		}
		if got := fmt.Sprint(server.asked); got != "[0 1 2 3 4 5 9]" {
			t.Errorf("filters asked for: %s", got)
		}
	})
}

// TestSetFiltersWithoutSubscription: they are those of the next one.
func TestSetFiltersWithoutSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Reconnect: true})
		if err != nil {
			t.Fatal(err)
		}
		b := broadcaster{refuse: errors.New("not there")}
		s.open = b.open
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx, func([][]byte) {}) }()
		time.Sleep(time.Minute)
		if err := s.SetFilters(ctx, Filters{Allow: make([]*tetragon.Filter, 3)}, false); err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		b.refuse = nil
		b.mu.Unlock()
		time.Sleep(time.Minute)
		cancel()
		<-ended
		if last := b.asked[len(b.asked)-1]; last != 3 || s.Stats().Connects != 1 {
			t.Errorf("asked for %v, %+v", b.asked, s.Stats())
		}
	})
}

// TestSetFiltersWhileBroken: the subscription breaks while the one that is to replace
// it is being opened. Whatever is open by then is replaced.
func TestSetFiltersWhileBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Reconnect: true})
		if err != nil {
			t.Fatal(err)
		}
		var server broadcaster
		slow := make(chan struct{})
		s.open = func(ctx context.Context, want *asked) (session, Tetragon, error) {
			if len(want.filters.Allow) == 3 {
				<-slow
			}
			return server.open(ctx, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var last string
		go func() { ended <- s.Run(ctx, func(b [][]byte) { last = string(b[len(b)-1]) }) }()
		time.Sleep(time.Second)
		changed := make(chan error, 1)
		go func() { changed <- s.SetFilters(ctx, Filters{Allow: make([]*tetragon.Filter, 3)}, false) }()
		time.Sleep(time.Second)
		server.mu.Lock()
		server.sessions[0].events <- nil // the end of the stream
		server.mu.Unlock()
		time.Sleep(time.Minute)
		if !s.Stats().Subscribed {
			t.Error("the old filters are not subscribed again")
		}
		close(slow)
		if err := <-changed; err != nil {
			t.Error(err)
		}
		server.send("through the new one")
		synctest.Wait()
		server.mu.Lock()
		server.refuse = errors.New("gone")
		server.sessions[2].events <- nil
		server.mu.Unlock()
		time.Sleep(time.Second)
		if s.Stats().Subscribed {
			t.Error("subscribed to nothing")
		}
		cancel()
		<-ended
		if got := fmt.Sprint(server.asked); !strings.HasPrefix(got, "[0 0 3") || last != "through the new one" || s.Stats().Breaks != 2 {
			t.Errorf("asked for %s, last event %q, %+v", got, last, s.Stats())
		}
	})
}
