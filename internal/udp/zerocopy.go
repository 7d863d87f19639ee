package udp

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// zeroCopyMin is the least mean size of the messages of a call for which the
// kernel is asked to read the caller's memory instead of copying it, in bytes.
// Pinning pages costs more than copying a small message.
const zeroCopyMin = 16 << 10

// zeroCopy is MSG_ZEROCOPY (Linux 5.0 for UDP; msg_zerocopy.rst in the kernel's
// documentation). Auto leaves it off: measured on Linux 6.18 over veth it made
// datagrams of 300 to 1,400 bytes 10 to 25 per cent dearer, and won 1.24 times
// only for runs of 64 segments on a device that segments by itself; on loopback
// the kernel copies anyway, and says so.
type zeroCopy struct {
	on          bool
	outstanding uint32 // messages whose memory the kernel may still read
	// held keeps that memory from the garbage collector.
	held [][]byte

	messages, copied atomic.Uint64
	inUse            atomic.Bool // on, for Stats
}

// setZeroCopy asks for it, and leaves it off where the kernel has none.
func (c *Conn) setZeroCopy(on bool) {
	c.zero.set(on && unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1) == nil)
}

func (z *zeroCopy) set(on bool) {
	z.on = on
	z.inUse.Store(on)
}

// InUse says whether the kernel may still read memory that was given to Send.
// Until it returns false, datagrams that were sent must stay as they are; this
// is only ever so with Options.ZeroCopy. It does not wait.
func (c *Conn) InUse() bool {
	if c.zero.outstanding > 0 {
		c.drainErrors()
	}
	return c.zero.outstanding > 0
}

// maxFragments is how many pieces of pages a message of the kernel holds at
// most by default (MAX_SKB_FRAGS, include/linux/skbuff_ref.h).
const maxFragments = 17

// pays says whether the messages of a call are large enough to be worth it, and
// lie in few enough pages.
func pays(msgs []mmsghdr) bool {
	total := 0
	for i := range msgs {
		fragments := 0
		for _, v := range unsafe.Slice(msgs[i].hdr.Iov, int(msgs[i].hdr.Iovlen)) {
			start := uintptr(unsafe.Pointer(v.Base))
			fragments += int((start+uintptr(v.Len)+pageSize-1)/pageSize - start/pageSize)
			total += int(v.Len)
		}
		if fragments > maxFragments {
			return false
		}
	}
	return total >= len(msgs)*zeroCopyMin
}

const pageSize = 4096 // larger pages only make fewer pieces

// lend notes that the kernel has taken messages without copying them.
func (z *zeroCopy) lend(messages int, datagrams [][]byte) {
	z.outstanding += uint32(messages)
	z.messages.Add(uint64(messages))
	z.held = append(z.held, datagrams...)
}

// done notes that the memory of some messages is free again. A notice that says they
// were copied turns it off, for it costs and brings nothing on this path.
func (z *zeroCopy) done(messages uint32, copied bool) {
	z.outstanding -= min(messages, z.outstanding)
	if copied {
		z.copied.Add(uint64(messages))
		z.set(false)
	}
	if z.outstanding == 0 {
		clear(z.held)
		z.held = z.held[:0]
	}
}
