package udp

import (
	"time"

	"golang.org/x/sys/unix"
)

// mtuMemory is how long a path MTU that was shrunk by ICMP stays shrunk. The
// kernel forgets its own after as long (net.ipv4.route.mtu_expires, 600 s).
const mtuMemory = 10 * time.Minute

// Headers in front of a UDP payload, in bytes: RFC 791, RFC 8200, RFC 768.
const (
	headers4 = 20 + 8
	headers6 = 40 + 8
)

// pathMTU is what is known of the largest IP packet that the path takes.
type pathMTU struct {
	bytes int       // of IP packet; 0: unknown
	until time.Time // when a shrunk one is asked for anew; zero: it is not shrunk
}

// learnMTU reads what the kernel knows: the route's MTU, or a smaller one that
// ICMP told. It never guesses upwards: a shrunk one is only asked for again
// after mtuMemory, when the kernel has forgotten it too.
func (c *Conn) learnMTU(now time.Time) {
	o := c.optionsOf()
	mtu, err := c.sys.pathMTU(c.fd, o)
	if err != nil {
		mtu = 0
	}
	if c.mtu.bytes > 0 && mtu > 0 && mtu < c.mtu.bytes {
		c.stats.shrinks.Add(1)
		c.mtu.until = now.Add(mtuMemory)
	}
	c.mtu.bytes = mtu
	c.stats.mtu.Store(int64(mtu))
	c.segmentMax = maxMessageBytes
	if mtu > 0 {
		c.segmentMax = min(maxMessageBytes, mtu-o.headers)
	}
}

// MaxPayload returns the largest UDP payload that the path takes in one packet,
// in bytes, or 0 if that is not known. It asks the kernel again when a shrunk
// path MTU has had its time; once a minute it looks again whether GSO may be used.
func (c *Conn) MaxPayload(now time.Time) int {
	if !now.Before(c.gsoDue) {
		c.chooseGSO(now)
	}
	if !c.mtu.until.IsZero() && !now.Before(c.mtu.until) {
		c.mtu = pathMTU{}
		c.learnMTU(now)
	}
	return c.PathPayload()
}

// PathPayload is MaxPayload without asking the kernel again.
func (c *Conn) PathPayload() int {
	if c.mtu.bytes == 0 {
		return 0
	}
	return min(maxMessageBytes, c.mtu.bytes-c.optionsOf().headers)
}

// MTU returns what the kernel last said of the path's MTU, in bytes of IP
// packet, or 0.
func (c *Conn) MTU() int { return c.mtu.bytes }

// familyOptions are the socket options that IPv4 and IPv6 each have of their
// own.
type familyOptions struct{ level, recvErr, discover, mtu, headers int }

func (c *Conn) optionsOf() familyOptions {
	if c.addr.Addr().Is4() {
		return familyOptions{unix.SOL_IP, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_MTU, headers4}
	}
	return familyOptions{unix.SOL_IPV6, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, headers6}
}
