package collector

import (
	"fmt"
	"net/netip"
	"time"

	"tetracast/internal/udp"
)

// socket is a receiver on one UDP socket.
type socket struct{ *udp.Listener }

// listen opens the sockets, or takes over those that were given, and says what
// receive buffer they got.
func listen(config Config) (sockets []receiver, err error) {
	defer func() {
		if err != nil {
			_ = receivers(sockets).close()
			sockets, err = nil, fmt.Errorf("collector: %w", err)
		}
	}()
	options := udp.ListenOptions{ReceiveBufferBytes: config.ReceiveBufferBytes, GRO: config.GRO, ReusePort: config.Sockets > 1}
	for _, file := range config.Inherited {
		l, err := udp.FromFile(file, options)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, socket{l})
	}
	for len(config.Inherited) == 0 && len(sockets) < config.Sockets {
		address := config.Listen
		if len(sockets) > 0 {
			address = sockets[0].addr().String() // port 0 is taken once
		}
		l, err := udp.Listen(address, options)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, socket{l})
	}
	first := sockets[0].(socket)
	effective := first.ReceiveBufferBytes()
	config.Log.Info("Listening", "address", first.LocalAddr(), "sockets", len(sockets), "receive_buffer_bytes", effective)
	if effective < config.ReceiveBufferBytes {
		config.Log.Warn("The kernel limits the receive buffer: bursts will be lost sooner",
			"receive_buffer_bytes", effective, "asked_bytes", config.ReceiveBufferBytes,
			"hint", fmt.Sprintf("sysctl -w net.core.rmem_max=%d", config.ReceiveBufferBytes))
	}
	return sockets, nil
}

func (s socket) receive() ([]packet, error) { return s.Receive() }

func (s socket) setDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s socket) interrupt() { _ = s.SetReadDeadline(time.Now()) }

func (s socket) dropped() uint64 { return uint64(s.Dropped()) }

func (s socket) addr() netip.AddrPort { return s.LocalAddr() }

func (s socket) close() error { return s.Close() }
