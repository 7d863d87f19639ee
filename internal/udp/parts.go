package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxParts is the most parts of a datagram that SendParts takes.
const maxParts = 16

// SendParts hands one datagram to the kernel, which puts it together from its parts,
// and never waits. Like Send it allocates nothing unless it fails, with a *SendError.
// A part whose memory is not there, as that of a mapping whose file was cut off, is
// EFAULT, and nothing was sent.
func (c *Conn) SendParts(parts [][]byte) error {
	if len(parts) == 0 || len(parts) > maxParts {
		return &SendError{Errno: unix.EMSGSIZE, Class: ErrTooLarge}
	}
	bytes := 0
	for i, p := range parts {
		c.iovecs[i].Base = unsafe.SliceData(p)
		c.iovecs[i].SetLen(len(p))
		bytes += len(p)
	}
	defer clear(c.iovecs[:len(parts)]) // the parts are not ours to keep alive
	if wait := c.pace.takeOne(bytes); wait > 0 {
		return &SendError{Class: ErrPaced, After: wait}
	}
	hdr := &c.msgs[0].hdr
	hdr.Iov, hdr.Control, hdr.Controllen = &c.iovecs[0], nil, 0
	hdr.SetIovlen(len(parts))
	c.counts[0] = 1
	var t tries
	for {
		c.stats.calls.Add(1)
		n, errno := c.sys.sendmmsg(c.fd, c.msgs[:1], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if n == 1 {
			c.stats.datagrams.Add(1)
			return nil
		}
		if errno == 0 {
			continue
		}
		if err := c.failed(errno, nil, &t, 0); err != nil {
			return err
		}
	}
}
