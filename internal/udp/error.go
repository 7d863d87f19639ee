package udp

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The classes of a send that was not taken, by what a caller can do.
var (
	// ErrWouldBlock: the socket's send buffer is full; it drains in
	// milliseconds. Or so many ICMP errors of earlier datagrams come in that no
	// send gets through between two of them.
	ErrWouldBlock = errors.New("send buffer is full")
	// ErrNoBuffers: the network device's queue is full, likewise.
	ErrNoBuffers = errors.New("device queue is full")
	// ErrTooLarge: longer than the path, or UDP itself, takes. Path MTU in
	// SendError.MTU, where the kernel knows it.
	ErrTooLarge = errors.New("datagram is too large")
	// ErrNotPermitted: refused twice by a packet filter, a full table of connections
	// or a prohibited route of this host.
	ErrNotPermitted = errors.New("not permitted by this host")
	// ErrUnreachable: there is no route, or no neighbour answers. It heals by
	// itself, or with a new socket if the own address is gone.
	ErrUnreachable = errors.New("network unreachable")
	// ErrPaced: the rate that was asked for is used up until SendError.After.
	ErrPaced = errors.New("paced")
	// ErrLinkDown: the device is down.
	ErrLinkDown = errors.New("network device is down")
)

// SendError says why a datagram was not taken.
type SendError struct {
	Class error // one of the classes above, or nil for a cause not listed
	Errno unix.Errno
	MTU   int           // of the path, in bytes of IP packet; 0: unknown
	After time.Duration // with ErrPaced: how long to wait
	Never bool          // with ErrNoBuffers: its IP fragments are more than the queue takes, though nothing else of the socket is in it
}

// Error names the class and the kernel's error.
func (e *SendError) Error() string {
	if e.Class == ErrPaced {
		return fmt.Sprintf("udp: sending: %v, try again after %v", e.Class, e.After)
	}
	if e.Class == nil {
		return fmt.Sprintf("udp: sending: %v", e.Errno)
	}
	if e.MTU > 0 {
		return fmt.Sprintf("udp: sending: %v (%v, path MTU %d bytes)", e.Class, e.Errno, e.MTU)
	}
	return fmt.Sprintf("udp: sending: %v (%v)", e.Class, e.Errno)
}

// Unwrap returns the class and the kernel's error.
func (e *SendError) Unwrap() []error {
	if e.Class == nil {
		return []error{e.Errno}
	}
	return []error{e.Class, e.Errno}
}

// classOf returns the class of an error of sendmmsg, or nil.
func classOf(errno unix.Errno) error {
	switch errno {
	case unix.EAGAIN:
		return ErrWouldBlock
	case unix.ENOBUFS, unix.ENOMEM:
		return ErrNoBuffers
	case unix.EMSGSIZE:
		return ErrTooLarge
	case unix.EPERM, unix.EACCES:
		return ErrNotPermitted
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.EADDRNOTAVAIL:
		return ErrUnreachable
	case unix.ENETDOWN:
		return ErrLinkDown
	}
	return nil
}
