package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// system is the system calls that can fail in ways which this kernel will not
// show; tests put the faults there.
type system interface {
	// sendmmsg is sendmmsg(2). On an error n is 0.
	sendmmsg(fd int, msgs []mmsghdr, flags int) (n int, errno unix.Errno)
	// pathMTU returns the MTU of the path that the socket is connected along.
	pathMTU(fd int, o familyOptions) (bytes int, err error)
}

// kernel is the real thing.
type kernel struct{}

func (kernel) pathMTU(fd int, o familyOptions) (bytes int, err error) {
	return unix.GetsockoptInt(fd, o.level, o.mtu)
}

// single is a kernel, or a seccomp profile, without sendmmsg.
type single struct{ kernel }

func (single) sendmmsg(fd int, msgs []mmsghdr, flags int) (n int, errno unix.Errno) {
	for i := range msgs {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[i].hdr)), uintptr(flags))
		if errno != 0 && i == 0 {
			return 0, errno
		}
		if errno != 0 {
			return i, 0 // as sendmmsg does; but this error comes again
		}
	}
	return len(msgs), 0
}

func (kernel) sendmmsg(fd int, msgs []mmsghdr, flags int) (n int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}
