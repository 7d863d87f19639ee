package udp

import (
	"time"

	"golang.org/x/sys/unix"
)

// shortQueue is what is known of a device queue that had no room for all fragments of
// a datagram. Those that found room leave for nothing: they take the room of others
// here, and for half a minute memory in the receiver's reassembly, of which there is
// little (net.ipv4.ipfrag_high_thresh, 4 MiB): then datagrams that were sent whole are
// lost there. So from then on a datagram in fragments is offered alone, and only when
// nothing of the socket is in the queue; and one as long as such that did not pass even
// so, time and again, is not offered for a while.
type shortQueue struct {
	known bool
	until time.Time // forgotten then

	never      int // payload in bytes from which on none passes; 0: not known
	neverUntil time.Time
	size       int // of the last one that did not pass when it was alone
	times      int // so often, in a row
}

// maxAlone is how often a datagram is offered alone: others may have filled the queue,
// and the caller waits in between. neverMemory is short for the same reason.
const (
	maxAlone    = 7
	neverMemory = 10 * time.Second
)

// withRoom returns how many datagrams from the front may be offered now: those before
// the next one in fragments, or that one.
func (c *Conn) withRoom(datagrams [][]byte) (n int, err *SendError) {
	for n < len(datagrams) && !c.cut(datagrams[n]) {
		n++
	}
	if n > 0 {
		return n, nil
	}
	now := time.Now()
	if !now.Before(c.short.until) {
		c.short = shortQueue{}
		return len(datagrams), nil
	}
	if c.short.never > 0 && len(datagrams[0]) >= c.short.never && now.Before(c.short.neverUntil) {
		return 0, &SendError{Class: ErrNoBuffers, Errno: unix.ENOBUFS, Never: true}
	}
	if c.unsent() > 0 {
		return 0, &SendError{Class: ErrNoBuffers, Errno: unix.ENOBUFS}
	}
	return 1, nil
}

// jam notes that the device queue had no room for a datagram in fragments, and says
// whether it never has.
func (c *Conn) jam(size int) (never bool) {
	q := &c.short
	alone := q.known // else others were before it
	if !q.known {
		*q = shortQueue{known: true, until: time.Now().Add(mtuMemory)}
	}
	if q.size != size {
		q.size, q.times = size, 0
	}
	if !alone {
		return false
	}
	if q.times++; q.times < maxAlone {
		return false
	}
	q.never, q.neverUntil, q.times = size, time.Now().Add(neverMemory), 0
	return true
}

// cut says whether IP cuts a datagram into fragments.
func (c *Conn) cut(datagram []byte) bool {
	return c.mtu.bytes > 0 && len(datagram) > c.PathPayload()
}

// unsent returns the bytes of memory of what the kernel took and the device has not
// sent yet.
func (c *Conn) unsent() int {
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}
