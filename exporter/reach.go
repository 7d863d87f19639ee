package exporter

import (
	"context"
	"fmt"
	"net/netip"

	"tetracast/internal/udp"
)

// Way is what the kernel says of the way to a destination.
type Way struct {
	Destination                // with its defaults
	Addr        netip.AddrPort // that an exporter would send to now
	Socket      SocketStats
	// SendBufferBytes is what the kernel gave, twice what was asked for or a smaller
	// limit; see socket(7).
	SendBufferBytes int
	// PathPayload is the largest payload that the path takes whole, in bytes; 0: unknown.
	PathPayload int
}

// Reach opens a socket to the destination as an exporter would, and closes it. Nothing
// is sent. The error says what is wrong with the destination, or that its name does not
// resolve, or that there is no route.
func (d Destination) Reach(ctx context.Context) (Way, error) {
	d, err := d.withDefaults()
	if err != nil {
		return Way{}, err
	}
	addrs, err := lookUp(ctx, lookup, d.Address)
	if err != nil {
		return Way{}, err
	}
	conn, addr, err := firstRoute(addrs, d.dial)
	if err != nil {
		return Way{}, err
	}
	defer func() { _ = conn.Close() }() // nothing is in it
	return Way{Destination: d, Addr: addr, Socket: conn.Stats(), SendBufferBytes: conn.SendBufferBytes(), PathPayload: conn.PathPayload()}, nil
}

// dial opens a socket to an address of the destination.
func (d *Destination) dial(addr netip.AddrPort) (*udp.Conn, error) {
	conn, err := udp.Dial(addr, d.socketOptions())
	if err != nil {
		return nil, fmt.Errorf("exporter: destination %s: %w", d.Address, err)
	}
	return conn, nil
}

func (d *Destination) socketOptions() udp.Options {
	gso := udp.Off
	if d.Format == "frame" { // only its receivers drop a repeat
		gso = switches[d.GSO]
	}
	return udp.Options{
		SendBufferBytes:    d.UDPBufferSize,
		GSO:                gso,
		ZeroCopy:           switches[d.ZeroCopy],
		BytesPerSecond:     d.MaxBytesPerSecond,
		DatagramsPerSecond: d.MaxDatagramsPerSecond,
		DontFragment:       d.Format == "frame", // its sizes are ours to choose
	}
}
