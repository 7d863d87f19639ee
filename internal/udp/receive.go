package udp

import (
	"context"
	"errors"
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

// receiveBatch is the most messages of one recvmmsg; with GRO a message holds
// up to maxSegments datagrams.
const receiveBatch = 32

// receiveBytes is the room for one datagram: more than UDP over IPv4 or IPv6
// without jumbograms can carry, so that no datagram is cut.
const receiveBytes = 1 << 16

// ListenOptions says how a Listener receives. The zero value is usable.
type ListenOptions struct {
	// ReceiveBufferBytes is asked for with SO_RCVBUFFORCE, and where that is not
	// permitted with SO_RCVBUF. Zero: the system's default.
	ReceiveBufferBytes int
	// GRO takes datagrams of one sender and size as the kernel has them, joined
	// in one message (UDP_GRO, Linux 5.0), and cuts them apart here: a fraction of
	// the work and of the receive buffer.
	GRO Switch
	// ReusePort lets several sockets share the address; the kernel spreads the
	// senders over them, each always to the same one.
	ReusePort bool
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
	control [receiveBatch]groControl
	buffers []byte     // receiveBatch rooms; pages that no datagram touched cost nothing
	batch   []Datagram // grows to what a call once returned
	gro     bool

	// What Receive and its callback hand each other. The callback is bound once,
	// so that a call allocates nothing.
	read  func(fd uintptr) bool
	n     int
	errno unix.Errno
	// recvmmsg is the system call; tests put faults there.
	recvmmsg func(fd uintptr, msgs []mmsghdr) (n int, errno unix.Errno)
}

// Listen binds a socket to address, host:port; port 0 takes a free one. Without
// a host it receives IPv4 and IPv6.
func Listen(address string, options ListenOptions) (*Listener, error) {
	config := net.ListenConfig{}
	if options.ReusePort {
		config.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			controlErr := raw.Control(func(fd uintptr) {
				err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
			})
			return errors.Join(controlErr, err)
		}
	}
	packet, err := config.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		return nil, fmt.Errorf("udp: listening on %q: %w", address, err)
	}
	return take(packet.(*net.UDPConn), options, setReceiveBuffer)
}

// FromFile makes a Listener of a bound UDP socket that this process was given,
// by systemd's socket activation (sd_listen_fds(3)) or by its predecessor: what
// waits in the socket is not lost in a restart. Its receive buffer is never made
// smaller. The file stays the caller's.
func FromFile(file *os.File, options ListenOptions) (*Listener, error) {
	packet, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("udp: taking over %s: %w", file.Name(), err)
	}
	conn, ok := packet.(*net.UDPConn)
	if !ok {
		_ = packet.Close()
		return nil, fmt.Errorf("udp: taking over %s: a %s socket, want UDP", file.Name(), packet.LocalAddr().Network())
	}
	return take(conn, options, growReceiveBuffer)
}

// take makes a Listener of conn, which it closes.
func take(conn *net.UDPConn, options ListenOptions, setBuffer func(fd, bytes int) error) (*Listener, error) {
	defer func() { _ = conn.Close() }()
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	file, err := conn.File() // a descriptor of our own for the same socket
	if err != nil {
		return nil, fmt.Errorf("udp: listening on %s: %w", local, err)
	}
	l := &Listener{file: file, local: local}
	if err := l.setUp(options, setBuffer); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("udp: listening on %s: %w", local, err)
	}
	return l, nil
}

// File returns a descriptor of the same socket, to hand it to a successor
// before Close. It is the caller's to close.
func (l *Listener) File() (file *os.File, err error) {
	err = l.withFD(func(fd int) error {
		duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			file = os.NewFile(uintptr(duplicate), "udp "+l.local.String())
		}
		return os.NewSyscallError("fcntl", err)
	})
	return file, err
}

func (l *Listener) setUp(options ListenOptions, setBuffer func(fd, bytes int) error) (err error) {
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return err
	}
	if want := options.ReceiveBufferBytes; want > 0 {
		if err := l.withFD(func(fd int) error { return setBuffer(fd, want) }); err != nil {
			return err
		}
	}
	if options.GRO != Off {
		err := l.withFD(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) })
		l.gro = err == nil // an older kernel: one datagram a message, as ever
	}
	l.buffers = make([]byte, receiveBatch*receiveBytes)
	for i := range l.msgs {
		l.iovecs[i].Base = &l.buffers[i*receiveBytes]
		l.iovecs[i].SetLen(receiveBytes)
		l.msgs[i].hdr.Iov = &l.iovecs[i]
		l.msgs[i].hdr.SetIovlen(1)
		l.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&l.names[i]))
	}
	l.read, l.recvmmsg = l.receive, recvmmsg
	return nil
}

func setReceiveBuffer(fd, bytes int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) == nil {
		return nil
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes))
}

// growReceiveBuffer is setReceiveBuffer for a socket that was given. It may have
// more than this process may ask for, as systemd sets ReceiveBuffer= with
// privileges: SO_RCVBUF would cut that down to net.core.rmem_max. So a socket of
// our own tells first what would come of it.
func growReceiveBuffer(fd, bytes int) error {
	trial, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(trial) }()
	if err := setReceiveBuffer(trial, bytes); err != nil {
		return err
	}
	would, err := unix.GetsockoptInt(trial, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if has, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || has >= would {
		return os.NewSyscallError("getsockopt", err)
	}
	return setReceiveBuffer(fd, bytes)
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
			return l.datagrams(), nil
		case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL, unix.ENOSYS, unix.EPERM, unix.EACCES:
			return nil, fmt.Errorf("udp: receiving: %w", os.NewSyscallError("recvmmsg", l.errno))
		}
	}
}

// receive makes one system call, and returns false if there is nothing yet.
func (l *Listener) receive(fd uintptr) bool {
	for i := range l.msgs {
		l.msgs[i].hdr.Namelen = unix.SizeofSockaddrAny
		if l.gro {
			l.msgs[i].hdr.Control = (*byte)(unsafe.Pointer(&l.control[i]))
			l.msgs[i].hdr.SetControllen(int(unsafe.Sizeof(l.control[i])))
		}
	}
	l.n, l.errno = l.recvmmsg(fd, l.msgs[:])
	return l.errno != unix.EAGAIN
}

// recvmmsg is recvmmsg(2) without blocking. On an error n is 0.
func recvmmsg(fd uintptr, msgs []mmsghdr) (n int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// datagrams returns what the last call received, joined messages cut apart.
func (l *Listener) datagrams() []Datagram {
	l.batch = l.batch[:0]
	for i := range l.n {
		start, length := i*receiveBytes, int(l.msgs[i].len)
		payload := l.buffers[start : start+length : start+receiveBytes]
		source := addrPort(&l.names[i])
		truncated := l.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0
		size := length
		if l.gro && l.msgs[i].hdr.Controllen > 0 {
			size = l.control[i].segmentSize(length)
		}
		for len(payload) > size {
			l.batch = append(l.batch, Datagram{Payload: payload[:size:size], Source: source})
			payload = payload[size:]
		}
		l.batch = append(l.batch, Datagram{Payload: payload, Source: source, Truncated: truncated})
	}
	return l.batch
}

// groControl is the control message that carries the segment size of a joined
// message.
type groControl struct {
	header unix.Cmsghdr
	size   int32
	_      [4]byte
}

// segmentSize returns the size of the datagrams in a message of that length.
func (g *groControl) segmentSize(length int) int {
	if g.header.Level != unix.SOL_UDP || g.header.Type != unix.UDP_GRO || g.size <= 0 {
		return length
	}
	return int(g.size)
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
	_ = l.withFD(func(fd int) (err error) {
		bytes, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	})
	return bytes / 2
}

// Dropped returns how many datagrams the kernel dropped because the receive
// buffer was full, since the socket was opened. It is a 32-bit counter that
// wraps.
func (l *Listener) Dropped() uint32 { return l.memory()[unix.SK_MEMINFO_DROPS] }

// Queue returns how much of the receive buffer is in use, and how large it is:
// bytes as the kernel counts them, with its own overhead, of which a datagram of
// 1,000 bytes takes 2,304.
func (l *Listener) Queue() (usedBytes, sizeBytes int) {
	info := l.memory()
	return int(info[unix.SK_MEMINFO_RMEM_ALLOC]), int(info[unix.SK_MEMINFO_RCVBUF])
}

// memory reads SO_MEMINFO (Linux 4.12); all zero where there is none.
func (l *Listener) memory() (info [unix.SK_MEMINFO_VARS]uint32) {
	_ = l.withFD(func(fd int) error {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return info
}

// Close closes the socket; what waits in it is lost.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.file.Close()
}

// withFD runs f with the descriptor.
func (l *Listener) withFD(f func(fd int) error) (err error) {
	if controlErr := l.raw.Control(func(fd uintptr) { err = f(int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}
