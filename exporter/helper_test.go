package exporter

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

func testLogger(to *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }

// listen returns a socket's address and a function that reads n datagrams from
// it.
func listen(t testing.TB) (read func(n int) []string, addr netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(n int) []string {
		t.Helper()
		var got []string
		buffer := make([]byte, 1<<16)
		for len(got) < n {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			length, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("after %d of %d datagrams: %v", len(got), n, err)
			}
			got = append(got, string(buffer[:length]))
		}
		return got
	}, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}
