package exporter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNameResolvesLate: the name of the destination resolves after a minute;
// until then everything waits, then it arrives whole.
func TestNameResolvesLate(t *testing.T) {
	receiver, addr := listen(t)
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		e, err := NewUDPExporter(Config{
			Destinations: []Destination{{Address: fmt.Sprintf("collector.example:%d", addr.Port())}},
			Tetragon:     &Tetragon{Version: "v1.7.0"},
			Logger:       testLogger(&log),
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				if time.Since(begin) < time.Minute {
					return nil, errors.New("no such host")
				}
				return []netip.Addr{addr.Addr()}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, e)
		for i := range 100 {
			_ = e.SendWire(wire(i))
			time.Sleep(time.Second)
		}
		stop()
		check(t, e)
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	got := receiver(101)
	if !strings.Contains(got[0], "agent_init") {
		t.Errorf("the first datagram is %q", got[0])
	}
	wantLines(t, got[1:], 0, 100)
	if n := strings.Count(log.String(), "cannot be reached yet"); n != 1 {
		t.Errorf("%d log lines for one cause:\n%s", n, log.String())
	}
}

// TestRouteComesLate: an address without a route, as early in the boot of a
// host, is no reason not to start.
func TestRouteComesLate(t *testing.T) {
	e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: "[fe80::1%nosuchdevice]:7514"}}})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, e)
	_ = e.SendBatch(wires(0, 10))
	stop()
	if a := check(t, e); a.Dropped.Total()+a.Streams[0].Dropped.Total() != 10 {
		t.Errorf("account %+v", a)
	}
}

// TestNameChanges: a name that gets another address is followed at the next
// look; one that stops resolving keeps its address; after trouble the next of
// several addresses has its turn.
func TestNameChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		first, second := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
		answer, answerErr := []netip.Addr{first}, error(nil)
		set := func(addrs []netip.Addr, err error) {
			mu.Lock()
			defer mu.Unlock()
			answer, answerErr = addrs, err
		}
		var log bytes.Buffer
		e, err := NewUDPExporter(Config{
			Destinations: []Destination{{Address: "collector.example:9"}},
			Logger:       testLogger(&log),
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				mu.Lock()
				defer mu.Unlock()
				return answer, answerErr
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, e)
		wantMoves := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := strings.Count(log.String(), "has another address"); n != want {
				t.Errorf("moved %d times, want %d:\n%s", n, want, log.String())
			}
		}
		wantMoves(5*time.Minute, 0)
		set(nil, errors.New("the resolver is dead"))
		wantMoves(5*time.Minute, 0)
		set([]netip.Addr{second, first}, nil)
		wantMoves(5*time.Minute, 0) // the old one is still among them
		set([]netip.Addr{second}, nil)
		wantMoves(2*resolveInterval, 1)
		set([]netip.Addr{second, first}, nil)
		e.worker.streams[0].trouble <- struct{}{}
		wantMoves(2*troubleSpacing, 2)
		_ = e.SendWire(wire(0))
		stop()
		check(t, e)
		_ = e.Close()
	})
}
