package netns

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ForgeICMP returns a function that sends the sender's namespace an ICMP error about a
// datagram to that address, as the receiver's host would. mtu is the path MTU that it
// tells, where its kind tells one.
func (l *Link) ForgeICMP(to netip.AddrPort) (forge func(from netip.AddrPort, kind, code uint8, mtu int)) {
	l.t.Helper()
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Addr().Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	var fd int
	l.In(l.Receiver, func() {
		var err error
		if fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
			l.t.Fatal(err)
		}
	})
	l.t.Cleanup(func() { _ = unix.Close(fd) })
	return func(from netip.AddrPort, kind, code uint8, mtu int) {
		var target unix.Sockaddr = &unix.SockaddrInet6{Addr: from.Addr().As16()}
		if from.Addr().Is4() {
			target = &unix.SockaddrInet4{Addr: from.Addr().As4()}
		}
		if err := unix.Sendto(fd, icmpError(kind, code, mtu, from, to), 0, target); err != nil {
			l.t.Error(err)
		}
	}
}

// icmpError returns an ICMP message with the beginning of the datagram that it is
// about: RFC 792, RFC 4443. The kernel fills in the checksum of ICMPv6.
func icmpError(kind, code uint8, mtu int, from, to netip.AddrPort) []byte {
	message := []byte{kind, code, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(message[4:], uint32(mtu)) // of which ICMP uses the lower half
	const payload = 100
	four := to.Addr().Is4()
	if four {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(header[2:], 20+8+payload)
		copy(header[12:], from.Addr().AsSlice())
		copy(header[16:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		message = append(message, header...)
	} else {
		header := make([]byte, 40)
		header[0], header[6], header[7] = 0x60, unix.IPPROTO_UDP, 64
		binary.BigEndian.PutUint16(header[4:], 8+payload)
		copy(header[8:], from.Addr().AsSlice())
		copy(header[24:], to.Addr().AsSlice())
		message = append(message, header...)
	}
	message = binary.BigEndian.AppendUint16(message, from.Port())
	message = binary.BigEndian.AppendUint16(message, to.Port())
	message = binary.BigEndian.AppendUint16(message, 8+payload)
	message = append(message, make([]byte, 2+payload)...)
	if four {
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	return message
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
