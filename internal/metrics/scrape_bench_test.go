package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tetracast/datagram"
	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/metadata"
)

// nowhere is a sink that takes all.
type nowhere struct{}

func (nowhere) Write(b *sink.Batch) (int, error) { return b.Len(), nil }
func (nowhere) Close() error                     { return nil }

// fleet returns a collector that knows so many agents, each by a sealed frame with its
// agent_init.
func fleet(t testing.TB, agents int) *collector.Collector {
	t.Helper()
	key := datagram.NewKey([datagram.KeyBytes]byte{1})
	c, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Sink: nowhere{}, Keys: []*datagram.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	conn, err := net.Dial("udp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for i := range agents {
		f, err := datagram.NewFrame(datagram.FrameConfig{Stream: uint64(i + 1), Key: key})
		if err != nil {
			t.Fatal(err)
		}
		record, err := metadata.NewRecord(metadata.Facts{Hostname: fmt.Sprintf("node-%05d.fleet.example", i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b datagram.Batch
		f.SetRecord(record.Digest())
		f.PackRecord(&b, record.Line())
		for _, d := range b.Datagrams {
			if _, err := conn.Write(d); err != nil {
				t.Fatal(err)
			}
		}
		for i%100 == 99 && c.Stats(false).Agents <= i {
			time.Sleep(time.Millisecond) // the socket's buffer is small where rmem_max is
		}
	}
	return c
}

// BenchmarkScrape has a collector with 2,000 agents scraped over HTTP, as the sum of
// all and with series of each.
func BenchmarkScrape(b *testing.B) {
	c := fleet(b, 2000)
	for _, perAgent := range []bool{false, true} {
		b.Run(fmt.Sprintf("per-agent=%v", perAgent), func(b *testing.B) {
			registry := prometheus.NewRegistry()
			registry.MustRegister(NewCollector(c.Stats, 1<<20, perAgent, nil))
			handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
			request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			b.ReportAllocs()
			for b.Loop() {
				out := httptest.NewRecorder()
				handler.ServeHTTP(out, request)
				b.SetBytes(int64(out.Body.Len()))
			}
		})
	}
}
