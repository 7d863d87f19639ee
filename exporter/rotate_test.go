package exporter

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRotateSourcePort: the source port changes at the interval, the stream says
// again who it is, and no event is lost.
func TestRotateSourcePort(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	synctest.Test(t, func(t *testing.T) {
		e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: conn.LocalAddr().String(), RotateSourcePort: time.Minute, ZeroCopy: "on"}}, StatsInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			_ = e.SendWire(wire(i))
			time.Sleep(3 * time.Second)
		}
		check(t, e)
		_ = e.Close()
	})
	ports, inits := map[string]bool{}, 0
	var lines []string
	buffer := make([]byte, 1<<16)
	for len(lines) < 100 {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			t.Fatalf("after %d events: %v", len(lines), err)
		}
		if text := string(buffer[:n]); strings.Contains(text, "agent_init") {
			inits++
		} else {
			lines = append(lines, text)
			ports[from.String()] = true
		}
	}
	wantLines(t, lines, 0, 100)
	if len(ports) < 4 || len(ports) > 6 || inits < len(ports) {
		t.Errorf("%d source ports and %d agent_init in five minutes", len(ports), inits)
	}
}
