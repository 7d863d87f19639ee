package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listenAndDial(t testing.TB, address string, options ListenOptions) (*Listener, *Conn) {
	t.Helper()
	l, err := Listen(address, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c, err := Dial(l.LocalAddr(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return l, c
}

func numbered(n int) (datagrams [][]byte) {
	for i := range n {
		datagrams = append(datagrams, fmt.Appendf(nil, "datagram %d %s", i, bytes.Repeat([]byte{'.'}, i%1400)))
	}
	return datagrams
}

// receiveAll reads n datagrams and holds them against want, in order.
func receiveAll(t testing.TB, l *Listener, want [][]byte) {
	t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
	for got := 0; got < len(want); {
		batch, err := l.Receive()
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", got, len(want), err)
		}
		for _, d := range batch {
			if !bytes.Equal(d.Payload, want[got]) || d.Truncated {
				t.Fatalf("datagram %d is %.40q, truncated %v; want %.40q", got, d.Payload, d.Truncated, want[got])
			}
			got++
		}
	}
}

// TestBothWays: what is sent arrives, in order, whole, with its source.
func TestBothWays(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, c := listenAndDial(t, address, ListenOptions{ReceiveBufferBytes: 4 << 20})
		datagrams := append(numbered(300), []byte{}, bytes.Repeat([]byte{'x'}, 65507))
		sent, err := c.Send(datagrams)
		if sent != len(datagrams) || err != nil {
			t.Fatalf("%s: sent %d of %d: %v", address, sent, len(datagrams), err)
		}
		receiveAll(t, l, datagrams)
		if calls := c.Stats().Calls; calls > 12 {
			t.Errorf("%s: %d system calls for %d datagrams", address, calls, len(datagrams))
		}
		if _, err := c.Send(numbered(1)); err != nil {
			t.Fatal(err)
		}
		batch, err := l.Receive()
		if err != nil || batch[0].Source != localAddr(t, c) {
			t.Errorf("%s: source %v, want %v (%v)", address, batch[0].Source, localAddr(t, c), err)
		}
	}
}

func localAddr(t testing.TB, c *Conn) netip.AddrPort {
	t.Helper()
	addr, err := c.LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// TestClosedPort: the kernel refuses every other call; none of the refused
// datagrams is lost, for when the receiver is back the next one arrives.
func TestClosedPort(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	address := l.LocalAddr().String()
	_ = l.Close()
	for i, d := range numbered(20) {
		if sent, err := c.Send([][]byte{d}); sent != 1 || err != nil {
			t.Fatalf("datagram %d: %d, %v", i, sent, err)
		}
	}
	n, last := c.Answers()
	if s := c.Stats(); n[PortUnreachable] < 10 || s.Answers != n || s.Retried == 0 || last == nil || last.Class != PortUnreachable || last.From.String() != "127.0.0.1" {
		t.Errorf("answers %v, the last %v, stats %+v: want port unreachable by 127.0.0.1", n, last, s)
	}
	if n, last := c.Answers(); n != (Answers{}) || last != nil {
		t.Errorf("the same answers are told twice: %v, %v", n, last)
	}
	back, err := Listen(address, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = back.Close() }()
	first := [][]byte{[]byte("the first one after the receiver is back")}
	if sent, err := c.Send(first); sent != 1 || err != nil {
		t.Fatal(sent, err)
	}
	receiveAll(t, back, first)
}

func TestTooLarge(t *testing.T) {
	_, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	sent, err := c.Send([][]byte{[]byte("fits"), make([]byte, 65508), []byte("behind")})
	var sendErr *SendError
	if sent != 1 || !errors.Is(err, ErrTooLarge) || !errors.As(err, &sendErr) || sendErr.MTU != 65535 {
		t.Errorf("sent %d, %v", sent, err)
	}
}

// TestDropped: what the receive buffer had no room for is counted by the
// kernel, exactly.
func TestDropped(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 1})
	const all = 500
	if used, size := l.Queue(); used != 0 || size == 0 {
		t.Errorf("%d of %d bytes are used before anything came", used, size)
	}
	if sent, err := c.Send(numbered(all)); sent != all || err != nil {
		t.Fatal(sent, err)
	}
	// The last datagram that went in may be above the size, that is how the kernel
	// finds out.
	if used, size := l.Queue(); used < size/2 || used > 2*size {
		t.Errorf("%d of %d bytes are used after some had no room", used, size)
	}
	received := 0
	for {
		_ = l.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		batch, err := l.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		received += len(batch)
	}
	if dropped := int(l.Dropped()); dropped == 0 || received+dropped != all {
		t.Errorf("received %d, dropped %d of %d", received, dropped, all)
	}
}

func TestListenerEnds(t *testing.T) {
	l, _ := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	_ = l.SetReadDeadline(time.Now())
	if _, err := l.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	_ = l.SetReadDeadline(time.Time{})
	done := make(chan error)
	go func() {
		_, err := l.Receive()
		done <- err
	}()
	_ = l.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	l, _ := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	_, err := Listen(l.LocalAddr().String(), ListenOptions{})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a taken port: %v", err)
	}
}

func TestAllocations(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 4 << 20})
	datagrams := numbered(32)
	run := func() {
		if _, err := c.Send(datagrams); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(datagrams); {
			batch, err := l.Receive()
			if err != nil {
				t.Fatal(err)
			}
			got += len(batch)
		}
	}
	run()
	if n := testing.AllocsPerRun(50, run); n != 0 {
		t.Errorf("32 datagrams there and back cost %v allocations, want 0", n)
	}
}

const benchBatch = 64

// BenchmarkSend sets a Conn beside a write for each datagram, at three sizes,
// to a socket that nobody reads.
func BenchmarkSend(b *testing.B) {
	sink, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	addr := sink.LocalAddr().(*net.UDPAddr)
	for _, size := range []int{300, 1000, 1400} {
		var datagrams [][]byte
		for range benchBatch {
			datagrams = append(datagrams, make([]byte, size))
		}
		for _, gso := range []Switch{Off, On} {
			b.Run(fmt.Sprintf("%d/gso=%v", size, gso == On), func(b *testing.B) {
				c, err := Dial(addr.AddrPort(), Options{SendBufferBytes: 1 << 20, GSO: gso})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Send(datagrams); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchBatch), "ns/datagram")
			})
		}
		b.Run(fmt.Sprintf("%d/rival-UDPConn.Write", size), func(b *testing.B) {
			c, err := net.DialUDP("udp4", nil, addr)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			for b.Loop() {
				for _, d := range datagrams {
					if _, err := c.Write(d); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchBatch), "ns/datagram")
		})
	}
}
