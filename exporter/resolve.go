package exporter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// The waits between two attempts to resolve a name: exponential, with full
// jitter, so that a fleet does not ask in step.
const (
	minResolveWait = 200 * time.Millisecond
	maxResolveWait = 30 * time.Second
)

// A name that was resolved is resolved again at an interval, give or take a
// tenth, and when its destination gives trouble, but not sooner than
// troubleSpacing after the last time.
const (
	resolveInterval = time.Minute
	troubleSpacing  = 5 * time.Second
)

// keepResolved gives a stream a socket as soon as its destination has an
// address, and another one when the address changes. It never stands in the way
// of an event: the socket is handed to the holder of the role, and while a name
// does not resolve the old address stays.
func (e *UDPExporter) keepResolved(ctx context.Context, s *stream) {
	current, ok := e.resolve(ctx, s)
	for ok && !isLiteral(s.Address) {
		troubled := false
		select {
		case <-ctx.Done():
			return
		case <-time.After(around(resolveInterval)):
		case <-s.trouble:
			troubled = true
			if !sleep(ctx, troubleSpacing) {
				return
			}
		}
		addrs, err := lookUp(ctx, e.config.Lookup, s.Address)
		if err != nil {
			continue // the old address is better than none
		}
		next := choose(addrs, current, troubled)
		if next == current {
			continue
		}
		conn, err := e.dial(s, next)
		if err != nil {
			continue
		}
		s.log.Info("The destination has another address", "address", next, "before", current)
		current = next
		e.adopt(s, conn)
	}
}

// resolve looks up a stream's destination until it has a socket to it, or ctx
// ends. It logs only when the cause of a failure changes.
func (e *UDPExporter) resolve(ctx context.Context, s *stream) (addr netip.AddrPort, ok bool) {
	var last string
	for wait := minResolveWait; ; wait = min(2*wait, maxResolveWait) {
		conn, addr, err := e.lookUpAndDial(ctx, s)
		if err == nil {
			if last != "" {
				s.log.Info("The destination can be reached now", "address", addr)
			}
			e.adopt(s, conn)
			return addr, true
		}
		if ctx.Err() != nil {
			return netip.AddrPort{}, false
		}
		if err.Error() != last {
			last = err.Error()
			s.log.Warn("The destination cannot be reached yet; it is tried again until it can", "cause", err)
		}
		if !sleep(ctx, rand.N(wait)) {
			return netip.AddrPort{}, false
		}
	}
}

// adopt gives a stream a socket.
func (e *UDPExporter) adopt(s *stream, conn sender) { e.order(func() { s.use(conn) }) }

// choose returns the address to use: the current one while the name still has
// it, but after trouble the one behind it in the list, so that a host with IPv4
// and IPv6, or several hosts of one name, all get their turn.
func choose(addrs []netip.AddrPort, current netip.AddrPort, troubled bool) netip.AddrPort {
	if len(addrs) == 0 {
		return current
	}
	i := slices.Index(addrs, current)
	switch {
	case i < 0:
		return addrs[0]
	case troubled:
		return addrs[(i+1)%len(addrs)]
	}
	return current
}

// around spreads a fleet's intervals by a tenth.
func around(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5) }

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// lookUpAndDial opens a socket to the first of the name's addresses to which
// there is a route.
func (e *UDPExporter) lookUpAndDial(ctx context.Context, s *stream) (conn sender, addr netip.AddrPort, err error) {
	addrs, err := lookUp(ctx, e.config.Lookup, s.Address)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return firstRoute(addrs, func(addr netip.AddrPort) (sender, error) { return e.dial(s, addr) })
}

// firstRoute dials the addresses, until there is a route to one.
func firstRoute[C any](addrs []netip.AddrPort, dial func(netip.AddrPort) (C, error)) (conn C, addr netip.AddrPort, err error) {
	var errs []error
	for _, addr := range addrs {
		conn, err := dial(addr)
		if err == nil {
			return conn, addr, nil
		}
		errs = append(errs, err)
	}
	return conn, netip.AddrPort{}, errors.Join(errs...)
}

// lookup resolves a host's name where the configuration does not say how.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// lookUp returns the addresses of host:port, IPv4 and IPv6, at least one.
func lookUp(ctx context.Context, lookup func(context.Context, string) ([]netip.Addr, error), address string) ([]netip.AddrPort, error) {
	if addr, ok := literal(address); ok {
		return []netip.AddrPort{addr}, nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("exporter: destination %s: %w", address, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("exporter: destination %s: %w", address, err)
	}
	ips, err := lookup(ctx, host)
	if err == nil && len(ips) == 0 {
		err = errors.New("the name has no address")
	}
	if err != nil {
		return nil, fmt.Errorf("exporter: destination %s: %w", address, err)
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return addrs, nil
}

// Resolve checks once that each destination's name resolves, for those who
// would rather fail at the start than wait. It changes nothing.
func (e *UDPExporter) Resolve(ctx context.Context) error {
	var errs []error
	for _, s := range e.streams() {
		if _, err := lookUp(ctx, e.config.Lookup, s.Address); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func isLiteral(address string) bool {
	_, ok := literal(address)
	return ok
}
