package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"tetracast/exporter"
	"tetracast/internal/udp"
)

// resolveTime is how long a name may take.
const resolveTime = 5 * time.Second

// destination looks at the way to a destination: name, route, path MTU, offload, buffer.
func destination(ctx context.Context, d exporter.Destination) []Finding {
	fault := func(err error, advice string) []Finding {
		return []Finding{{Fault, d.Address, err.Error(), advice}}
	}
	addrs, err := resolve(ctx, d.Address)
	if err != nil {
		return fault(err, "events wait in the queue until the name resolves")
	}
	options := udp.Options{SendBufferBytes: d.UDPBufferSize}
	if d.GSO == "off" {
		options.GSO = udp.Off
	}
	var conn *udp.Conn
	var addr netip.AddrPort
	for _, addr = range addrs { // export takes the first to which there is a route
		if conn, err = udp.Dial(addr, options); err == nil {
			break
		}
	}
	if err != nil {
		return fault(err, "events wait in the queue until there is a route")
	}
	defer func() { _ = conn.Close() }()
	stats := conn.Stats()
	path := Finding{Fine, d.Address, fmt.Sprintf("%s, %s, path MTU %d, segmentation offload %s", d.Format, addr, stats.MTU, onOff(stats.GSO)), ""}
	if payload := conn.PathPayload(); payload > 0 && d.MaxDatagram > payload && d.Format != "frame" { // frames follow the path
		path.Verdict = Note
		path.Found += fmt.Sprintf(", datagrams up to %d", d.MaxDatagram)
		path.Advice = fmt.Sprintf("longer than %d they travel as IP fragments, of which firewalls and busy receivers lose some: --fragments never, or --max-datagram", payload)
	}
	all := []Finding{path}
	// The kernel gives twice what was asked for, up to twice net.core.wmem_max; socket(7).
	if got := conn.SendBufferBytes() / 2; got < d.UDPBufferSize {
		all = append(all, Finding{Note, d.Address, fmt.Sprintf("send buffer of %d bytes, asked for %d", got, d.UDPBufferSize),
			fmt.Sprintf("sysctl -w net.core.wmem_max=%d", d.UDPBufferSize)})
	}
	return all
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// resolve returns the addresses of host:port, at least one.
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("doctor: destination %q: %w", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, fmt.Errorf("doctor: destination %q: %w", address, err)
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("doctor: destination %q: %w", address, err)
	}
	addrs := make([]netip.AddrPort, 0, len(found))
	for _, ip := range found {
		addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), uint16(number)))
	}
	return addrs, nil
}
