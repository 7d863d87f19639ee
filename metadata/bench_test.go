package metadata

import (
	"encoding/json"
	"net"
	"os"
	"testing"
	"time"
)

// BenchmarkExport sets the cached path beside the way it replaces, where each
// export reads the hostname, builds the event and marshals it, and beside the
// bare send, which nothing that sends can beat.
func BenchmarkExport(b *testing.B) {
	send := loopback(b)
	b.Run("old-way", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			hostname, err := os.Hostname()
			if err != nil {
				hostname = Unknown
			}
			event := map[string]any{
				"@timestamp": time.Now().UTC().Format(time.RFC3339Nano), "event": "agent_init",
				"tetragon_version": "v1.7.0", "hostname": hostname, "os": "linux",
				"kernel_version": HostFacts().KernelVersion, "pid": os.Getpid(),
				"udp_destination": "127.0.0.1:7514", "udp_buffer_size": 65536, "uptime": "initialized at 0",
			}
			text, err := json.Marshal(event)
			if err != nil {
				b.Fatal(err)
			}
			send(text)
		}
	})
	b.Run("struct-each-time", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			facts := Sources{}.Read()
			facts.UDPDestination, facts.UDPBufferSize = "127.0.0.1:7514", 65536
			text, err := NewEvent(facts).ToJSON()
			if err != nil {
				b.Fatal(err)
			}
			send(text)
		}
	})
	cache := NewCache(func() Facts {
		facts := HostFacts()
		facts.UDPDestination, facts.UDPBufferSize = "127.0.0.1:7514", 65536
		return facts
	}, nil)
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, _, _ := cache.Get()
			send(r.Line())
		}
	})
	record, _, _ := cache.Get()
	b.Run("floor-bare-send", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			send(record.Line())
		}
	})
}

// loopback returns a send to a socket that nobody reads; the kernel drops what
// does not fit its queue, at the same cost for every rival.
func loopback(b *testing.B) func([]byte) {
	b.Helper()
	sink, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sink.Close() })
	conn, err := net.Dial("udp", sink.LocalAddr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return func(datagram []byte) {
		if _, err := conn.Write(datagram); err != nil {
			b.Fatal(err)
		}
	}
}
