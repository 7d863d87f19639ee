package exporter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// The waits between two attempts to resolve a name: exponential, with full
// jitter, so that a fleet does not ask in step.
const (
	minResolveWait = 200 * time.Millisecond
	maxResolveWait = 30 * time.Second
)

// resolve looks up a stream's destination until it has a socket to it. It logs
// only when the cause of a failure changes.
func (e *UDPExporter) resolve(ctx context.Context, s *stream) {
	var last string
	for wait := minResolveWait; ; wait = min(2*wait, maxResolveWait) {
		conn, err := e.lookUpAndDial(ctx, s)
		if err == nil {
			if last != "" {
				s.log.Info("The destination can be reached now")
			}
			e.mu.Lock()
			e.dialled = append(e.dialled, dialled{stream: s, conn: conn})
			e.delegate()
			e.mu.Unlock()
			return
		}
		if err.Error() != last && ctx.Err() == nil {
			last = err.Error()
			s.log.Warn("The destination cannot be reached yet; it is tried again until it can", "cause", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(wait)):
		}
	}
}

// lookUpAndDial opens a socket to the first of the name's addresses to which
// there is a route.
func (e *UDPExporter) lookUpAndDial(ctx context.Context, s *stream) (sender, error) {
	addrs, err := e.lookUp(ctx, s.Address)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, addr := range addrs {
		conn, err := s.dial(addr)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// lookUp returns the addresses of host:port.
func (e *UDPExporter) lookUp(ctx context.Context, address string) ([]netip.AddrPort, error) {
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
	ips, err := e.config.Lookup(ctx, host)
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
	for _, s := range e.worker.streams {
		if _, err := e.lookUp(ctx, s.Address); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
