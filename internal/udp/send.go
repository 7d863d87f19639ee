package udp

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendBatch is the most datagrams of one sendmmsg. Batches of 16 to 32 have all
// the gain there is (1.3 to 1.6 times a write each); larger ones only hold the
// processor longer.
const sendBatch = 32

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// Options says how a Conn sends. The zero value is usable.
type Options struct {
	// SendBufferBytes is asked for with SO_SNDBUF. Zero: the system's default.
	SendBufferBytes int
}

// Conn is a socket connected to one address. It has one owner: Send and Close
// must not run at the same time. Stats may be called by anybody.
type Conn struct {
	fd   int
	ipv6 bool
	// sendmmsg is the system call; tests put faults there.
	sendmmsg func(fd int, msgs []mmsghdr) (n int, errno unix.Errno)

	msgs   [sendBatch]mmsghdr
	iovecs [sendBatch]unix.Iovec

	calls, refused, retried, drained atomic.Uint64
}

// ConnStats counts what a Conn did.
type ConnStats struct {
	Calls   uint64 // sendmmsg
	Refused uint64 // ICMP port unreachable that a send reported
	Retried uint64 // datagrams offered a second time
	Drained uint64 // entries taken from the error queue
}

// Dial opens a socket to addr. Nothing is sent. The error says which call
// failed; there being no route is such an error.
func Dial(addr netip.AddrPort, options Options) (*Conn, error) {
	family, to := sockaddr(addr)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("udp: opening a socket to %s: %w", addr, os.NewSyscallError("socket", err))
	}
	c := &Conn{fd: fd, ipv6: family == unix.AF_INET6, sendmmsg: sendmmsg}
	if options.SendBufferBytes > 0 {
		// Capped by net.core.wmem_max without an error; a smaller buffer only
		// means ErrWouldBlock earlier.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, options.SendBufferBytes)
	}
	// Best effort: without it a full device queue drops in silence.
	_ = unix.SetsockoptInt(fd, c.level(), c.recvErr(), 1)
	if err := unix.Connect(fd, to); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("udp: connecting to %s: %w", addr, os.NewSyscallError("connect", err))
	}
	for i := range c.msgs {
		c.msgs[i].hdr.Iov = &c.iovecs[i]
		c.msgs[i].hdr.SetIovlen(1)
	}
	return c, nil
}

// Send hands the datagrams to the kernel, in order, and never waits. It returns
// how many from the front were taken. If that is fewer than all, err is a
// *SendError that says why the first of the others was not: it is then the
// caller's to wait with it or to leave it out. Nothing behind it was offered.
//
// The datagrams are read during the call only. A call allocates nothing unless
// it fails.
func (c *Conn) Send(datagrams [][]byte) (sent int, err error) {
	retried := -1 // the datagram that was offered a second time
	for sent < len(datagrams) {
		n, errno := c.offer(datagrams[sent:min(sent+sendBatch, len(datagrams))])
		sent += n
		if errno == 0 {
			continue // also after a short count: its error, if it had one, is forgotten
		}
		c.drainErrors()
		class := classOf(errno)
		if errno == unix.EINTR {
			continue
		}
		// ECONNREFUSED is news of an earlier datagram, and EPERM can be a
		// passing state of a connection table: once more.
		if (class == ErrRefused || class == ErrNotPermitted) && retried != sent {
			if class == ErrRefused {
				c.refused.Add(1)
			}
			c.retried.Add(1)
			retried = sent
			continue
		}
		sendErr := &SendError{Class: class, Errno: errno}
		if class == ErrTooLarge {
			sendErr.MTU = c.MTU()
		}
		return sent, sendErr
	}
	return sent, nil
}

// offer makes one system call for at most sendBatch datagrams.
func (c *Conn) offer(datagrams [][]byte) (n int, errno unix.Errno) {
	for i, d := range datagrams {
		c.iovecs[i].Base = unsafe.SliceData(d)
		c.iovecs[i].SetLen(len(d))
	}
	c.calls.Add(1)
	n, errno = c.sendmmsg(c.fd, c.msgs[:len(datagrams)])
	for i := range datagrams {
		c.iovecs[i].Base = nil // the datagrams are not ours to keep alive
	}
	return n, errno
}

// sendmmsg is sendmmsg(2) without blocking. On an error n is 0.
func sendmmsg(fd int, msgs []mmsghdr) (n int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// drainErrors empties the socket's error queue, which holds on to memory of
// the socket's buffer.
func (c *Conn) drainErrors() {
	var payload [1]byte
	var control [256]byte
	for range 256 { // a flood of ICMP must not keep us here
		if _, _, _, _, err := unix.Recvmsg(c.fd, payload[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
			return
		}
		c.drained.Add(1)
	}
}

// MTU returns what the kernel knows of the path's MTU, in bytes of IP packet,
// or 0.
func (c *Conn) MTU() int {
	option := unix.IP_MTU
	if c.ipv6 {
		option = unix.IPV6_MTU
	}
	mtu, err := unix.GetsockoptInt(c.fd, c.level(), option)
	if err != nil {
		return 0
	}
	return mtu
}

// SendBufferBytes returns the send buffer that the kernel gave, which is twice
// what was asked for or a smaller limit; see socket(7).
func (c *Conn) SendBufferBytes() int {
	n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return 0
	}
	return n
}

// Stats returns the counts so far.
func (c *Conn) Stats() ConnStats {
	return ConnStats{Calls: c.calls.Load(), Refused: c.refused.Load(), Retried: c.retried.Load(), Drained: c.drained.Load()}
}

// Close closes the socket. What the kernel has taken is still sent.
func (c *Conn) Close() error {
	if err := unix.Close(c.fd); err != nil {
		return fmt.Errorf("udp: closing: %w", os.NewSyscallError("close", err))
	}
	return nil
}

func (c *Conn) level() int {
	if c.ipv6 {
		return unix.SOL_IPV6
	}
	return unix.SOL_IP
}

func (c *Conn) recvErr() int {
	if c.ipv6 {
		return unix.IPV6_RECVERR
	}
	return unix.IP_RECVERR
}

// sockaddr returns the address family and the kernel's form of an address.
func sockaddr(addr netip.AddrPort) (family int, sa unix.Sockaddr) {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	sa6 := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		sa6.ZoneId = zoneID(zone)
	}
	return unix.AF_INET6, sa6
}
