package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cutsMessages says whether a queueing discipline cuts a GSO message into its
// datagrams and takes or drops each by itself. It then reports success if it took
// one, so that the sender never hears of the others: tbf_segment,
// taprio_enqueue_segmented, netem_enqueue and dualpi2_qdisc_enqueue in net/sched,
// Linux 6.18. The others take a message whole or not at all, but for cake, which
// always takes all of it.
func cutsMessages(kind string) bool {
	switch kind {
	case "tbf", "taprio", "netem", "dualpi2":
		return true
	}
	return false
}

// queueCuts says whether any device of this network namespace has a queue, or a
// queue inside of one, that cuts messages. It looks at all of them, for the route
// to a destination does not say which count: address translation may send a
// datagram out elsewhere, and behind a VLAN, a bond or a bridge the queue of the
// device below answers. To be wrong about one that is not on the way costs some
// processor time, to miss one costs datagrams of which nobody hears.
//
// It asks by rtnetlink(7), which needs no privilege. An error means that it is not
// known: a seccomp profile or a sandbox without netlink, or a table that never held
// still.
func queueCuts() (bool, error) {
	for range 3 {
		cuts, err := dumpQueues()
		if err != errDumpInterrupted {
			return cuts, err
		}
	}
	return false, errDumpInterrupted
}

var errDumpInterrupted = errors.New("udp: asking for the devices' queues: they changed meanwhile")

const sizeofTcmsg = 20

// queueRequest is a netlink message of type RTM_GETQDISC.
type queueRequest struct {
	header unix.NlMsghdr
	tcmsg  [sizeofTcmsg]byte // all zero: the queues of every device
}

// dumpQueues asks once.
func dumpQueues() (cuts bool, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("udp: asking for the devices' queues: %w", os.NewSyscallError("socket", err))
	}
	defer func() { _ = unix.Close(fd) }()
	var request queueRequest
	request.header = unix.NlMsghdr{Len: uint32(unsafe.Sizeof(request)), Type: unix.RTM_GETQDISC, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	if err := unix.Sendto(fd, bytes, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("udp: asking for the devices' queues: %w", os.NewSyscallError("sendto", err))
	}
	buffer := make([]byte, 32<<10) // what the kernel fills at most (netlink_dump, net/netlink/af_netlink.c)
	for {
		// A part of the answer is there as soon as it is asked for: there is no wait
		// that a lost message could make endless.
		n, _, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT)
		if err != nil {
			return false, fmt.Errorf("udp: asking for the devices' queues: %w", os.NewSyscallError("recvfrom", err))
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return false, fmt.Errorf("udp: asking for the devices' queues: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
				return false, errDumpInterrupted
			case m.Header.Type == unix.NLMSG_DONE:
				return cuts, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				return false, fmt.Errorf("udp: asking for the devices' queues: %w", errnoOf(m.Data))
			case m.Header.Type == unix.RTM_NEWQDISC:
				cuts = cuts || cutsMessages(queueKind(m.Data))
			}
		}
	}
}

// queueKind returns the name of the discipline that a message of type RTM_NEWQDISC
// is about: its attribute TCA_KIND. It is empty if there is none.
func queueKind(data []byte) string {
	const header = unix.SizeofRtAttr
	for rest := data[min(sizeofTcmsg, len(data)):]; len(rest) >= header; {
		length, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if length < header || length > len(rest) {
			return ""
		}
		if kind == unix.TCA_KIND {
			return unix.ByteSliceToString(rest[header:length])
		}
		rest = rest[min((length+3)&^3, len(rest)):]
	}
	return ""
}

// errnoOf returns the error that a message of type NLMSG_ERROR carries.
func errnoOf(data []byte) error {
	if len(data) < 4 {
		return unix.EINVAL
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
}
