package udp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/internal/udp/netns"
)

// TestGRO: what a GSO sender joined arrives as the datagrams it was made of,
// also with a shorter last one, whether or not the receiver takes it joined.
func TestGRO(t *testing.T) {
	for _, gro := range []Switch{Off, Auto} {
		l, err := Listen("127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 8 << 20, GRO: gro})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if gro == Auto && !l.gro {
			t.Log("this kernel has no UDP_GRO: one datagram a message")
		}
		c, err := Dial(l.LocalAddr(), Options{GSO: On})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		var sizes []int
		for i := range 64 {
			sizes = append(sizes, 700+i/32*300)
		}
		sizes = append(sizes, 5, 0, 65507, 1, 1, 1)
		datagrams := sized(sizes...)
		if sent, err := c.Send(datagrams); sent != len(datagrams) || err != nil {
			t.Fatal(sent, err)
		}
		receiveAll(t, l, datagrams)
	}
}

// TestHandOver: a socket is handed to a successor without losing what waits in
// it, as a restart does.
func TestHandOver(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 4 << 20})
	before, after := numbered(100), sized(10, 20, 30)
	if _, err := c.Send(before); err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	successor, err := FromFile(file, ListenOptions{ReceiveBufferBytes: 4 << 20})
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = successor.Close() }()
	if _, err := c.Send(after); err != nil {
		t.Fatal(err)
	}
	receiveAll(t, successor, append(before, after...))
	if successor.LocalAddr() != l.LocalAddr() {
		t.Errorf("the successor listens on %v, its predecessor on %v", successor.LocalAddr(), l.LocalAddr())
	}
}

// TestAGivenBufferIsNotCutDown: systemd, as root, gave the socket more than the
// collector, without privileges, may ask for.
func TestAGivenBufferIsNotCutDown(t *testing.T) {
	if os.Geteuid() != 0 {
		netns.SkipLoudly(t, "not root")
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	const given = 1 << 30 / 2 // more than any net.core.rmem_max
	if err := unix.SetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, given); err != nil {
		netns.SkipLoudly(t, err.Error())
	}
	var l *Listener
	done := make(chan error)
	go func() { // on a thread that ends with its goroutine, and its capabilities with it
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		var err error
		l, err = FromFile(file, ListenOptions{ReceiveBufferBytes: given + 1})
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := l.ReceiveBufferBytes(); got != given {
		t.Errorf("a receive buffer of %d bytes was given, and is now %d", given, got)
	}
}

func TestFromFileRefusesOthers(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := FromFile(file, ListenOptions{}); err == nil {
		t.Error("took /dev/null for a socket")
	}
}

// TestReusePort: several sockets share an address, each sender always reaches
// the same one, and together they get everything.
func TestReusePort(t *testing.T) {
	first, err := Listen("127.0.0.1:0", ListenOptions{ReusePort: true, ReceiveBufferBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	listeners := []*Listener{first}
	for range 3 {
		l, err := Listen(first.LocalAddr().String(), ListenOptions{ReusePort: true, ReceiveBufferBytes: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	const senders, each = 40, 10
	for range senders {
		c, err := Dial(first.LocalAddr(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if sent, err := c.Send(numbered(each)); sent != each || err != nil {
			t.Fatal(sent, err)
		}
		defer func() { _ = c.Close() }() // not before the end: a port that is free is another sender's
	}
	total, used := 0, 0
	perSender := map[string]int{}
	for i, l := range listeners {
		got := 0
		for {
			_ = l.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			batch, err := l.Receive()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got += len(batch)
			for _, d := range batch {
				perSender[fmt.Sprint(i, " ", d.Source)]++
			}
		}
		total += got
		if got > 0 {
			used++
		}
		_ = l.Close()
	}
	if total != senders*each || used < 2 || len(perSender) != senders {
		t.Errorf("%d datagrams on %d sockets, %d senders; want %d on several, %d", total, used, len(perSender), senders*each, senders)
	}
}

// TestReceiveErrors: what the kernel reports of ICMP or of a signal does not end
// the receiving, and does not slow it.
func TestReceiveErrors(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	real := l.recvmmsg
	errnos := []unix.Errno{unix.ECONNREFUSED, unix.EINTR, unix.EHOSTUNREACH, unix.ENOBUFS, unix.ENOMEM, unix.EPROTO}
	l.recvmmsg = func(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
		if len(errnos) > 0 {
			errno := errnos[0]
			errnos = errnos[1:]
			return 0, errno
		}
		return real(fd, msgs)
	}
	if _, err := c.Send(numbered(10)); err != nil {
		t.Fatal(err)
	}
	receiveAll(t, l, numbered(10))
	l.recvmmsg = func(uintptr, []mmsghdr) (int, unix.Errno) { return 0, unix.EBADF }
	if _, err := l.Receive(); !errors.Is(err, unix.EBADF) {
		t.Errorf("a socket that is none: %v", err)
	}
}

// TestTruncated: a datagram that is longer than the buffer is told as such.
func TestTruncated(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	for i := range l.iovecs {
		l.iovecs[i].SetLen(100) // a buffer that no real datagram can be longer than cannot show it
	}
	if _, err := c.Send(sized(100, 101)); err != nil {
		t.Fatal(err)
	}
	var got []bool
	for len(got) < 2 {
		batch, err := l.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch {
			if len(d.Payload) != 100 {
				t.Errorf("%d bytes", len(d.Payload))
			}
			got = append(got, d.Truncated)
		}
	}
	if got[0] || !got[1] {
		t.Errorf("truncated: %v, want false and true", got)
	}
}
