package collector_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/internal/udp/netns"
)

// TestSpoofedFlood: a stranger sends junk, frames of invented streams and JSON
// from source addresses that are not his, 20,000 a second, beside a valid agent.
// No event of the agent is lost, and memory and goroutines stay what they are.
// TETRACAST_FLOOD sets how many datagrams; a million take a minute.
func TestSpoofedFlood(t *testing.T) {
	flood := 40_000
	if text := os.Getenv("TETRACAST_FLOOD"); text != "" {
		var err error
		if flood, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	l := netns.New(t)
	l.Sh(l.Receiver, "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.vb.rp_filter=0; ip route add default dev vb")
	to := modes[2].to
	r := newRig(t, to, netns.ReceiverIP+":7514", func(address string) string { return address },
		func(f func()) { l.In(l.Receiver, f) }, func(f func()) { l.In(l.Sender, f) })
	var stranger int
	l.In(l.Sender, func() {
		var err error
		if stranger, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { _ = unix.Close(stranger) }()

	events := sampleEvents(t)
	send := func(n int) {
		if err := r.out.SendBatch(events[:n]); err != nil {
			t.Error(err)
		}
	}
	for range 12 { // without a key an agent has to show itself first
		send(20)
		time.Sleep(10 * time.Millisecond)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	flooded := make(chan int, 1)
	go func() { flooded <- floodFrom(stranger, flood) }()
	rounds := max(1, flood/20_000/2)
	for range rounds {
		send(200)
		time.Sleep(time.Second)
	}
	sent := <-flooded
	r.send(events[:200], 1)
	if n := runtime.NumGoroutine(); n > goroutines+5 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	e, c := r.end()
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	for _, a := range c.Agents {
		for _, s := range a.Streams {
			if s.Stream != e.Streams[0].Stream {
				continue
			}
			if s.Received != e.Streams[0].Sent || *s.Missing != 0 {
				t.Errorf("received %d of %d, missing %d; the socket dropped %d", s.Received, e.Streams[0].Sent, *s.Missing, c.Observed.SocketDropped)
			}
			t.Logf("%d spoofed datagrams, %d undecodable, %d events of invented streams; of the agent's %d events %d arrived",
				sent, c.Undecodable.Total(), c.Received-s.Received, e.Streams[0].Sent, s.Received)
			return
		}
	}
	t.Error("the agent's stream is not in the account")
}

// floodFrom sends datagrams with invented source addresses at 20,000 a second.
func floodFrom(socket, count int) (sent int) {
	random := rand.New(rand.NewPCG(3, 3))
	destination := unix.SockaddrInet4{Addr: netip.MustParseAddr(netns.ReceiverIP).As4()}
	var b datagram.Batch
	begin := time.Now()
	for i := range count {
		var payload []byte
		switch i % 4 {
		case 0: // junk
			payload = make([]byte, random.IntN(300))
			for j := range payload {
				payload[j] = byte(random.Uint32())
			}
		case 1: // a frame of a stream that is not
			b.Reset()
			frame, err := datagram.NewFrame(datagram.FrameConfig{Stream: random.Uint64()})
			if err != nil {
				panic(err)
			}
			_ = frame.Pack(&b, &datagram.Event{Number: random.Uint64N(1 << 40), Wire: []byte{1}})
			frame.Flush(&b)
			payload = b.Datagrams[0]
		case 2: // one that was damaged
			payload = append([]byte{0xd7, 0x54, 1, 0, 1}, make([]byte, 60)...)
		case 3:
			payload = []byte(`{"process_exit":{"status":1},"time":"2026-01-01T00:00:00Z"}`)
		}
		if unix.Sendto(socket, spoofed(random.Uint32(), uint16(random.Uint32()|1), payload), 0, &destination) == nil {
			sent++
		}
		if i%100 == 99 {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / 20_000)))
		}
	}
	return sent
}

// spoofed returns an IPv4 packet (RFC 791) with a UDP datagram (RFC 768, without a
// checksum) that claims to come from 10.0.0.0/8.
func spoofed(source uint32, port uint16, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	binary.BigEndian.PutUint32(p[12:], 10<<24|source&0xffffff)
	to := netip.MustParseAddr(netns.ReceiverIP).As4()
	copy(p[16:], to[:])
	binary.BigEndian.PutUint16(p[20:], port)
	binary.BigEndian.PutUint16(p[22:], 7514)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	return append(p, payload...)
}
