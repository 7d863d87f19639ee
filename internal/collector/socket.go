package collector

import (
	"fmt"
	"net/netip"
	"time"

	"tetracast/internal/udp"
)

// socket is a receiver on one UDP socket.
type socket struct{ *udp.Listener }

// listen binds the socket and says what receive buffer it got.
func listen(config Config) (receiver, error) {
	l, err := udp.Listen(config.Listen, udp.ListenOptions{ReceiveBufferBytes: config.ReceiveBufferBytes})
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	effective := l.ReceiveBufferBytes()
	config.Log.Info("Listening", "address", l.LocalAddr(), "receive_buffer_bytes", effective)
	if effective < config.ReceiveBufferBytes {
		config.Log.Warn("The kernel limits the receive buffer: bursts will be lost sooner",
			"receive_buffer_bytes", effective, "asked_bytes", config.ReceiveBufferBytes,
			"hint", fmt.Sprintf("sysctl -w net.core.rmem_max=%d", config.ReceiveBufferBytes))
	}
	return socket{Listener: l}, nil
}

func (s socket) receive() ([]packet, error) { return s.Receive() }

func (s socket) setDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s socket) interrupt() { _ = s.SetReadDeadline(time.Now()) }

func (s socket) dropped() uint64 { return uint64(s.Dropped()) }

func (s socket) addr() netip.AddrPort { return s.LocalAddr() }

func (s socket) close() error { return s.Close() }
