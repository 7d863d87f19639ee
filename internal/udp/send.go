package udp

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sendMessages is the most messages of one sendmmsg, of which each is a
// datagram or a run of segments. Batches of 16 to 32 have all the gain there is
// (1.3 to 1.6 times a write each); larger ones only hold the processor longer.
const sendMessages = 32

// sendIovecs is the most datagrams of one sendmmsg, over all its messages.
const sendIovecs = 512

// Switch turns an offload on or off.
type Switch uint8

// The values of a Switch.
const (
	Auto Switch = iota // on where a probe and what is known of the kernel say that it works
	On
	Off
)

// Options says how a Conn sends. The zero value is usable.
type Options struct {
	// SendBufferBytes is asked for with SO_SNDBUF. Zero: the system's default.
	SendBufferBytes int
	// GSO puts runs of datagrams of one size, the last of them shorter perhaps,
	// into one message (UDP_SEGMENT, Linux 4.18). It is for datagrams of which the
	// receiver drops a repeat: when the device's queue is full they are offered
	// again, although some may have left. Auto is off on kernels that mangle such
	// messages, and where a device's queue would cut them and drop a part in silence,
	// or cannot be asked; see queueCuts.
	GSO Switch
	// ZeroCopy has the kernel read large messages from the caller's memory
	// (MSG_ZEROCOPY). Auto is off, as it does not pay; see zerocopy.go. With it,
	// memory that was sent must stay as it is until InUse returns false.
	ZeroCopy Switch
	// DontFragment sets DF: a datagram above the path MTU is ErrTooLarge instead
	// of being cut into IP fragments, of which a stranger can make any receiver
	// lose all.
	DontFragment bool
	// BytesPerSecond and DatagramsPerSecond bound the rate. Zero: no bound.
	// Beyond it Send says ErrPaced and when to try again.
	BytesPerSecond, DatagramsPerSecond int
}

// Conn is a socket connected to one address. It has one owner: its methods must
// not run at the same time, but Stats may be called by anybody.
//
// A Conn opens a new socket by itself when the source address of the old one
// was taken from the host, because such a socket never heals.
type Conn struct {
	addr     netip.AddrPort
	options  Options
	sys      system
	fd       int
	gso      bool      // in use
	gsoDue   time.Time // when it is chosen again
	gsoRests bool      // it was given up until then
	zero     zeroCopy
	pace     bucket

	// segmentMax is the largest segment that the path takes; a longer one in a
	// GSO message fails with EMSGSIZE even where a plain datagram would be cut
	// into fragments.
	segmentMax int
	mtu        pathMTU

	msgs     [sendMessages]mmsghdr
	counts   [sendMessages]int // datagrams of each message
	iovecs   [sendIovecs]unix.Iovec
	controls [sendMessages]segmentControl

	answers  Answers // since the last call of Answers
	answered bool    // there are some
	trouble  *Answer // the last of them that was not TooBig

	short shortQueue

	rebindNext time.Time
	stats      connCounters
}

// connCounters are what ConnStats is made from.
type connCounters struct {
	calls, datagrams, retried, drained              atomic.Uint64
	answers                                         [answerClasses]atomic.Uint64
	gsoMessages, gsoSegments, gsoFallbacks, rebinds atomic.Uint64
	shrinks, opened                                 atomic.Uint64
	mtu                                             atomic.Int64
	gsoOn                                           atomic.Bool
}

// ConnStats counts what a Conn did.
type ConnStats struct {
	Calls        uint64  // sendmmsg
	Datagrams    uint64  // taken by the kernel
	Retried      uint64  // times that messages were offered again, after an earlier one's error or a refusal by the host
	Drained      uint64  // entries taken from the error queue
	Answers      Answers // ICMP messages about earlier datagrams, by class
	GSOMessages  uint64  // messages of two segments and more
	GSOSegments  uint64  // datagrams in them
	GSOFallbacks uint64  // times that GSO was given up, for the socket or for a message
	Opened       uint64  // sockets: the first, and others for another source port or address
	Rebinds      uint64  // of them, those because the own address was gone
	Shrinks      uint64  // times that the path MTU became smaller
	GSO          bool    // GSO is in use
	MTU          int     // of the path as last told, in bytes of IP packet; 0: unknown

	ZeroCopyMessages uint64 // messages that the kernel was asked to read from the caller's memory
	ZeroCopyCopied   uint64 // of them, those that it says it copied all the same
	ZeroCopy         bool   // MSG_ZEROCOPY is in use
}

// Dial opens a socket to addr. Nothing is sent. The error says which call
// failed; there being no route is such an error.
func Dial(addr netip.AddrPort, options Options) (*Conn, error) {
	return dial(addr, options, kernel{})
}

func dial(addr netip.AddrPort, options Options, sys system) (*Conn, error) {
	c := &Conn{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), options: options, sys: sys}
	c.pace = newBucket(options.BytesPerSecond, options.DatagramsPerSecond)
	for i := range c.msgs {
		c.controls[i].init()
	}
	fd, err := c.open()
	if err != nil {
		return nil, err
	}
	c.use(fd)
	c.setZeroCopy(options.ZeroCopy == On)
	c.chooseGSO(time.Now())
	return c, nil
}

// open makes a connected socket.
func (c *Conn) open() (fd int, err error) {
	family, to := sockaddr(c.addr)
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("udp: opening a socket to %s: %w", c.addr, os.NewSyscallError("socket", err))
	}
	if c.options.SendBufferBytes > 0 {
		// Capped by net.core.wmem_max without an error; a smaller buffer only
		// means ErrWouldBlock earlier.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, c.options.SendBufferBytes)
	}
	o := c.optionsOf()
	// Best effort: without it a full device queue drops in silence.
	_ = unix.SetsockoptInt(fd, o.level, o.recvErr, 1)
	discover := unix.IP_PMTUDISC_DONT // IPv6's have the same numbers
	if c.options.DontFragment {
		discover = unix.IP_PMTUDISC_DO
	}
	if err := unix.SetsockoptInt(fd, o.level, o.discover, discover); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("udp: setting the path MTU discovery to %s: %w", c.addr, os.NewSyscallError("setsockopt", err))
	}
	if err := unix.Connect(fd, to); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("udp: connecting to %s: %w", c.addr, os.NewSyscallError("connect", err))
	}
	return fd, nil
}

// use makes fd the socket.
func (c *Conn) use(fd int) {
	c.fd = fd
	c.stats.opened.Add(1)
	c.learnMTU(time.Now())
}

// Send hands the datagrams to the kernel, in order, and never waits. It returns
// how many from the front were taken. If that is fewer than all, err is a
// *SendError that says why the first of the others was not: it is then the
// caller's to wait with it or to leave it out. Nothing behind it was offered.
//
// The datagrams are read during the call only. A call allocates nothing unless
// it fails.
func (c *Conn) Send(datagrams [][]byte) (sent int, err error) {
	var t tries
	for sent < len(datagrams) {
		rest := datagrams[sent:]
		if c.short.known {
			n, sendErr := c.withRoom(rest)
			if sendErr != nil {
				return sent, sendErr
			}
			rest = rest[:n]
		}
		if n, wait := c.pace.allow(rest); n < len(rest) {
			if n == 0 {
				return sent, &SendError{Class: ErrPaced, After: wait}
			}
			rest = rest[:n]
		}
		taken, errno := c.offer(rest)
		sent += taken
		c.pace.take(rest[:taken])
		c.stats.datagrams.Add(uint64(taken))
		if errno == 0 {
			continue // also after a short count
		}
		if sendErr := c.failed(errno, datagrams[sent:], &t, sent); sendErr != nil {
			return sent, sendErr
		}
	}
	return sent, nil
}

// offer makes one system call for as many datagrams as it can carry.
func (c *Conn) offer(datagrams [][]byte) (taken int, errno unix.Errno) {
	messages, _, iovecs := c.plan(datagrams)
	flags := unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	lending := c.zero.on && pays(c.msgs[:messages])
	if lending {
		flags |= unix.MSG_ZEROCOPY
	}
	c.stats.calls.Add(1)
	n, errno := c.sys.sendmmsg(c.fd, c.msgs[:messages], flags)
	if errno == 0 && n < messages {
		c.drainErrors() // the kernel forgot the error, but not what it says there
	}
	for i := range n {
		taken += c.counts[i]
		if c.counts[i] > 1 {
			c.stats.gsoMessages.Add(1)
			c.stats.gsoSegments.Add(uint64(c.counts[i]))
		}
	}
	if lending {
		c.zero.lend(n, datagrams[:taken])
		if errno == unix.ENOBUFS || errno == unix.EMSGSIZE {
			// No room to keep account of pinned pages (net.core.optmem_max), or too
			// many of them: the same again with a copy.
			c.zero.set(false)
			errno = unix.EINTR
		}
	}
	for i := range iovecs {
		c.iovecs[i].Base = nil // the datagrams are not ours to keep alive
	}
	return taken, errno
}

// maxNews is how often in a call an earlier datagram's error makes the one at hand
// be offered again: far more often than anything but a flood of ICMP asks for.
const maxNews = 32

// tries remembers what was offered again.
type tries struct {
	news  int // times that an earlier datagram's error came in between
	at    int // index of the datagram that this host did not permit
	times int // of it
}

// again counts another try at a datagram that this host did not permit, and says
// whether it is the first one.
func (t *tries) again(at int) bool {
	if t.times > 0 && t.at == at {
		return false
	}
	t.at, t.times = at, 1
	return true
}

// failed decides what an error means for the message that it befell, which
// begins with the datagram of index at. Nil: try again.
func (c *Conn) failed(errno unix.Errno, rest [][]byte, t *tries, at int) *SendError {
	switch errno {
	case unix.EINTR:
		return nil
	case unix.ENOSYS:
		c.sys = single{}
		return nil
	}
	class := classOf(errno)
	found := c.drainErrors()
	segments := c.counts[0]
	if may, must := fromICMP(errno); must || may && found.answers > 0 && !(found.tooLong && errno == unix.EMSGSIZE) {
		// An earlier datagram's fate: this one was not looked at. If it has an error
		// of its own, it meets that now that the queue is empty.
		if errno == unix.EMSGSIZE {
			c.learnMTU(time.Now())
		}
		if t.news++; t.news <= maxNews {
			c.stats.retried.Add(1)
			return nil
		}
		return &SendError{Class: ErrWouldBlock, Errno: errno} // a flood; later
	}
	switch {
	case class == ErrNotPermitted:
		// It can be a passing state of a connection table: once more.
		if t.again(at) {
			c.stats.retried.Add(1)
			return nil
		}
	case segments > 1 && (errno == unix.EIO || errno == unix.EINVAL):
		// No checksum offload on the device, or no segmentation in the kernel
		// (udp_send_skb, net/ipv4/udp.c, Linux 6.18): nothing was sent.
		c.stats.gsoFallbacks.Add(1)
		c.gsoDue = never
		c.setGSO(false)
		return nil
	case class == ErrNoBuffers && c.gso:
		// The same datagrams again, one by one. If a device cut the message, some of
		// them have left already; the receiver drops the repeat.
		c.restGSO(time.Now().Add(gsoRest))
		return nil
	case class == ErrTooLarge:
		c.learnMTU(time.Now())
		if segments > 1 {
			// A segment above the MTU: without GSO it may be sent in fragments.
			c.stats.gsoFallbacks.Add(1)
			c.segmentMax = min(c.segmentMax, len(rest[0])-1)
			return nil
		}
	case class == ErrUnreachable:
		if c.rebind(time.Now()) {
			return nil
		}
	}
	sendErr := &SendError{Class: class, Errno: errno}
	if class == ErrNoBuffers && len(rest) > 0 && c.cut(rest[0]) {
		sendErr.Never = c.jam(len(rest[0]))
	}
	if class == ErrTooLarge {
		sendErr.MTU = c.mtu.bytes
	}
	return sendErr
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
	s := &c.stats
	stats := ConnStats{
		Calls: s.calls.Load(), Datagrams: s.datagrams.Load(), Retried: s.retried.Load(), Drained: s.drained.Load(),
		GSOMessages: s.gsoMessages.Load(), GSOSegments: s.gsoSegments.Load(), GSOFallbacks: s.gsoFallbacks.Load(),
		Opened: s.opened.Load(), Rebinds: s.rebinds.Load(), Shrinks: s.shrinks.Load(), GSO: s.gsoOn.Load(), MTU: int(s.mtu.Load()),
		ZeroCopyMessages: c.zero.messages.Load(), ZeroCopyCopied: c.zero.copied.Load(), ZeroCopy: c.zero.inUse.Load(),
	}
	for class := range stats.Answers {
		stats.Answers[class] = s.answers[class].Load()
	}
	return stats
}

// Close closes the socket. What the kernel has taken is still sent.
func (c *Conn) Close() error {
	if err := unix.Close(c.fd); err != nil {
		return fmt.Errorf("udp: closing: %w", os.NewSyscallError("close", err))
	}
	return nil
}
