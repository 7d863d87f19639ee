package udp

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// rebindSpacing is the least time between two new sockets of a Conn.
const rebindSpacing = 5 * time.Second

// rebind opens a new socket if the source address of the old one is not one of
// this host's any more: a connected socket keeps its address for ever, and
// fails for ever without it. It returns true if a send may be tried again.
func (c *Conn) rebind(now time.Time) bool {
	if now.Before(c.rebindNext) {
		return false
	}
	if source, err := c.LocalAddr(); err != nil || bindable(source.Addr()) {
		return false
	}
	c.rebindNext = now.Add(rebindSpacing)
	fd, err := c.open()
	if err != nil {
		return false // there is no other address yet
	}
	c.replace(fd)
	c.stats.rebinds.Add(1)
	return true
}

// Opened returns how many sockets there have been: a change says that datagrams now
// come from another source port or address.
func (c *Conn) Opened() uint64 { return c.stats.opened.Load() }

// Rotate opens a new socket, with another source port. What the kernel has
// taken through the old one is still sent. After an error the old one stays.
func (c *Conn) Rotate() error {
	fd, err := c.open()
	if err != nil {
		return err
	}
	c.replace(fd)
	return nil
}

// replace puts fd in the place of the socket.
func (c *Conn) replace(fd int) {
	_ = unix.Close(c.fd)
	c.use(fd)
	if !c.gsoRests {
		c.chooseGSO(time.Now()) // for the devices may be others
	}
	c.setZeroCopy(c.zero.on)
	// Notices of the old socket will not come; its memory is left alone for good.
	c.zero.outstanding, c.zero.held = 0, nil
}

// LocalAddr returns the socket's own address.
func (c *Conn) LocalAddr() (netip.AddrPort, error) {
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("udp: asking for the own address: %w", os.NewSyscallError("getsockname", err))
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), uint16(name.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// bindable says whether the host has the address.
func bindable(addr netip.Addr) bool {
	family, name := sockaddr(netip.AddrPortFrom(addr, 0))
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // not known: leave the socket as it is
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Bind(fd, name) != unix.EADDRNOTAVAIL
}

// sockaddr returns the address family and the kernel's form of an address.
func sockaddr(addr netip.AddrPort) (family int, sa unix.Sockaddr) {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	sa6 := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		sa6.ZoneId = zoneID(zone)
	}
	return unix.AF_INET6, sa6
}
