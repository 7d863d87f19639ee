package udp

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSendParts: the parts arrive as one datagram, at no allocation; what cannot be
// sent is an error as Send has it; and parts in a mapping whose file was cut off are
// EFAULT, whereupon the socket goes on.
func TestSendParts(t *testing.T) {
	l, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	parts := [][]byte{[]byte("one "), nil, []byte("two "), []byte("three")}
	want := []byte("one two three")
	if err := c.SendParts(parts); err != nil {
		t.Fatal(err)
	}
	receiveAll(t, l, [][]byte{want})
	if n := testing.AllocsPerRun(10, func() { _ = c.SendParts(parts) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if err := c.SendParts([][]byte{make([]byte, 40000), make([]byte, 40000)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("80,000 bytes: %v", err)
	}
	if err := c.SendParts(make([][]byte, maxParts+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d parts: %v", maxParts+1, err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := file.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, 1<<16, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mapped) }()
	if err := c.SendParts([][]byte{want, mapped[:100]}); err != nil {
		t.Errorf("from a mapping: %v", err)
	}
	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	before := c.Stats().Datagrams
	if err := c.SendParts([][]byte{want, mapped[:100]}); !errors.Is(err, unix.EFAULT) || c.Stats().Datagrams != before {
		t.Errorf("from a mapping that was cut off: %v", err)
	}
	if err := c.SendParts(parts); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestSendPartsPaced: parts take the tokens of one datagram.
func TestSendPartsPaced(t *testing.T) {
	_, c := listenAndDial(t, "127.0.0.1:0", ListenOptions{})
	now := time.Unix(1, 0)
	c.pace = newBucket(0, 100) // one of them in a burst
	c.pace.now = func() time.Time { return now }
	parts := [][]byte{[]byte("a"), []byte("b")}
	if err := c.SendParts(parts); err != nil {
		t.Fatal(err)
	}
	var sendErr *SendError
	if err := c.SendParts(parts); !errors.As(err, &sendErr) || sendErr.Class != ErrPaced || sendErr.After <= 0 {
		t.Fatalf("the second at once: %v", err)
	}
	now = now.Add(sendErr.After + 10*time.Millisecond)
	if err := c.SendParts(parts); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}
