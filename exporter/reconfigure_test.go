package exporter

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/internal/udp"
	"tetracast/ledger"
)

// reconfigure changes the destinations; each that is new gets the socket of its
// address.
func reconfigure(t *testing.T, e *UDPExporter, sockets map[string]*fakeSocket, addresses ...string) {
	t.Helper()
	e.dial = func(s *stream, _ netip.AddrPort) (sender, error) { return sockets[s.Address], nil }
	var destinations []Destination
	for _, a := range addresses {
		destinations = append(destinations, Destination{Address: a})
	}
	if err := e.SetDestinations(destinations); err != nil {
		t.Fatal(err)
	}
}

// TestSetDestinations: a destination that stays notices nothing; one that is gone
// gets what waits for it and a goodbye; a new one begins with agent_init and gets all
// that comes from then on. Every account closes.
func TestSetDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sockets := map[string]*fakeSocket{"127.0.0.1:1": {}, "127.0.0.1:2": {}, "127.0.0.1:3": {}}
		e := newTestExporter(t, Config{Destinations: []Destination{{Address: "127.0.0.1:1"}, {Address: "127.0.0.1:2"}}, Tetragon: &Tetragon{Version: "v1.7.0"},
			StatsInterval: time.Hour, CountersFile: filepath.Join(t.TempDir(), "counters")}, sockets["127.0.0.1:1"], sockets["127.0.0.1:2"])
		stop := start(t, e)
		synctest.Wait()
		const each = 100
		_ = e.SendBatch(wires(0, each))
		synctest.Wait()
		sockets["127.0.0.1:1"].setFail(func(int) error { return udp.ErrWouldBlock })
		_ = e.SendBatch(wires(each, 2*each))
		synctest.Wait()
		reconfigure(t, e, sockets, "127.0.0.1:2", "127.0.0.1:3")
		check(t, e)
		_ = e.SendBatch(wires(2*each, 3*each))
		synctest.Wait()
		check(t, e)
		sockets["127.0.0.1:1"].setFail(nil)
		time.Sleep(time.Second)
		check(t, e)
		stop()
		account := check(t, e)
		for i, want := range []struct {
			address  string
			from, to int
		}{{"127.0.0.1:1", 0, 2 * each}, {"127.0.0.1:2", 0, 3 * each}, {"127.0.0.1:3", 2 * each, 3 * each}} {
			lines, records := sockets[want.address].events()
			wantLines(t, lines, want.from, want.to)
			s := account.Streams[i]
			if records != 1+goodbyes || s.Sent != uint64(want.to-want.from) || s.Outside != uint64(3*each-want.to+want.from) {
				t.Errorf("%s: %d agent_init and goodbyes, %+v", want.address, records, s)
			}
		}
		before, err := ledger.ReadPage(e.config.CountersFile)
		streams := slices.DeleteFunc(before, func(c ledger.Counters) bool { return c.Stream == 0 || c.Stream == intakeStream })
		if err != nil || len(streams) != 3 {
			t.Errorf("the page has %d streams, %v", len(streams), err)
		}
	})
}

// TestSetDestinationsDead: one that takes nothing any more keeps nobody: what waits
// for it is lost when its time is over, and counted.
func TestSetDestinationsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &fakeSocket{fail: func(int) error { return udp.ErrUnreachable }}
		sockets := map[string]*fakeSocket{"127.0.0.1:2": {}}
		e := newTestExporter(t, Config{DrainTimeout: 3 * time.Second}, dead)
		stop := start(t, e)
		_ = e.SendBatch(wires(0, 10))
		synctest.Wait()
		reconfigure(t, e, sockets, "127.0.0.1:2")
		time.Sleep(time.Second)
		if s := check(t, e).Streams[0]; s.Queued != 10 {
			t.Errorf("while there is time: %+v", s)
		}
		time.Sleep(3 * time.Second)
		if s := check(t, e).Streams[0]; s.Queued != 0 || s.Dropped[ledger.Shutdown] != 10 {
			t.Errorf("after its time: %+v", s)
		}
		stop()
		check(t, e)
	})
}

// TestSetDestinationsAllOrNothing: with one that is wrong, or after the end, nothing
// changes.
func TestSetDestinationsAllOrNothing(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{}, &socket)
	stop := start(t, e)
	before := e.streams()
	for _, bad := range [][]Destination{nil, {{Address: "127.0.0.1:2"}, {Address: "127.0.0.1:3", Format: "xml"}}} {
		if err := e.SetDestinations(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if after := e.streams(); len(after) != 1 || after[0] != before[0] {
		t.Errorf("streams %v, then %v", before, after)
	}
	stop()
	if err := e.SetDestinations([]Destination{{Address: "127.0.0.1:2"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestSetDestinationsUnderLoad changes them over real sockets while many send.
func TestSetDestinationsUnderLoad(t *testing.T) {
	_, a := listen(t)
	_, b := listen(t)
	_, c := listen(t)
	e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: a.String()}}, Tetragon: &Tetragon{Version: "v1.7.0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	stop := start(t, e)
	var senders sync.WaitGroup
	ended := make(chan struct{})
	for range 4 {
		senders.Go(func() {
			for i := 0; ; i += 10 {
				select {
				case <-ended:
					return
				default:
				}
				_ = e.SendBatch(wires(i, i+10))
				check(t, e)
			}
		})
	}
	for i := range 20 {
		to := [][]Destination{{{Address: b.String()}, {Address: c.String(), Format: "frame"}}, {{Address: a.String()}}, {{Address: c.String(), Format: "frame"}, {Address: a.String()}}}[i%3]
		if err := e.SetDestinations(to); err != nil {
			t.Error(err)
		}
	}
	close(ended)
	senders.Wait()
	stop()
	check(t, e)
}
