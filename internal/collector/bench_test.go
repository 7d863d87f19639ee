package collector

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/internal/sink"
)

// recording returns the sample recording of the shared corpus, which lies beside
// the module or where TETRACAST_CORPUS says.
func recording(t testing.TB) []byte {
	t.Helper()
	folder := cmp.Or(os.Getenv("TETRACAST_CORPUS"), filepath.Join("..", "..", "..", "shared", "corpus"))
	zipped, err := os.ReadFile(filepath.Join(folder, "sample.binpb.gz"))
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: no sample recording: %v", err)
	}
	return zipped
}

// samplePackets returns the built-in recording as the datagrams of one agent,
// without the events that fit none.
func samplePackets(t testing.TB) (packets []packet, total int) {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(recording(t)))
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(unzipped)
	for {
		size, err := binary.ReadUvarint(in)
		if err == io.EOF {
			return packets, total
		}
		wire := make([]byte, size)
		if _, err := io.ReadFull(in, wire); err != nil {
			t.Fatal(err)
		}
		var event tetragon.GetEventsResponse
		if err := proto.Unmarshal(wire, &event); err != nil {
			t.Fatal(err)
		}
		line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&event)
		if err != nil {
			t.Fatal(err)
		}
		if line = append(line, '\n'); len(line) <= datagram.MaxPayload {
			packets = append(packets, packet{Payload: line, Source: agentA})
			total += len(line)
		}
	}
}

// BenchmarkTake is what happens to the sample's events between the socket and
// the sink, in batches of 64, beside a program that checks with json.Valid and
// writes through a bufio.Writer, and beside copying the bytes, below which no
// collector can go.
func BenchmarkTake(b *testing.B) {
	packets, total := samplePackets(b)
	perEvent := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(packets)), "ns/event")
	}
	b.Run("collector", func(b *testing.B) {
		config, err := Config{Sink: sink.NewLines(io.Discard)}.withDefaults()
		if err != nil {
			b.Fatal(err)
		}
		c := newCollector(config, newFakeSocket())
		b.SetBytes(int64(total))
		b.ReportAllocs()
		for b.Loop() {
			for rest := packets; len(rest) > 0; {
				n := min(64, len(rest))
				c.intakes[0].take(rest[:n])
				rest = rest[n:]
				for c.queue.full() {
					block := c.queue.take()
					lines, _ := config.Sink.Write(&block.Batch)
					c.settle(block, lines)
				}
			}
		}
		perEvent(b)
		if a := c.Account(); a.Received != uint64(b.N*len(packets)) || a.Check() != nil {
			b.Fatalf("received %d of %d", a.Received, b.N*len(packets))
		}
	})
	b.Run("rival-json.Valid-bufio", func(b *testing.B) {
		out := bufio.NewWriter(io.Discard)
		b.SetBytes(int64(total))
		b.ReportAllocs()
		for b.Loop() {
			for i := range packets {
				if json.Valid(packets[i].Payload) {
					_, _ = out.Write(packets[i].Payload)
				}
			}
		}
		perEvent(b)
	})
	b.Run("floor-copy", func(b *testing.B) {
		dst := make([]byte, datagram.MaxPayload)
		b.SetBytes(int64(total))
		for b.Loop() {
			for i := range packets {
				copy(dst, packets[i].Payload)
			}
		}
		perEvent(b)
	})
}

// BenchmarkBlock shows what the size of a write call costs.
func BenchmarkBlock(b *testing.B) {
	for size := 1 << 10; size <= 1<<20; size *= 4 {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			out, err := sink.OpenFile(sink.FileConfig{Path: filepath.Join(b.TempDir(), "out.jsonl")})
			if err != nil {
				b.Fatal(err)
			}
			var batch sink.Batch
			batch.Add(bytes.Repeat([]byte{'x'}, size-1))
			b.SetBytes(1 << 20)
			for b.Loop() {
				for range 1 << 20 / size {
					if _, err := out.Write(&batch); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := out.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
