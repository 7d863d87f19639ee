package udp

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Fake stands where the kernel takes datagrams, in tests of what is above a [Conn]. Its
// methods are called by the owner of the Conn. The socket is a real one, to which
// nothing is written.
type Fake interface {
	// Sendmmsg is sendmmsg(2): of each message it gets the datagrams, which are valid
	// during the call. It returns how many messages were taken. On an error that is 0.
	Sendmmsg(messages [][][]byte) (taken int, errno unix.Errno)
	// PathMTU is what the kernel knows of the path, in bytes of IP packet.
	PathMTU() int
}

// DialFake is Dial with a Fake in the kernel's place.
func DialFake(addr netip.AddrPort, options Options, f Fake) (*Conn, error) {
	return dial(addr, options, &fake{to: f})
}

type fake struct{ to Fake }

func (f *fake) sendmmsg(_ int, msgs []mmsghdr, _ int) (n int, errno unix.Errno) {
	messages := make([][][]byte, len(msgs))
	for i := range msgs {
		messages[i] = datagramsOf(&msgs[i].hdr)
	}
	return f.to.Sendmmsg(messages)
}

func (f *fake) pathMTU(int, familyOptions) (int, error) { return f.to.PathMTU(), nil }

// datagramsOf returns the datagrams that a message is.
func datagramsOf(hdr *unix.Msghdr) (segments [][]byte) {
	var all []byte
	for _, v := range unsafe.Slice(hdr.Iov, int(hdr.Iovlen)) {
		all = append(all, unsafe.Slice(v.Base, int(v.Len))...)
	}
	if hdr.Control == nil {
		return [][]byte{all}
	}
	size := int((*segmentControl)(unsafe.Pointer(hdr.Control)).size)
	for ; len(all) > size; all = all[size:] {
		segments = append(segments, all[:size])
	}
	return append(segments, all)
}
