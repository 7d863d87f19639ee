package exporter

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"tetracast/transcode"
)

// connection is one over TCP on which this process hears from Tetragon. With a policy on
// tcp_sendmsg each event that Tetragon sends there is an event, which it sends there.
type connection struct {
	local, remote end
	events        atomic.Uint64 // excluded
	closedNS      atomic.Int64  // since 1970; 0: it is open
}

// end is an address as Tetragon writes it, in either of the families that a socket for
// both has it in, and a port.
type end struct {
	plain, mapped string
	port          uint32
}

func endOf(a netip.AddrPort) end {
	addr := a.Addr().Unmap().WithZone("")
	e := end{plain: addr.String(), port: uint32(a.Port())}
	if e.mapped = e.plain; addr.Is4() {
		e.mapped = netip.AddrFrom16(addr.As16()).String()
	}
	return e
}

func (e *end) is(addr []byte, port uint32) bool {
	return port == e.port && (string(addr) == e.plain || string(addr) == e.mapped)
}

// lingering is how long a closed connection's last packets may still become events.
const lingering = 10 * time.Second

// loopEvents is how many events of one connection show that there is a loop: without one
// a connection that carries others' events has none of its own.
const loopEvents = 100

// Connected notes a connection over TCP to Tetragon: from now on its hook events are
// excluded, whoever caused them; on a connection the kernel's work is done in whichever
// process just runs. The function that it returns notes the connection's end. Both are
// safe for concurrent use.
func (s *Self) Connected(local, remote netip.AddrPort) (closed func()) {
	c := &connection{local: endOf(local), remote: endOf(remote)}
	s.connecting.Lock()
	defer s.connecting.Unlock()
	var all []*connection
	if was := s.connections.Load(); was != nil {
		all = slices.DeleteFunc(slices.Clone(*was), func(c *connection) bool { return c.gone(time.Now()) })
	}
	all = append(all, c)
	s.connections.Store(&all)
	return func() { c.closedNS.CompareAndSwap(0, time.Now().UnixNano()) }
}

// Looping gets a value when an own connection's events show that Tetragon makes an event
// of each event that it sends.
func (s *Self) Looping() <-chan struct{} { return s.looping }

func (c *connection) gone(now time.Time) bool {
	closed := c.closedNS.Load()
	return closed != 0 && now.UnixNano()-closed > int64(lingering)
}

// connectionOf returns the own connection that is an argument of a hook, or nil.
func (s *Self) connectionOf(kind transcode.Kind, member []byte) (found *connection) {
	all := s.connections.Load()
	if all == nil {
		return nil
	}
	transcode.Endpoints(kind, member, func(source, destination []byte, sourcePort, destinationPort uint32) bool {
		for _, c := range *all {
			if (c.local.is(source, sourcePort) && c.remote.is(destination, destinationPort) ||
				c.remote.is(source, sourcePort) && c.local.is(destination, destinationPort)) && !c.gone(time.Now()) {
				found = c
			}
		}
		return found != nil
	})
	return found
}

// exclude counts an event of the connection.
func (s *Self) exclude(c *connection) {
	if c.events.Add(1) == loopEvents {
		select {
		case s.looping <- struct{}{}:
		default:
		}
	}
}
