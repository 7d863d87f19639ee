package exporter

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/ledger"
)

func testLogger(to *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }

// listen returns a socket's address and a function that reads n datagrams from
// it.
func listen(t testing.TB) (read func(n int) []string, addr netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(n int) []string {
		t.Helper()
		var got []string
		buffer := make([]byte, 1<<16)
		for len(got) < n {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			length, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("after %d of %d datagrams: %v", len(got), n, err)
			}
			got = append(got, string(buffer[:length]))
		}
		return got
	}, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// fakeSocket stands where a udp.Conn stands. It takes every datagram until told
// otherwise.
type fakeSocket struct {
	mu    sync.Mutex
	taken [][]byte
	fail  func(n int) error // for the n-th datagram offered, from 0; nil: take it
	calls int
}

func (f *fakeSocket) Send(datagrams [][]byte) (sent int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range datagrams {
		n := f.calls
		f.calls++
		if f.fail != nil {
			if err := f.fail(n); err != nil {
				return sent, err
			}
		}
		f.taken = append(f.taken, bytes.Clone(d))
		sent++
	}
	return sent, nil
}

func (f *fakeSocket) SendParts(parts [][]byte) error {
	_, err := f.Send([][]byte{bytes.Join(parts, nil)})
	return err
}

func (f *fakeSocket) Close() error { return nil }

func (f *fakeSocket) setFail(fail func(n int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// events returns what was taken, without agent_init.
func (f *fakeSocket) events() (lines []string, agentInits int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.taken {
		if bytes.HasPrefix(d, []byte(`{"@timestamp"`)) {
			agentInits++
			continue
		}
		lines = append(lines, string(d))
	}
	return lines, agentInits
}

// newTestExporter returns an exporter whose destinations are fakes.
func newTestExporter(t testing.TB, config Config, sockets ...*fakeSocket) *UDPExporter {
	t.Helper()
	if config.StatsInterval == 0 {
		config.StatsInterval = -1 // most tests count datagrams
	}
	for i := len(config.Destinations); i < len(sockets); i++ {
		config.Destinations = append(config.Destinations, Destination{Address: fmt.Sprintf("127.0.0.1:%d", 40000+i)})
	}
	e, err := NewUDPExporter(config)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range sockets {
		_ = e.worker.streams[i].conn.Close()
		e.worker.streams[i].conn = f
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// start gives Run a goroutine; stop ends it.
func start(t testing.TB, e *UDPExporter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// wire is the event whose JSON is line(i).
func wire(i int) []byte {
	out, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: fmt.Sprintf("node-%d", i)})
	if err != nil {
		panic(err)
	}
	return out
}

func line(i int) string { return fmt.Sprintf("{\"node_name\":\"node-%d\"}\n", i) }

func wires(from, to int) (batch [][]byte) {
	for i := from; i < to; i++ {
		batch = append(batch, wire(i))
	}
	return batch
}

// check asserts that the account closes, and returns it.
func check(t testing.TB, e *UDPExporter) ledger.Exporter {
	t.Helper()
	account := e.Account()
	if err := account.Check(); err != nil {
		t.Error(err)
	}
	return account
}

func wantLines(t testing.TB, got []string, from, to int) {
	t.Helper()
	if len(got) != to-from {
		t.Fatalf("%d events arrived, want %d", len(got), to-from)
	}
	for i, l := range got {
		if l != line(from+i) {
			t.Fatalf("event %d is %q, want %q", i, l, line(from+i))
		}
	}
}

// discard takes everything.
type discard struct{}

func (discard) Send(datagrams [][]byte) (int, error) { return len(datagrams), nil }
func (discard) SendParts([][]byte) error             { return nil }
func (discard) Close() error                         { return nil }

// literalPort is an address on loopback.
func literalPort(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}
