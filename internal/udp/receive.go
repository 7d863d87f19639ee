package udp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBatch is the most datagrams of one recvmmsg.
const receiveBatch = 32

// receiveBytes is the room for one datagram: more than UDP over IPv4 or IPv6
// without jumbograms can carry, so that no datagram is cut.
const receiveBytes = 1 << 16

// ListenOptions says how a Listener receives. The zero value is usable.
type ListenOptions struct {
	// ReceiveBufferBytes is asked for with SO_RCVBUFFORCE, and where that is not
	// permitted with SO_RCVBUF. Zero: the system's default.
	ReceiveBufferBytes int
}

// Datagram is one received datagram.
type Datagram struct {
	Payload   []byte
	Source    netip.AddrPort
	Truncated bool // it was longer than the buffer; Payload is its beginning
}

// Listener is a bound socket. Receive has one caller; the other methods are safe
// for concurrent use.
type Listener struct {
	file   *os.File // in the runtime's poller, nonblocking
	raw    syscall.RawConn
	local  netip.AddrPort
	closed atomic.Bool

	msgs    [receiveBatch]mmsghdr
	iovecs  [receiveBatch]unix.Iovec
	names   [receiveBatch]unix.RawSockaddrAny
	buffers []byte // receiveBatch rooms; pages that no datagram touched cost nothing
	batch   [receiveBatch]Datagram

	// What Receive and its callback hand each other. The callback is bound once,
	// so that a call allocates nothing.
	read  func(fd uintptr) bool
	n     int
	errno unix.Errno
}

// Listen binds a socket to address, host:port; port 0 takes a free one. Without
// a host it receives IPv4 and IPv6.
func Listen(address string, options ListenOptions) (*Listener, error) {
	packet, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", address)
	if err != nil {
		return nil, fmt.Errorf("udp: listening on %q: %w", address, err)
	}
	conn := packet.(*net.UDPConn)
	defer func() { _ = conn.Close() }()
	file, err := conn.File() // a descriptor of our own for the same socket
	if err != nil {
		return nil, fmt.Errorf("udp: listening on %q: %w", address, err)
	}
	l := &Listener{file: file, local: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	if err := l.setUp(options); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("udp: listening on %q: %w", address, err)
	}
	return l, nil
}

func (l *Listener) setUp(options ListenOptions) (err error) {
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return err
	}
	if want := options.ReceiveBufferBytes; want > 0 {
		err := l.control(func(fd int) error {
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, want) == nil {
				return nil
			}
			return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, want))
		})
		if err != nil {
			return err
		}
	}
	l.buffers = make([]byte, receiveBatch*receiveBytes)
	for i := range l.msgs {
		l.iovecs[i].Base = &l.buffers[i*receiveBytes]
		l.iovecs[i].SetLen(receiveBytes)
		l.msgs[i].hdr.Iov = &l.iovecs[i]
		l.msgs[i].hdr.SetIovlen(1)
		l.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&l.names[i]))
	}
	l.read = l.receive
	return nil
}

// Receive waits for a datagram and returns it with those that wait behind it.
// They are valid until the next call. The error is os.ErrDeadlineExceeded at the
// deadline, and os.ErrClosed after Close. Errors that the kernel reports of
// earlier datagrams are no reason to stop, and are passed over.
//
// A call allocates nothing.
func (l *Listener) Receive() ([]Datagram, error) {
	for {
		if err := l.raw.Read(l.read); err != nil {
			if l.closed.Load() {
				return nil, os.ErrClosed // the poller's own error is internal to it
			}
			return nil, err
		}
		switch l.errno {
		case 0:
			return l.take(), nil
		case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL, unix.ENOMEM:
			return nil, fmt.Errorf("udp: receiving: %w", os.NewSyscallError("recvmmsg", l.errno))
		}
	}
}

// receive makes one system call, and returns false if there is nothing yet.
func (l *Listener) receive(fd uintptr) bool {
	for i := range l.msgs {
		l.msgs[i].hdr.Namelen = unix.SizeofSockaddrAny
	}
	r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&l.msgs[0])), receiveBatch, unix.MSG_DONTWAIT, 0, 0)
	l.n, l.errno = int(r), errno
	return errno != unix.EAGAIN
}

func (l *Listener) take() []Datagram {
	for i := range l.n {
		start := i * receiveBytes
		l.batch[i] = Datagram{
			Payload:   l.buffers[start : start+int(l.msgs[i].len) : start+receiveBytes],
			Source:    addrPort(&l.names[i]),
			Truncated: l.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0,
		}
	}
	return l.batch[:l.n]
}

// addrPort reads what the kernel wrote.
func addrPort(name *unix.RawSockaddrAny) netip.AddrPort {
	switch name.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), networkOrder(&sa.Port))
	}
	return netip.AddrPort{}
}

// networkOrder reads a port, which the kernel keeps with its high byte first.
func networkOrder(port *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// SetReadDeadline ends the Receives from now on at t; the zero time never does.
func (l *Listener) SetReadDeadline(t time.Time) error { return l.file.SetReadDeadline(t) }

// LocalAddr returns the address that the socket is bound to.
func (l *Listener) LocalAddr() netip.AddrPort { return l.local }

// ReceiveBufferBytes returns the receive buffer in the terms in which it was
// asked for. The kernel keeps twice that, for its own overhead (socket(7)).
func (l *Listener) ReceiveBufferBytes() int {
	bytes := 0
	_ = l.control(func(fd int) (err error) {
		bytes, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	})
	return bytes / 2
}

// Dropped returns how many datagrams the kernel dropped because the receive
// buffer was full, since the socket was opened: SK_MEMINFO_DROPS of SO_MEMINFO,
// Linux 4.12. It is a 32-bit counter that wraps.
func (l *Listener) Dropped() uint32 {
	var info [9]uint32 // SK_MEMINFO_VARS, include/uapi/linux/sock_diag.h
	_ = l.control(func(fd int) error {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return info[8]
}

// Close closes the socket; what waits in it is lost.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.file.Close()
}

// control runs f with the descriptor.
func (l *Listener) control(f func(fd int) error) (err error) {
	if controlErr := l.raw.Control(func(fd uintptr) { err = f(int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}
