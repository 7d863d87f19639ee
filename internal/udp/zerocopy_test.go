package udp

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestZeroCopy: large messages go without a copy in user space, arrive whole,
// the completion notices come, and one that says copied turns it off.
func TestZeroCopy(t *testing.T) {
	l, err := Listen("127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := Dial(l.LocalAddr(), Options{GSO: On, ZeroCopy: On, SendBufferBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if !c.zero.on {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no SO_ZEROCOPY for UDP")
	}
	// Back to back in memory, as a packer of frames puts them.
	buffer := make([]byte, 60*1000)
	var datagrams [][]byte
	for i := range 60 {
		d := buffer[i*1000 : (i+1)*1000 : (i+1)*1000]
		copy(d, fmt.Sprint(i))
		datagrams = append(datagrams, d)
	}
	if sent, err := c.Send(datagrams); sent != len(datagrams) || err != nil {
		t.Fatal(sent, err)
	}
	if s := c.Stats(); s.ZeroCopyMessages == 0 || !s.ZeroCopy {
		t.Fatal("nothing went without a copy")
	}
	receiveAll(t, l, datagrams)
	for deadline := time.Now().Add(5 * time.Second); c.InUse(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no notice came of %d messages", c.zero.outstanding)
		}
	}
	if len(c.zero.held) != 0 {
		t.Errorf("%d datagrams are still held", len(c.zero.held))
	}
	// Loopback copies, and says so.
	if s := c.Stats(); s.ZeroCopyCopied == 0 || s.ZeroCopyCopied > s.ZeroCopyMessages || s.ZeroCopy {
		t.Errorf("copied %d of %d, still on: %v", s.ZeroCopyCopied, s.ZeroCopyMessages, s.ZeroCopy)
	}
	if _, err := c.Send(datagrams); err != nil || c.InUse() {
		t.Errorf("after it was turned off: in use %v, %v", c.InUse(), err)
	}
}

// TestZeroCopyOnlyWhereAsked: not by itself, and not for small messages.
func TestZeroCopyOnlyWhereAsked(t *testing.T) {
	l, err := Listen("127.0.0.1:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, o := range []Options{{GSO: On}, {GSO: Off, ZeroCopy: On}} {
		c, err := Dial(l.LocalAddr(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(sized(1000, 1000, 1000)); err != nil || c.Stats().ZeroCopyMessages != 0 || c.InUse() {
			t.Errorf("%+v: %d messages went without a copy, %v", o, c.Stats().ZeroCopyMessages, err)
		}
		_ = c.Close()
	}
}

// TestZeroCopyWithoutRoom: where the kernel has no room to account for pinned
// pages, the same datagrams go with a copy.
func TestZeroCopyWithoutRoom(t *testing.T) {
	kernel := &noRoom{}
	l, err := Listen("127.0.0.1:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := dial(l.LocalAddr(), Options{GSO: On, ZeroCopy: On}, kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	datagrams := sized(30000, 30000)
	sent, err := c.Send(datagrams)
	if sent != 2 || err != nil || c.Stats().ZeroCopy || c.InUse() {
		t.Errorf("sent %d, %v, still on: %v", sent, err, c.Stats().ZeroCopy)
	}
	wantTaken(t, "without room", &kernel.faulty, datagrams, sent)
}

type noRoom struct{ faulty }

func (n *noRoom) sendmmsg(fd int, msgs []mmsghdr, flags int) (int, unix.Errno) {
	if flags&unix.MSG_ZEROCOPY != 0 {
		return 0, unix.ENOBUFS
	}
	n.perCall = sendMessages
	return n.faulty.sendmmsg(fd, msgs, flags)
}

// TestRotate: another source port, and nothing lost.
func TestRotate(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	before := localAddr(t, c)
	if _, err := c.Send(sized(10, 20)); err != nil {
		t.Fatal(err)
	}
	if err := c.Rotate(); err != nil {
		t.Fatal(err)
	}
	if after := localAddr(t, c); after == before {
		t.Errorf("the source is still %v", after)
	}
	if _, err := c.Send(sized(10, 20)); err != nil {
		t.Fatal(err)
	}
	receiveAll(t, l, append(sized(10, 20), sized(10, 20)...))
}
