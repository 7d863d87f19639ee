package collector

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/internal/corpus"
	"tetracast/internal/sink"
	"tetracast/internal/source"
)

// threadTime returns the CPU time of this thread, which other work on the machine
// does not change.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// items returns a body of events.
func items(events ...[]byte) (body []byte) {
	for _, e := range events {
		body = append(binary.AppendUvarint(body, uint64(len(e))), e...)
	}
	return body
}

var zstdWriter *zstd.Encoder

// zstdOf compresses as well as it can.
func zstdOf(t testing.TB, b []byte) []byte {
	if zstdWriter != nil {
		return zstdWriter.EncodeAll(b, nil)
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	zstdWriter = w
	return w.EncodeAll(b, nil)
}

// zlibOf compresses, as GELF has it.
func zlibOf(b []byte) []byte {
	var out bytes.Buffer
	w, _ := zlib.NewWriterLevel(&out, 9)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// field returns a field of protobuf.
func field(number int, value []byte) []byte {
	f := binary.AppendUvarint(nil, uint64(number)<<3|2)
	return append(binary.AppendUvarint(f, uint64(len(value))), value...)
}

// exec returns an event whose process has these fields.
func exec(process []byte) []byte { return field(1, field(1, process)) }

// attack is a way to have much made of few bytes.
type attack struct {
	name string
	at   func(i int) []byte // datagram i
}

// attacks returns all that were thought of, each at its best.
func attacks(t testing.TB) []attack {
	stats := func(body []byte) func(i int) []byte {
		return func(i int) []byte {
			return forgery{stream: 99, datagram: uint64(i + 1), first: 1, flags: 2, content: 0x23, body: body}.bytes()
		}
	}
	const z, s = 0x21, 0x11
	var out []attack
	// add attacks with what make makes of a size: as much as the smallest frame may
	// hold, and as much as a full one.
	add := func(name string, make func(size int) (body []byte, count int)) {
		for _, c := range []struct {
			name    string
			content byte
			squeeze func([]byte) []byte
		}{{"zstd", z, func(b []byte) []byte { return zstdOf(t, b) }}, {"s2", s, func(b []byte) []byte { return s2.EncodeBest(nil, b) }}} {
			for _, size := range []int{0, 1180} {
				best, most := []byte(nil), 0
				for raw := 100; raw < 200_000; raw += raw / 4 {
					body, count := make(raw)
					squeezed := c.squeeze(body)
					bytes := max(len(squeezed), size)
					if len(body) > 2<<10+96*bytes || count > 16+bytes/2 || len(squeezed) > 1180 {
						break
					}
					best, most = squeezed, count
				}
				if best == nil {
					continue
				}
				out = append(out, attack{fmt.Sprintf("%s %s %d", c.name, name, size), func(i int) []byte {
					return forgery{stream: 99, datagram: uint64(i + 1), first: 1 + uint64(i)*uint64(most), count: uint64(most), content: c.content, body: best, padding: max(size-len(best), 0)}.bytes()
				}})
			}
		}
	}
	repeat := func(name string, e []byte) {
		add(name, func(size int) ([]byte, int) {
			n := max(1, size/(len(e)+1))
			return bytes.Repeat(items(e), n), n
		})
	}
	one := func(name string, make func(size int) []byte) {
		add(name, func(size int) ([]byte, int) { return items(make(size)), 1 })
	}
	repeat("empty items", nil)
	repeat("garbage items", []byte{0xff})
	repeat("tiny events", exec(nil))
	repeat("20 tiny processes", field(1, bytes.Repeat(field(3, nil), 20)))
	one("args of A", func(n int) []byte { return exec(field(6, bytes.Repeat([]byte("A"), n))) })
	one("args of control", func(n int) []byte { return exec(field(6, bytes.Repeat([]byte{1}, n))) })
	one("args of quotes", func(n int) []byte { return exec(field(6, bytes.Repeat([]byte{'"'}, n))) })
	one("args of invalid", func(n int) []byte { return exec(field(6, bytes.Repeat([]byte{0xff, 'a'}, n/2))) })
	one("packed caps", func(n int) []byte { return exec(field(14, field(1, bytes.Repeat([]byte{7}, n)))) })
	one("packed unknown", func(n int) []byte { return exec(field(14, field(1, bytes.Repeat([]byte{0x7f}, n)))) })
	one("unpacked caps", func(n int) []byte { return exec(field(14, bytes.Repeat([]byte{8, 7}, n/2))) })
	one("unknown fields", func(n int) []byte { return exec(bytes.Repeat([]byte{0x98, 0x7f, 1}, n/3)) })
	one("bad order", func(n int) []byte {
		return exec(bytes.Repeat(append(field(5, []byte("a")), field(4, []byte("b"))...), n/6))
	})
	one("bad order bool", func(n int) []byte {
		return exec(bytes.Repeat([]byte{13 << 3, 1, 8 << 3, 1}, n/4))
	})
	one("joined", func(n int) []byte { // a message in pieces, which are in pieces
		m := field(5, []byte("a"))
		for range 20 {
			m = field(1, m)
		}
		return bytes.Repeat(m, n/len(m))
	})
	one("ancestors", func(n int) []byte { return field(1, bytes.Repeat(field(3, nil), n/2)) })
	one("ancestors in bad order", func(n int) []byte {
		return field(1, append(bytes.Repeat(field(3, append(field(5, nil), field(4, nil)...)), n/6), field(1, nil)...))
	})
	one("times", func(n int) []byte { return field(1, bytes.Repeat(field(3, field(8, []byte{8, 1})), n/6)) })
	one("labels", func(n int) []byte {
		var m []byte
		for i := range n / 12 {
			m = append(m, field(4, append(field(1, fmt.Appendf(nil, "%d", i*7919%100000)), field(2, nil)...))...)
		}
		return exec(field(10, m))
	})
	one("garbage", func(n int) []byte { return bytes.Repeat([]byte{0x0a, 1}, n/2) })
	const big = 1000
	out = append(out, attack{"zstd stats 250K", stats(zstdOf(t, items([]byte(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","x":"`+string(bytes.Repeat([]byte("a"), big))+`"}`))))})
	var names bytes.Buffer
	for i := range 10000 {
		fmt.Fprintf(&names, `,"%d":1`, i)
	}
	out = append(out, attack{"zstd stats names", stats(zstdOf(t, items([]byte(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","dropped":{"a":1`+names.String()+`}}`))))})
	plain := func(name string, d []byte) {
		out = append(out, attack{name, func(int) []byte { return d }})
	}
	plain("json small", []byte(`{"time":1}`))
	plain("json {}", []byte(`{}`))
	plain("ndjson {}", bytes.Repeat([]byte("{}\n"), 400))
	plain("ndjson garbage", bytes.Repeat([]byte("{\n"), 600))
	plain("json open", bytes.Repeat([]byte("{"), 1200))
	plain("json deep", append([]byte(`{"time":`), bytes.Repeat([]byte("["), 1200)...))
	plain("json breaks", append(bytes.Repeat([]byte("\n"), 1200), []byte(`{"time":"\xff"}`)...))
	plain("json stats", []byte(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","dropped":{"a":1`+names.String()[:1000]+`}}`))
	plain("json stats short", []byte(`{"@timestamp":"","event":"agent_stats"}`))
	plain("syslog", []byte(`<1>1 - - - - - [a b="c"] {"time":1}`))
	plain("gelf zeros", zlibOf(append([]byte(`{"version":"1.1","time":"`), append(bytes.Repeat([]byte("0"), 1<<20), `"}`...)...)))
	plain("gelf event", zlibOf([]byte(`{"version":"1.1","_event":"{\"time\":\"`+string(bytes.Repeat([]byte(`\"`), 1<<19))+`\"}"}`)))
	out = append(out, attack{"json init new host", func(i int) []byte {
		return fmt.Appendf(nil, `{"@timestamp":"","event":"agent_init","hostname":"%d"}`, i)
	}})
	out = append(out, attack{"frame new stream", func(i int) []byte {
		return forgery{stream: uint64(i), datagram: 1, first: 1, count: 1, body: items(nil)}.bytes()
	}})
	out = append(out, attack{"frame fragments", func(i int) []byte {
		f := forgery{stream: uint64(i), datagram: 1, first: 1, count: 1, flags: 8, body: []byte{0, 200, 1, 7}}
		return f.bytes()
	}})
	out = append(out, attack{"gelf chunks", func(i int) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{0x1e, 0x0f}, uint64(i)), 0, 2, 'a')
	}})
	return out
}

// cost is what the datagrams of an attack, or of an honest agent, come to.
type cost struct {
	perByte float64 // ns of CPU for a byte received
	output  float64 // bytes for a byte received
}

// costOf has a new collector take so many datagrams, and its sink their lines.
func costOf(t testing.TB, at func(i int) []byte, budget time.Duration, most int) (c cost) {
	collector := costCollector(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var spent time.Duration
	received, output := 0, 0
	for i := 0; spent < budget && i < most; i++ {
		batch := []packet{{Payload: at(i), Source: agentB}}
		received += len(batch[0].Payload)
		begin := threadTime()
		collector.intakes[0].take(batch)
		for block := collector.queue.take(); block != nil; block = collector.queue.take() {
			output += len(block.Text)
			lines, _ := collector.config.Sink.Write(&block.Batch)
			collector.settle(block, lines)
		}
		if i == 0 {
			received, output = 0, 0 // what is made once is no part of it
			continue
		}
		spent += threadTime() - begin
	}
	checked(t, collector)
	return cost{perByte: float64(spent) / float64(received), output: float64(output) / float64(received)}
}

// costCollector returns a collector that nothing runs.
func costCollector(t testing.TB) *Collector {
	config, err := Config{Sink: sink.NewLines(io.Discard)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector(config, newFakeSocket())
	if c.intakes[0].transcoder, err = transcoder(); err != nil {
		t.Fatal(err)
	}
	return c
}

// honest returns the full frames that the built-in recording makes.
func honest(t testing.TB, compression datagram.Compression) (full [][]byte) {
	r, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	f, err := datagram.NewFrame(datagram.FrameConfig{Stream: 5, Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	var b datagram.Batch
	for number := uint64(1); ; number++ {
		wire, err := r.Next()
		if err == io.EOF {
			break
		}
		if err := f.Pack(&b, &datagram.Event{Number: number, Wire: bytes.Clone(wire)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range b.Datagrams {
		if len(d) > 1000 {
			full = append(full, bytes.Clone(d))
		}
	}
	return full
}

// The bounds of docs/limits.md.
const (
	mostCPU    = 20       // of a byte of a full honest frame
	mostOutput = 96*8 + 4 // bytes for a byte
	freeOutput = 32 << 10 // whatever the datagram's length
)

// TestCost holds what a datagram can cause, for each byte of it, to that of a full frame
// of an honest agent: CPU on this thread, the least of several passes, and output.
func TestCost(t *testing.T) {
	measure := 0.0
	for _, compression := range []datagram.Compression{datagram.CompressionS2, datagram.CompressionZstd} {
		full := honest(t, compression)
		best := cost{perByte: 1e9}
		for range 4 { // a new collector each time: what comes again is not read again
			if c := costOf(t, func(i int) []byte { return full[i] }, time.Second, len(full)); c.perByte < best.perByte {
				best = c
			}
		}
		t.Logf("%d honest frames, %v: %.0f ns and %.0f bytes of output for a byte", len(full), compression, best.perByte, best.output)
		measure = max(measure, best.perByte)
	}
	for _, a := range attacks(t) {
		best := cost{perByte: 1e9}
		for range 4 {
			if c := costOf(t, a.at, 4*time.Millisecond, 2000); c.perByte < best.perByte {
				best = c
			}
			if best.perByte < 5*measure {
				break
			}
		}
		size := float64(len(a.at(0)))
		t.Logf("%-30s %6.0f bytes: %6.0f ns and %5.0f bytes of output for a byte", a.name, size, best.perByte, best.output)
		if best.perByte > mostCPU*measure && best.perByte*size > 5000 {
			t.Errorf("%s: %.0f ns for a byte, %.1f times an honest frame, want at most %d", a.name, best.perByte, best.perByte/measure, mostCPU)
		}
		if best.output > mostOutput+freeOutput/size {
			t.Errorf("%s: %.0f bytes of output for a byte", a.name, best.output)
		}
	}
}

// TestLineLimit: no recorded event comes near what one may become as JSON.
func TestLineLimit(t *testing.T) {
	r, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	transcoder, err := transcoder()
	if err != nil {
		t.Fatal(err)
	}
	for {
		wire, err := r.Next()
		if err == io.EOF {
			break
		}
		line, _, err := transcoder.Append(nil, wire)
		if err != nil || len(line) > lineLimit(len(wire))*3/4 {
			t.Errorf("an event of %d bytes becomes %d, may become %d: %v", len(wire), len(line), lineLimit(len(wire)), err)
		}
	}
}
