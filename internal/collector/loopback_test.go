package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tetracast/datagram"
	"tetracast/internal/sink"
	"tetracast/ledger"
)

// run runs a collector on loopback, and returns a socket that sends to it and a
// function that ends it and returns its checked account.
func run(t *testing.T, config Config) (*Collector, *net.UDPConn, func() ledger.Collector) {
	t.Helper()
	config.Listen = "127.0.0.1:0"
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	return c, conn, func() ledger.Collector {
		t.Helper()
		_ = conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		return checked(t, c)
	}
}

// TestJunkFlood sends 100,000 datagrams of junk, or as many as TETRACAST_FLOOD says, with an event after each
// hundred, as fast as loopback takes them. What the kernel dropped for want of
// room is the only thing that may be missing.
func TestJunkFlood(t *testing.T) {
	junk, every := 100_000, 100
	if text := os.Getenv("TETRACAST_FLOOD"); text != "" {
		var err error
		if junk, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	log := new(logCounter)
	path := filepath.Join(t.TempDir(), "out.jsonl")
	out, err := sink.OpenFile(sink.FileConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	_, conn, end := run(t, Config{Sink: out, Log: slog.New(log)})
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, datagram.MaxPayload)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	send := func(p []byte) {
		t.Helper()
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	sent, events := 0, 0
	for i := range junk {
		switch i % 5 {
		case 0:
			send(nil)
		case 1:
			at := random.IntN(1000)
			send(noise[at : at+random.IntN(2000)+1])
		case 2:
			send([]byte(event)[:1+random.IntN(len(event)-1)])
		case 3:
			send([]byte(`{"no":"event"}`))
		case 4:
			if i%500 == 4 { // 200 of the largest: 13 MB
				send(noise)
				break
			}
			send(bytes.Repeat([]byte{'{'}, 200))
		}
		sent++
		if i%every == 0 {
			send(fmt.Appendf(nil, `{"process_exit":{"status":%d},"time":"2026-01-01T00:00:00Z"}`, events))
			events++
		}
	}
	a := end()
	dropped := a.Observed.SocketDropped
	t.Logf("sent %d junk and %d events; received %d datagrams, %d events; socket dropped %d; undecodable: %s",
		sent, events, a.Datagrams, a.Received, dropped, a.Undecodable.String())
	if a.Datagrams+dropped != uint64(sent+events) {
		t.Errorf("received %d + dropped by the socket %d, want the %d sent", a.Datagrams, dropped, sent+events)
	}
	if a.Undecodable.Total()+a.Received != a.Datagrams {
		t.Errorf("undecodable %d + events %d, want the %d datagrams", a.Undecodable.Total(), a.Received, a.Datagrams)
	}
	if uint64(events)-a.Received > dropped || a.Received == 0 {
		t.Errorf("%d of %d events received, but the socket dropped only %d datagrams", a.Received, events, dropped)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range bytes.Lines(text) {
		lines++
		if !json.Valid(line) {
			t.Fatalf("line %d: %q", lines, line)
		}
	}
	if uint64(lines) != a.Delivered || a.Delivered != a.Received {
		t.Errorf("%d lines, delivered %d, received %d", lines, a.Delivered, a.Received)
	}
	if got := log.lines(); strings.Count(strings.Join(got, "\n"), "cannot be decoded") != 1 {
		t.Errorf("log lines %q, want one about junk", got)
	}
}

// TestSocketDropsAreObserved fills the socket's buffer before anybody reads it.
func TestSocketDropsAreObserved(t *testing.T) {
	c, err := New(Config{Listen: "127.0.0.1:0", Sink: new(memory), ReceiveBufferBytes: 64 << 10, ExitIdle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const sent = 5000
	for range sent {
		if _, err := conn.Write([]byte(event)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Run(t.Context()); err != nil { // ends by itself when idle
		t.Fatal(err)
	}
	a := checked(t, c)
	if a.Observed.SocketDropped == 0 || a.Datagrams+a.Observed.SocketDropped != sent {
		t.Errorf("received %d, dropped by the socket %d, sent %d", a.Datagrams, a.Observed.SocketDropped, sent)
	}
}

func TestAFullDiskOverLoopback(t *testing.T) {
	out, err := sink.OpenFile(sink.FileConfig{Path: "/dev/full"})
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	_, conn, end := run(t, Config{Sink: out})
	for range 100 {
		if _, err := conn.Write([]byte(event)); err != nil {
			t.Fatal(err)
		}
	}
	a := end()
	if a.Received != 100 || a.Dropped[ledger.SinkFailed] != 100 || a.Delivered != 0 {
		t.Errorf("received %d, delivered %d, dropped %s", a.Received, a.Delivered, a.Dropped.String())
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.LocalAddr().String()
	if _, err := New(Config{Listen: address, Sink: new(memory)}); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("%v, want an error that names %s", err, address)
	}
}

// TestAccountDuringARun reads the account while everything moves.
func TestAccountDuringARun(t *testing.T) {
	c, conn, end := run(t, Config{Sink: new(memory), FlushInterval: time.Millisecond})
	for i := range 2000 {
		if _, err := conn.Write([]byte(event)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			checked(t, c)
		}
	}
	end()
}

// TestSocketAllocates covers the way from the kernel into the queue.
func TestSocketAllocates(t *testing.T) {
	c, err := New(Config{Listen: "127.0.0.1:0", Sink: new(memory)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.in.close() }()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	line := []byte(eventLine)
	round := func() {
		if _, err := conn.Write(line); err != nil {
			t.Fatal(err)
		}
		packets, err := c.in[0].receive()
		if err != nil {
			t.Fatal(err)
		}
		c.intakes[0].take(packets)
	}
	round()
	if n := testing.AllocsPerRun(1000, round); n != 0 {
		t.Errorf("an event costs %v allocations, want 0", n)
	}
	if a := checked(t, c); a.Received != 1002 || a.Queued != 1002 { // AllocsPerRun adds one run
		t.Errorf("received %d, queued %d", a.Received, a.Queued)
	}
}
