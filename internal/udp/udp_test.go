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
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	t.Fatalf("own address is a %T", sa)
	return netip.AddrPort{}
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
	if s := c.Stats(); s.Refused == 0 || s.Retried != s.Refused {
		t.Errorf("stats %+v: want some refused, all tried again", s)
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

// TestErrorsOfTheKernel: each error is told with its class, at the datagram
// that it befell, with nothing behind it offered, and nothing sent twice.
func TestErrorsOfTheKernel(t *testing.T) {
	f := func(errno unix.Errno, times int, class error) {
		t.Helper()
		_, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
		const bad = 7
		var taken []string
		left := times
		c.sendmmsg = func(_ int, msgs []mmsghdr) (int, unix.Errno) {
			for i := range msgs {
				payload := unsafeBytes(&msgs[i])
				if payload == fmt.Sprint(bad) && left > 0 {
					if i > 0 {
						return i, 0 // the kernel eats the error of a later datagram
					}
					left--
					return 0, errno
				}
				taken = append(taken, payload)
				if i == 2 {
					return 3, 0 // and takes fewer than it was offered
				}
			}
			return len(msgs), 0
		}
		var datagrams [][]byte
		for i := range 40 {
			datagrams = append(datagrams, []byte(fmt.Sprint(i)))
		}
		sent, err := c.Send(datagrams)
		if class == nil {
			if sent != 40 || err != nil {
				t.Errorf("%v once: sent %d, %v", errno, sent, err)
			}
		} else if sent != bad || !errors.Is(err, class) || !errors.Is(err, errno) {
			t.Errorf("%v: sent %d, %v; want %d and %v", errno, sent, err, bad, class)
		}
		for i, payload := range taken {
			if payload != fmt.Sprint(i) {
				t.Fatalf("%v: datagram %d is %s: one was skipped or sent twice", errno, i, payload)
			}
		}
		if len(taken) != sent {
			t.Errorf("%v: the kernel took %d, Send says %d", errno, len(taken), sent)
		}
	}
	f(unix.EAGAIN, 1, ErrWouldBlock)
	f(unix.ENOBUFS, 1, ErrNoBuffers)
	f(unix.EMSGSIZE, 1, ErrTooLarge)
	f(unix.ENETUNREACH, 1, ErrUnreachable)
	f(unix.EHOSTUNREACH, 1, ErrUnreachable)
	f(unix.ENETDOWN, 1, ErrLinkDown)
	f(unix.ECONNREFUSED, 1, nil)
	f(unix.ECONNREFUSED, 2, ErrRefused)
	f(unix.EPERM, 1, nil)
	f(unix.EPERM, 2, ErrNotPermitted)
	f(unix.EINTR, 3, nil)
	f(unix.EIO, 1, unix.EIO)
}

func unsafeBytes(m *mmsghdr) string {
	return string(bytesAt(m.hdr.Iov.Base, int(m.hdr.Iov.Len)))
}

func TestTooLarge(t *testing.T) {
	_, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	sent, err := c.Send([][]byte{[]byte("fits"), make([]byte, 65508), []byte("behind")})
	var sendErr *SendError
	if sent != 1 || !errors.Is(err, ErrTooLarge) || !errors.As(err, &sendErr) || sendErr.MTU != 65535 {
		t.Errorf("sent %d, %v", sent, err)
	}
}

// TestFullSendBuffer: a socket whose buffer is full says so at once.
func TestFullSendBuffer(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	c.sendmmsg = func(fd int, msgs []mmsghdr) (int, unix.Errno) { return 0, unix.EAGAIN }
	if sent, err := c.Send(numbered(3)); sent != 0 || !errors.Is(err, ErrWouldBlock) {
		t.Errorf("sent %d, %v", sent, err)
	}
	c.sendmmsg = sendmmsg
	if sent, err := c.Send(numbered(3)); sent != 3 || err != nil {
		t.Errorf("sent %d, %v", sent, err)
	}
	receiveAll(t, l, numbered(3))
}

// TestDropped: what the receive buffer had no room for is counted by the
// kernel, exactly.
func TestDropped(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 1})
	const all = 500
	if sent, err := c.Send(numbered(all)); sent != all || err != nil {
		t.Fatal(sent, err)
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
		for range sendBatch {
			datagrams = append(datagrams, make([]byte, size))
		}
		b.Run(fmt.Sprintf("%d/sendmmsg", size), func(b *testing.B) {
			c, err := Dial(addr.AddrPort(), Options{SendBufferBytes: 1 << 20})
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
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sendBatch), "ns/datagram")
		})
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
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sendBatch), "ns/datagram")
		})
	}
}
