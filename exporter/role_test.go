package exporter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
)

// slowSocket takes everything, and until released nothing from the second call on.
type slowSocket struct {
	discard
	calls   int
	release chan struct{}
}

func (s *slowSocket) Send(datagrams [][]byte) (int, error) {
	if s.calls++; s.calls > 2 {
		<-s.release
	}
	return len(datagrams), nil
}

// TestEndWhileACallerSends: the end waits for a caller that is at work, and what that
// one sends counts. With -race it shows that the two touch nothing at the same time.
func TestEndWhileACallerSends(t *testing.T) {
	socket := &slowSocket{release: make(chan struct{})}
	e := newTestExporter(t, Config{}, &fakeSocket{})
	e.worker.streams[0].conn = socket
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	time.Sleep(10 * time.Millisecond)
	sent := make(chan error, 1)
	go func() {
		_ = e.SendWire(wire(1))
		time.Sleep(10 * time.Millisecond)
		sent <- e.SendWire(wire(2))
	}()
	time.Sleep(50 * time.Millisecond) // no channel, which would order the two
	cancel()
	time.Sleep(20 * time.Millisecond)
	close(socket.release)
	// On a machine that is slow the second event comes after the end.
	if err := <-sent; err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if a := check(t, e); a.Streams[0].Sent+a.Dropped[ledger.Shutdown] != 2 {
		t.Errorf("%+v", a)
	}
}

// TestStatsDuringClose: whoever asks for figures while the sockets are closed gets
// some (-race).
func TestStatsDuringClose(t *testing.T) {
	e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: "127.0.0.1:40000"}}, StatsInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, e)
	quit, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		for !isOver(quit) {
			_, _ = e.Stats(), e.Account()
		}
	}()
	time.Sleep(5 * time.Millisecond)
	if err := e.SetDestinations([]Destination{{Address: "127.0.0.1:40001"}}); err != nil {
		t.Error(err)
	}
	time.Sleep(5 * time.Millisecond)
	stop()
	_ = e.Close()
	time.Sleep(5 * time.Millisecond)
	close(quit)
	<-asked
}

// TestSetDestinationsWithoutRun: it returns, whatever waits, and what waits goes to
// the new destination when Run is there.
func TestSetDestinationsWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sockets := map[string]*fakeSocket{"127.0.0.1:1": {}}
		e := newTestExporter(t, Config{Destinations: []Destination{{Address: "not-yet.invalid:7514"}}, Lookup: nowhere})
		_ = e.SendBatch(wires(0, 10)) // it waits: there is no socket
		reconfigure(t, e, sockets, "127.0.0.1:1")
		check(t, e)
		stop := start(t, e)
		synctest.Wait()
		stop()
		check(t, e)
		lines, _ := sockets["127.0.0.1:1"].events()
		wantLines(t, lines, 0, 10)
	})
}

// closing counts how often it was closed.
type closing struct {
	discard
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

// TestLateDial: a socket that comes when its stream has ended is closed.
func TestLateDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, late := make(chan struct{}), &closing{}
		e := newTestExporter(t, Config{Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}}, &fakeSocket{})
		e.dial = func(*stream, netip.AddrPort) (sender, error) {
			<-release
			return late, nil
		}
		stop := start(t, e)
		first := Destination{Address: "127.0.0.1:40000"}
		for _, to := range [][]Destination{{first, {Address: "b.example:7514"}}, {first}} {
			if err := e.SetDestinations(to); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		close(release)
		synctest.Wait()
		if late.closed != 1 {
			t.Errorf("the socket of the destination that is gone was closed %d times", late.closed)
		}
		stop()
	})
}

// TestPartingDoesNotSpin: while a destination that takes nothing is waited for, and
// while goodbyes are spaced, Run's goroutine sleeps.
func TestPartingDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &fakeSocket{fail: func(int) error { return &udp.SendError{Class: udp.ErrWouldBlock} }}
		e := newTestExporter(t, Config{StatsInterval: time.Hour, Lookup: nowhere}, dead)
		stop := start(t, e)
		_ = e.SendBatch(wires(0, 10))
		synctest.Wait()
		before := e.rounds.Load()
		if err := e.SetDestinations([]Destination{{Address: "not-yet.invalid:1"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		// The socket is tried again after each fullWait until DrainTimeout is over.
		if rounds := e.rounds.Load() - before; rounds > uint64(DefaultDrainTimeout/fullWait)+3*goodbyes {
			t.Errorf("Run went round %d times", rounds)
		}
		if n := len(e.worker.parting); n != 0 {
			t.Errorf("%d streams are still parting", n)
		}
		stop()
		check(t, e)
	})
}

func nowhere(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }

// TestManyReloads: what has ended is summed up: the account closes, and neither it nor
// the memory grows with the number of reloads.
func TestManyReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := newExporter(Config{Destinations: []Destination{{Address: "127.0.0.1:1"}}, StatsInterval: -1},
			func(*stream, netip.AddrPort) (sender, error) { return discard{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, e)
		const reloads, each = 300, 7
		for i := range reloads {
			_ = e.SendBatch(wires(0, each))
			d := Destination{Address: fmt.Sprintf("127.0.0.1:%d", 2+i%100)}
			if err := e.SetDestinations([]Destination{d}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			check(t, e)
		}
		stop()
		account := check(t, e)
		ended, sent := 0, uint64(0)
		for _, s := range account.Streams {
			ended += s.Ended
			sent += s.Sent
		}
		if len(account.Streams) != maxEnded+1 || ended != reloads || sent != reloads*each {
			t.Errorf("%d rows of %d ended streams, sent %d of %d", len(account.Streams), ended, sent, reloads*each)
		}
		if stats := e.Stats(); len(stats.Streams) != len(account.Streams) || stats.Streams[0].Address != account.Streams[0].Destination || account.Streams[0].Destination != others {
			t.Errorf("%d rows of figures; the first is of %q and %q", len(stats.Streams), stats.Streams[0].Address, account.Streams[0].Destination)
		}
	})
}

// TestEndedStreamsMemory: of a stream that has ended only figures stay, whatever made
// them.
func TestEndedStreamsMemory(t *testing.T) {
	for _, d := range []Destination{{Format: "json"}, {Format: "frame", Compression: datagram.CompressionZstd}} {
		e, err := newExporter(Config{Destinations: []Destination{{Address: "127.0.0.1:1", Format: d.Format}}, StatsInterval: -1},
			func(*stream, netip.AddrPort) (sender, error) { return discard{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, e)
		heap := func() uint64 {
			var m runtime.MemStats
			for range 2 {
				runtime.GC()
			}
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		reload := func(port int) {
			d.Address = fmt.Sprintf("127.0.0.1:%d", port)
			if err := e.SetDestinations([]Destination{d}); err != nil {
				t.Fatal(err)
			}
			_ = e.SendBatch(wires(0, 10))
		}
		reload(2)
		before := heap()
		const n = 20
		for i := range n {
			reload(3 + i)
		}
		for end := time.Now().Add(10 * time.Second); len(e.Account().Streams) < n+2 || e.Account().Streams[n+1].Ended > 0; {
			if time.Now().After(end) {
				t.Fatal("not all have ended")
			}
			_ = e.SendWire(wire(1))
		}
		if grown := (int64(heap()) - int64(before)) / n; grown > 32<<10 {
			t.Errorf("%s: %d bytes stay of each stream that has ended", d.Format, grown)
		}
		stop()
		_ = e.Close()
	}
}

// TestSlowFact: a fact that is slow to read costs no event anything. It is read at
// the start, and at a change of the destinations.
func TestSlowFact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		reads := 0
		slow := metadata.Fact{Name: "cloud", Read: func() (string, error) {
			reads++
			time.Sleep(2 * time.Second)
			return fmt.Sprint("read ", reads), nil
		}}
		e := newTestExporter(t, Config{Host: metadata.Sources{More: []metadata.Fact{slow}}}, &socket)
		stop := start(t, e)
		begin := time.Now()
		_ = e.SendWire(wire(0))
		e.SetTetragon(Tetragon{Version: "v1.7.0"})
		_ = e.SendWire(wire(1))
		if took := time.Since(begin); took > 0 {
			t.Errorf("two events took %v", took)
		}
		stop()
		if reads != 1 {
			t.Errorf("the fact was read %d times", reads)
		}
	})
}

// TestStatsAreNoExports: agent_stats and goodbyes are no exports of agent_init.
func TestStatsAreNoExports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		e := newTestExporter(t, Config{StatsInterval: time.Minute, MetadataInterval: -1}, &socket)
		stop := start(t, e)
		_ = e.SendWire(wire(0))
		time.Sleep(time.Hour)
		stop()
		if m := e.Stats().Metadata[0]; len(socket.taken) < 50 || m.Hits+m.Misses != 1 {
			t.Errorf("%d datagrams, and %d exports of agent_init, want 1", len(socket.taken), m.Hits+m.Misses)
		}
	})
}

// TestFinish: a source that ends by itself loses nothing, however slow the way is; the
// goodbye follows what was sent. Only a signal, the end of Run's context, bounds it.
func TestFinish(t *testing.T) {
	slow := func() *fakeSocket {
		next := time.Now()
		return &fakeSocket{fail: func(int) error {
			if time.Now().Before(next) {
				return &udp.SendError{Class: udp.ErrWouldBlock}
			}
			next = next.Add(100 * time.Millisecond)
			return nil
		}}
	}
	f := func(signal time.Duration, wantTime time.Duration, wantSent func(uint64) bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			socket := slow()
			e := newTestExporter(t, Config{StatsInterval: time.Hour}, socket)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ran := make(chan error, 1)
			go func() { ran <- e.Run(ctx) }()
			const all = 1000
			_ = e.SendBatch(wires(0, all))
			if signal > 0 {
				time.AfterFunc(signal, cancel)
			}
			begin := time.Now()
			if err := e.Finish(ctx); (err != nil) != (signal > 0) {
				t.Errorf("Finish: %v", err)
			}
			if err := <-ran; err != nil {
				t.Error(err)
			}
			account := check(t, e)
			s := account.Streams[0]
			if took := time.Since(begin); took > wantTime || !wantSent(s.Sent) || s.Queued > 0 {
				t.Errorf("signal after %v: it took %v, sent %d, dropped %v and %v", signal, took, s.Sent, &account.Dropped, &s.Dropped)
			}
			if err := e.SendWire(wire(0)); !errors.Is(err, ErrClosed) {
				t.Errorf("sending after Finish: %v", err)
			}
			lines, records := socket.events()
			wantLines(t, lines, 0, int(s.Sent))
			if signal == 0 && records != 1+goodbyes {
				t.Errorf("%d agent_init and goodbyes", records)
			}
			if lost := account.Dropped[ledger.Shutdown] + s.Dropped[ledger.Shutdown]; lost != all-s.Sent {
				t.Errorf("%d lost for shutdown, %d sent", lost, s.Sent)
			}
		})
	}
	f(0, 102*time.Second, func(sent uint64) bool { return sent == 1000 })
	f(10*time.Second, 10*time.Second+2*DefaultDrainTimeout, func(sent uint64) bool { return sent > 100 && sent < 115 })
}

// TestFinishBeforeRun: Finish may come first, and Run then sends and ends.
func TestFinishBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		e := newTestExporter(t, Config{}, &socket)
		_ = e.SendBatch(wires(0, 5000))
		finished := make(chan error, 1)
		go func() { finished <- e.Finish(t.Context()) }()
		synctest.Wait()
		if err := errors.Join(e.Run(t.Context()), <-finished); err != nil {
			t.Error(err)
		}
		lines, _ := socket.events()
		wantLines(t, lines, 0, 5000)
		check(t, e)
		if err := e.Run(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("a second Run: %v", err)
		}
	})
}
