package exporter

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/internal/udp"
	"tetracast/ledger"
)

// statsOf returns the agent_stats among what was taken.
func (f *fakeSocket) stats(t *testing.T) (all []*ledger.AgentStats) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.taken {
		if !strings.Contains(string(d), `"event":"agent_stats"`) {
			continue
		}
		s, err := ledger.ReadAgentStats(d)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// TestStats: an agent_stats a minute, with the stream's figures, and three times
// a goodbye with the last ones.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		socket.fail = func(n int) error {
			if n == 3 { // the third event
				return &udp.SendError{Class: udp.ErrNotPermitted}
			}
			return nil
		}
		up := uint64(5)
		e := newTestExporter(t, Config{StatsInterval: time.Minute, DrainTimeout: time.Second, Upstream: func() Upstream {
			return Upstream{Breaks: 2, BlindTime: time.Second, Losses: map[string]*uint64{"ring_buffer": &up}}
		}}, &socket)
		stop := start(t, e)
		for i := range 5 {
			if err := e.SendWire(wire(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.SendWire([]byte{0xff}); err != nil {
			t.Fatal(err)
		}
		e.SetTetragon(Tetragon{Version: "v1", ClusterName: "demo"})
		time.Sleep(150 * time.Second)
		stop()
		all := socket.stats(t)
		if len(all) != 2+goodbyes {
			t.Fatalf("%d agent_stats, want 2 and %d goodbyes", len(all), goodbyes)
		}
		account := check(t, e)
		for i, s := range all {
			if s.Seen != 6 || s.LastNumber != 5 || s.Refused != 1 || s.Sent != 4 || s.Dropped["not_permitted"] != 1 || s.Dropped["untranscodable"] != 1 {
				t.Errorf("%+v", s)
			}
			if s.SubscriptionBreaks != 2 || s.BlindMS == nil || *s.BlindMS != 1000 || *s.Upstream["ring_buffer"] != 5 || s.Upstream["bpf_missed"] != nil || s.ClusterName != "demo" {
				t.Errorf("%+v", s)
			}
			if s.Goodbye != (i >= 2) || s.Stream != account.Streams[0].Stream {
				t.Errorf("agent_stats %d: goodbye %v of stream %s", i, s.Goodbye, s.Stream)
			}
			if s.Sums() != (ledger.Sums{Seen: 6, Dropped: 1, Refused: 1}) {
				t.Errorf("sums %+v", s.Sums())
			}
		}
	})
}

// TestPredecessor: a process that is killed with events in its queue says no
// goodbye; its successor says it in its place.
func TestPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "counters")
		var socket fakeSocket
		first := newTestExporter(t, Config{StatsInterval: time.Minute, CountersFile: file}, &socket)
		for i := range 10 {
			if err := first.SendWire(wire(i)); err != nil {
				t.Fatal(err)
			}
		}
		first.worker.streams[0].nextAttempt = never // the destination takes no more
		for i := range 3 {
			if err := first.SendWire(wire(i)); err != nil {
				t.Fatal(err)
			}
		}
		id := check(t, first).Streams[0].Stream
		// Killed: nothing of it runs any more. Its file is what it was.
		var heard fakeSocket
		second := newTestExporter(t, Config{StatsInterval: time.Minute, CountersFile: file}, &heard)
		stop := start(t, second)
		if err := second.SendWire(wire(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		all := heard.stats(t)
		if len(all) != goodbyes {
			t.Fatalf("%d reports, want %d", len(all), goodbyes)
		}
		for _, s := range all {
			if s.Stream != id || !s.Goodbye || s.ReportedBy != check(t, second).Streams[0].Stream || s.LastNumber != 10 || s.Sent != 10 ||
				s.Seen != 13 || s.Dropped["killed"] != 3 {
				t.Errorf("%+v", s)
			}
		}
		stop()
		// It ended in order, so a third one has nothing to report.
		third := newTestExporter(t, Config{CountersFile: file}, &fakeSocket{})
		if n := len(third.worker.streams[0].predecessors); n != 0 {
			t.Errorf("%d streams to report after a goodbye", n)
		}
		_ = first.Close()
	})
}

// TestNoGoodbyeToADeadDestination: the end is not held up by it.
func TestNoGoodbyeToADeadDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := fakeSocket{fail: func(int) error { return &udp.SendError{Class: udp.ErrWouldBlock} }}
		e := newTestExporter(t, Config{StatsInterval: time.Minute, DrainTimeout: time.Second}, &socket)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		if err := e.SendWire(wire(0)); err != nil {
			t.Fatal(err)
		}
		cancel()
		begin := time.Now()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 1100*time.Millisecond {
			t.Errorf("the end took %v", took)
		}
		account := check(t, e)
		if account.Streams[0].Dropped[ledger.Shutdown] != 1 {
			t.Errorf("%+v", account.Streams[0])
		}
		if err := e.SendWire(wire(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	})
}

// TestStuckDatagram: a datagram that the device never has room for is given up
// after a second, and those behind it are sent.
func TestStuckDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := fakeSocket{}
		e := newTestExporter(t, Config{}, &socket)
		stop := start(t, e)
		if err := e.SendWire(wire(0)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		socket.setFail(func(int) error {
			if time.Since(begin) < 1500*time.Millisecond {
				return &udp.SendError{Class: udp.ErrNoBuffers}
			}
			return nil
		})
		for i := range 3 {
			if err := e.SendWire(wire(1 + i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		stop()
		s := check(t, e).Streams[0]
		if s.Dropped[ledger.NoBuffers] != 1 || s.Sent != 3 {
			t.Errorf("sent %d, dropped %s; want one given up and the others sent", s.Sent, s.Dropped.String())
		}
	})
}
