package collector

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tetracast/internal/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	agentA = netip.MustParseAddrPort("192.0.2.1:40000")
	agentB = netip.MustParseAddrPort("192.0.2.2:40000")
)

// fakeSocket is a receiver whose datagrams a test injects. Like a socket it
// holds what was sent until it is received, and honours deadlines.
type fakeSocket struct {
	mu       sync.Mutex
	held     []packet
	deadline time.Time
	change   chan struct{} // closed and replaced when held or deadline changes
	failure  error
	endless  []packet // come again every millisecond
	lost     atomic.Uint64
	closed   atomic.Bool
}

func newFakeSocket() *fakeSocket { return &fakeSocket{change: make(chan struct{})} }

func (f *fakeSocket) changed() {
	close(f.change)
	f.change = make(chan struct{})
}

func (f *fakeSocket) send(source netip.AddrPort, payloads ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range payloads {
		f.held = append(f.held, packet{Payload: []byte(p), Source: source})
	}
	f.changed()
}

func (f *fakeSocket) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
	f.changed()
}

func (f *fakeSocket) receive() ([]packet, error) {
	for {
		f.mu.Lock()
		held, deadline, change, failure, endless := f.held, f.deadline, f.change, f.failure, f.endless
		f.held = nil
		f.mu.Unlock()
		switch {
		case endless != nil && (deadline.IsZero() || time.Now().Before(deadline)):
			time.Sleep(time.Millisecond)
			return endless, nil
		case len(held) > 0:
			return held, nil
		case failure != nil:
			return nil, failure
		case deadline.IsZero():
			<-change
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, os.ErrDeadlineExceeded
		}
		select {
		case <-change:
		case <-time.After(left):
		}
	}
}

func (f *fakeSocket) setDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deadline = t
	f.changed()
	return nil
}

func (f *fakeSocket) interrupt() { _ = f.setDeadline(time.Now()) }

func (f *fakeSocket) dropped() uint64      { return f.lost.Load() }
func (f *fakeSocket) addr() netip.AddrPort { return netip.AddrPort{} }
func (f *fakeSocket) close() error         { f.closed.Store(true); return nil }

// memory is a sink that keeps its lines, and does what write says before.
type memory struct {
	write func(b *sink.Batch) (int, error) // nil: take all

	mu     sync.Mutex
	lines  []string
	writes int
	closed bool
}

func (m *memory) Write(b *sink.Batch) (int, error) {
	n, err := b.Len(), error(nil)
	if m.write != nil {
		n, err = m.write(b)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	for i := range n {
		m.lines = append(m.lines, string(b.Line(i)))
	}
	return n, err
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *memory) got() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lines
}
