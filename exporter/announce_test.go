package exporter

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/internal/udp"
	"tetracast/metadata"
)

// TestAnnounceStraight: agent_init that is asked for goes out at once, is
// counted and logged, and stays in the order of the events; one that is lost
// comes again after lostAnnounceWait, one that finds the buffer full as soon as
// there is room.
func TestAnnounceStraight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var socket fakeSocket
		e := newTestExporter(t, Config{Logger: testLogger(&log), MetadataInterval: -1}, &socket)
		stop := start(t, e)
		want := 0
		announce := func(what string, wantNow, wantLater int, later time.Duration) {
			t.Helper()
			if err := e.SendMetadataEvent(); err != nil {
				t.Fatal(err)
			}
			_, n := socket.events()
			if n != want+wantNow {
				t.Errorf("%s: %d agent_init at once, want %d", what, n-want, wantNow)
			}
			socket.setFail(nil)
			time.Sleep(later)
			synctest.Wait()
			_, n = socket.events()
			if n != want+wantLater {
				t.Errorf("%s: %d agent_init after %v, want %d", what, n-want, later, wantLater)
			}
			want = n
		}
		fail := func(class error) func(int) error {
			return func(int) error { return &udp.SendError{Class: class, Errno: unix.EIO} }
		}
		announce("the first", 1, 1, 0)
		if !e.calm() {
			t.Fatal("after the first, nothing stands in the way, but it is not calm")
		}
		announce("the second", 1, 1, 0)
		socket.setFail(fail(udp.ErrNoBuffers))
		announce("full", 0, 1, fullWait)
		announce("after full", 1, 1, 0)
		socket.setFail(fail(udp.ErrNotPermitted))
		announce("not permitted", 0, 1, lostAnnounceWait)
		if e.calm() {
			t.Error("calm within calmTime of a failure")
		}
		announce("soon after", 1, 1, 2*calmTime)
		announce("long after", 1, 1, 0)
		if !e.calm() {
			t.Error("not calm long after the failure")
		}
		if err := e.SendBatch(wires(0, 3)); err != nil {
			t.Fatal(err)
		}
		announce("after events", 1, 1, 0)
		stop()
		if a := check(t, e); a.Streams[0].Datagrams != uint64(len(socket.taken)) || a.Streams[0].Sent != 3 {
			t.Errorf("the account has %+v, the socket took %d datagrams", a.Streams[0], len(socket.taken))
		}
		if n := strings.Count(log.String(), "Cached metadata event sent over UDP"); n != want {
			t.Errorf("%d lines in the log for %d agent_init:\n%s", n, want, log.String())
		}
	})
}

// TestRepeatMeetsSlowCaller: a repeat of agent_init that falls due while a caller
// sends one is not forgotten.
func TestRepeatMeetsSlowCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		e := newTestExporter(t, Config{}, &socket)
		stop := start(t, e)
		defer stop()
		_ = e.SendMetadataEvent()
		synctest.Wait()
		if !e.calm() {
			t.Fatal("not calm after the first agent_init")
		}
		socket.setFail(func(int) error {
			time.Sleep(2 * DefaultMetadataInterval)
			return nil
		})
		_ = e.SendMetadataEvent()
		socket.setFail(nil)
		synctest.Wait()
		_, before := socket.events()
		time.Sleep(4 * DefaultMetadataInterval)
		synctest.Wait()
		if _, after := socket.events(); before < 3 || after < before+3 {
			t.Errorf("%d agent_init after the slow one, %d four intervals later", before, after)
		}
	})
}

// TestAnnounceCost: an export of the cached agent_init is one system call and no
// allocation; one from a mapping too.
func TestAnnounceCost(t *testing.T) {
	_, addr := listen(t)
	cost := func(name string, e *UDPExporter) {
		t.Helper()
		const exports = 100
		before := e.Stats().Sockets[0].Calls
		allocations := testing.AllocsPerRun(exports, func() { _ = e.SendMetadataEvent() })
		if calls := e.Stats().Sockets[0].Calls - before; calls != exports+1 || allocations != 0 {
			t.Errorf("%s: %d system calls and %v allocations an export, in %d of them", name, calls, allocations, exports+1)
		}
	}
	config := Config{Destinations: []Destination{{Address: addr.String()}}, StatsInterval: -1, MetadataInterval: -1}
	e, err := NewUDPExporter(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	_ = e.SendMetadataEvent()
	cost("in memory", e)

	left := remembering(filepath.Join(t.TempDir(), "metadata.cache"), 1)
	left.Destinations, left.StatsInterval, left.MetadataInterval = config.Destinations, -1, -1
	warm, err := NewUDPExporter(left)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = warm.Close() }()
	facts := warm.facts(warm.config.Destinations[0])
	facts.TetragonVersion = "v1.7.0"
	origin, _ := left.MetadataOrigin()
	if err := metadata.Leave(t.Context(), left.MetadataStore, facts, origin, nil, ""); err != nil {
		t.Fatal(err)
	}
	warm.recall(t.Context())
	if !warm.worker.streams[0].cache.Current().Lent() {
		t.Fatal("not in a mapping")
	}
	cost("in a mapping", warm)
}
