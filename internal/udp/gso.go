package udp

import (
	"bytes"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The bounds of a GSO message. 64 is UDP_MAX_SEGMENTS up to Linux 6.8 (128
// since); the payload must also fit one UDP length.
const (
	maxSegments     = 64
	maxMessageBytes = 65507
)

// segmentControl is the control message that carries the segment size.
type segmentControl struct {
	header unix.Cmsghdr
	size   uint16
	_      [6]byte
}

func (s *segmentControl) init() {
	s.header.Level, s.header.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	s.header.SetLen(unix.CmsgLen(2))
}

// plan makes messages of the datagrams, as many as one call carries: without
// GSO one each, with it a run of one size, of which the last may be shorter. It
// copies nothing: a run has an iovec for each datagram, and datagrams that lie
// back to back in memory share one. It returns how many messages, datagrams and
// iovecs it used.
func (c *Conn) plan(datagrams [][]byte) (messages, used, iovecs int) {
	for messages < sendMessages && used < len(datagrams) && used < sendIovecs {
		n := 1
		if c.gso {
			n = c.run(datagrams[used:min(len(datagrams), sendIovecs)])
		}
		hdr := &c.msgs[messages].hdr
		hdr.Iov = &c.iovecs[iovecs]
		hdr.Control, hdr.Controllen = nil, 0
		// A lone segment must not carry the control message: some paths lose such
		// datagrams (reported for PPPoE).
		if n > 1 {
			control := &c.controls[messages]
			control.size = uint16(len(datagrams[used]))
			hdr.Control = (*byte)(unsafe.Pointer(control))
			hdr.SetControllen(unix.CmsgSpace(2))
		}
		first := iovecs
		for i, d := range datagrams[used : used+n] {
			if i > 0 && adjacent(datagrams[used+i-1], d) {
				c.iovecs[iovecs-1].Len += uint64(len(d))
				continue
			}
			c.iovecs[iovecs].Base = unsafe.SliceData(d)
			c.iovecs[iovecs].SetLen(len(d))
			iovecs++
		}
		hdr.SetIovlen(iovecs - first)
		c.counts[messages] = n
		used += n
		messages++
	}
	return messages, used, iovecs
}

// adjacent says whether b begins where a ends.
func adjacent(a, b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(a)))+uintptr(len(a)) == uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// run returns how many datagrams from the front can be the segments of one
// message.
func (c *Conn) run(datagrams [][]byte) int {
	size := len(datagrams[0])
	if size == 0 || size > c.segmentMax {
		return 1
	}
	total := size
	for n := 1; n < min(len(datagrams), maxSegments); n++ {
		next := len(datagrams[n])
		if next > size || next == 0 || total+next > maxMessageBytes {
			return n
		}
		if next < size {
			return n + 1
		}
		total += next
	}
	return min(len(datagrams), maxSegments)
}

// gsoRest is how long a socket does without GSO after a full device queue. gsoLook is
// the time between two looks at the devices' queues while there is GSO, or would be.
const (
	gsoRest = 10 * time.Minute
	gsoLook = time.Minute
)

// chooseGSO turns GSO on for the socket where it is asked for, or where it is left to
// us and nothing that is known speaks against it; and the kernel has it.
func (c *Conn) chooseGSO(now time.Time) {
	on := c.options.GSO == On
	c.gsoDue, c.gsoRests = never, false
	if c.options.GSO == Auto && gsoTrusted() {
		c.gsoDue = now.Add(gsoLook)
		cuts, err := queueCuts()
		on = !cuts && err == nil // it saves little; what it may lose, nobody would count
	}
	if on {
		_, err := unix.GetsockoptInt(c.fd, unix.SOL_UDP, unix.UDP_SEGMENT)
		on = err == nil
	}
	c.setGSO(on)
}

// restGSO turns GSO off until due, over other sockets too.
func (c *Conn) restGSO(due time.Time) {
	c.stats.gsoFallbacks.Add(1)
	c.gsoDue, c.gsoRests = due, true
	c.setGSO(false)
}

// setGSO turns GSO on or off.
func (c *Conn) setGSO(on bool) {
	c.gso = on
	c.stats.gsoOn.Store(on)
}

// never is later than anything that is due.
var never = time.Unix(1<<40, 0)

// gsoTrusted says whether this kernel's GSO may be used without being asked
// for. Linux 7.0 to 7.1.4 mangle batches of segments of one length, and the
// sender cannot see it (tailscale issue 19777, pull request 19918; fixed in
// 7.1.5).
func gsoTrusted() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	return !mangles(string(bytes.TrimRight(name.Release[:], "\x00")))
}

// mangles says whether the release is one of those.
func mangles(release string) bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return false
	}
	return major == 7 && (minor == 0 || minor == 1 && patch <= 4)
}
