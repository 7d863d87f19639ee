package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovecAt returns the bytes of the i-th iovec from first.
func iovecAt(first *unix.Iovec, i int) []byte {
	v := unsafe.Slice(first, i+1)[i]
	return unsafe.Slice(v.Base, int(v.Len))
}

// segmentSize reads the control message.
func segmentSize(m *mmsghdr) int {
	control := (*segmentControl)(unsafe.Pointer(m.hdr.Control))
	if control.header.Level != unix.SOL_UDP || control.header.Type != unix.UDP_SEGMENT || m.hdr.Controllen != uint64(unix.CmsgSpace(2)) {
		return 0
	}
	return int(control.size)
}
