package udp

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Answer is what a host or a router says of an earlier datagram, by ICMP. It is a
// hint: whoever sees our datagrams can forge it, and many are never sent.
type Answer struct {
	Class      AnswerClass
	Errno      unix.Errno // what the kernel makes of it
	Type, Code uint8      // of ICMP, or ICMPv6
	From       netip.Addr // who says so; the zero Addr if that is not known
}

// AnswerClass is what an answer means for a sender.
type AnswerClass uint8

// The classes of answers. RFC 792, RFC 4443.
const (
	PortUnreachable AnswerClass = iota // nobody listens there
	Unreachable                        // another reason why it did not get there: host, network, prohibited, hops used up
	TooBig                             // the path MTU is smaller; Conn has learnt it
	OtherAnswer                        // a fault in the header, or what a later RFC adds
	answerClasses
)

// AnswerClasses are the names of the classes, by their number.
var AnswerClasses = [answerClasses]string{"port_unreachable", "unreachable", "too_big", "other"}

// Error says what was answered and by whom.
func (a *Answer) Error() string {
	protocol, from := "ICMP", ""
	if a.From.Is6() {
		protocol = "ICMPv6"
	}
	if a.From.IsValid() {
		from = " from " + a.From.String()
	}
	return fmt.Sprintf("udp: an earlier datagram was answered: %v (%s type %d, code %d%s)", a.Errno, protocol, a.Type, a.Code, from)
}

// Unwrap returns the kernel's error.
func (a *Answer) Unwrap() error { return a.Errno }

// Answers counts answers by class.
type Answers [answerClasses]uint64

// Total returns how many there are.
func (a *Answers) Total() (n uint64) {
	for _, k := range a {
		n += k
	}
	return n
}

// Answers returns what was answered since the last call, and the last answer that
// was not TooBig, or nil. It asks the kernel for nothing: answers are found when a
// send meets one.
func (c *Conn) Answers() (Answers, *Answer) {
	if !c.answered {
		return Answers{}, nil
	}
	n, last := c.answers, c.trouble
	c.answers, c.trouble, c.answered = Answers{}, nil, false
	return n, last
}

// news is what the error queue held.
type news struct {
	answers int  // entries that ICMP made
	tooLong bool // the kernel itself found a datagram longer than the path MTU
}

// maxDrain is the most entries taken from the error queue at once: more than the
// receive buffer, in which they lie, has room for by default.
const maxDrain = 1024

// drainErrors empties the socket's error queue, which holds on to memory of the
// socket's buffer. That also takes the pending error, which the next send would
// return instead of sending (sock_dequeue_err_skb, net/core/skbuff.c).
func (c *Conn) drainErrors() (found news) {
	var payload [1]byte
	var control [256]byte
	for range maxDrain { // a flood of ICMP must not keep us here
		_, n, _, _, err := unix.Recvmsg(c.fd, payload[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return found
		}
		c.stats.drained.Add(1)
		c.read(control[:n], &found)
	}
	return found
}

// read looks at an entry of the error queue.
func (c *Conn) read(control []byte, found *news) {
	for len(control) >= unix.SizeofCmsghdr {
		header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		length := int(header.Len)
		if length < unix.SizeofCmsghdr || length > len(control) {
			return
		}
		if length >= unix.CmsgLen(int(unsafe.Sizeof(unix.SockExtendedErr{}))) {
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
			switch e.Origin {
			case unix.SO_EE_ORIGIN_ZEROCOPY:
				if e.Errno == 0 {
					c.zero.done(e.Data-e.Info+1, e.Code&unix.SO_EE_CODE_ZEROCOPY_COPIED != 0)
				}
			case unix.SO_EE_ORIGIN_LOCAL:
				found.tooLong = found.tooLong || unix.Errno(e.Errno) == unix.EMSGSIZE
			case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
				found.answers++
				c.answer(e, offender(control[unix.CmsgLen(int(unsafe.Sizeof(*e))):length]))
			}
		}
		control = control[min(len(control), unix.CmsgSpace(length-unix.CmsgLen(0))):]
	}
}

// answer counts an answer.
func (c *Conn) answer(e *unix.SockExtendedErr, from netip.Addr) {
	a := Answer{Class: OtherAnswer, Errno: unix.Errno(e.Errno), Type: e.Type, Code: e.Code, From: from}
	switch a.Errno {
	case unix.ECONNREFUSED:
		a.Class = PortUnreachable
	case unix.EMSGSIZE:
		a.Class = TooBig
	case unix.EPROTO: // parameter problem
	default:
		a.Class = Unreachable
	}
	c.answers[a.Class]++
	c.answered = true
	c.stats.answers[a.Class].Add(1)
	if a.Class != TooBig {
		c.trouble = &a
	}
}

// offender reads the address of who made an ICMP message, which stands behind the
// extended error (SO_EE_OFFENDER).
func offender(sockaddr []byte) netip.Addr {
	if len(sockaddr) >= unix.SizeofSockaddrInet4 {
		switch *(*uint16)(unsafe.Pointer(&sockaddr[0])) {
		case unix.AF_INET:
			return netip.AddrFrom4([4]byte(sockaddr[4:8]))
		case unix.AF_INET6:
			if len(sockaddr) >= unix.SizeofSockaddrInet6 {
				return netip.AddrFrom16([16]byte(sockaddr[8:24])).Unmap()
			}
		}
	}
	return netip.Addr{}
}

// fromICMP says whether an error of a send can be an earlier datagram's, which ICMP
// brought (icmp_err_convert, net/ipv4/icmp.c; icmpv6_err_convert, net/ipv6/icmp.c).
// The second result says that it cannot be anything else.
func fromICMP(errno unix.Errno) (may, must bool) {
	switch errno {
	case unix.ECONNREFUSED, unix.EPROTO, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET:
		return true, true
	case unix.EMSGSIZE, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EOPNOTSUPP:
		return true, false
	}
	return false, false
}
