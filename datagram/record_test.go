package datagram

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"
)

const preparedRecord = `{"@timestamp":"2026-11-24T08:00:00.1Z","event":"agent_init","tetragon_version":"v1.7.0","build_commit":"4d5af1b3d3e6ee0a3a0e2e0f93a1ba1b5b4dd0d6","build_date":"2026-05-04T10:11:12Z","hostname":"edge-node-01","os":"linux","kernel_version":"6.12.117","pid":4242,"udp_destination":"collector.example:7514","udp_buffer_size":65536,"uptime":"initialized at 0","labels":{"site":"fra1 \u007f"},"started_at":"2026-11-24T08:00:00.02Z"}` + "\n"

// recordPackers are the packers for which a record is more than its bytes, by what
// they do with it.
func recordPackers(t testing.TB) map[string]Packer {
	t.Helper()
	all := map[string]Packer{
		"syslog":          NewSyslog(SyslogConfig{Hostname: "edge-node-01", Stream: 7}),
		"syslog, rfc3164": NewSyslog(SyslogConfig{Hostname: "edge-node-01", Stream: 7, RFC3164: true}),
	}
	for c, name := range []string{"plain", "gzip", "zlib"} {
		for fields, as := range []string{"flat", "one"} {
			c := GELFCompression(c)
			p, err := NewGELF(GELFConfig{Host: "edge-node-01", Stream: 7, Fields: GELFFields(fields), RecordCompression: &c})
			if err != nil {
				t.Fatal(err)
			}
			all["gelf, "+as+", "+name] = p
		}
	}
	key := NewKey([KeyBytes]byte{7})
	for c := range numCompressions {
		for name, k := range map[string]*Key{"": nil, ", sealed": key} {
			p, err := NewFrame(FrameConfig{Stream: 7, Compression: CompressionS2, RecordCompression: &c, Key: k})
			if err != nil {
				t.Fatal(err)
			}
			all[fmt.Sprintf("frame, %v%s", c, name)] = p
		}
	}
	return all
}

// setLost gives a packer another figure, which its datagrams repeat.
func setLost(p Packer, n uint64) {
	switch p := p.(type) {
	case Stamper:
		p.SetDropped(n)
	case *Frame:
		p.SetSums(Sums{Seen: n, Dropped: n})
	}
}

// TestPreparedRecord: a prepared record arrives as one that is not, again and again,
// with the figures of each moment, and without an allocation.
func TestPreparedRecord(t *testing.T) {
	for name, p := range recordPackers(t) {
		t.Run(name, func(t *testing.T) {
			var b Batch
			pack := func(record string, lost uint64) []byte {
				t.Helper()
				b.Reset()
				setLost(p, lost)
				p.PackRecord(&b, []byte(record))
				if len(b.Datagrams) != 1 || b.Events[0] != 0 {
					t.Fatalf("%d datagrams", len(b.Datagrams))
				}
				return bytes.Clone(b.Datagrams[0])
			}
			plain := readRecord(t, pack(preparedRecord, 3))
			p.(Preparer).PrepareRecord([]byte(preparedRecord))
			if got := readRecord(t, pack(preparedRecord, 3)); got != plain {
				t.Errorf("prepared  %s\notherwise %s", got, plain)
			}
			for _, lost := range []uint64{0, 1, 12345, MaxNumber} {
				d := pack(preparedRecord, lost)
				if got := readRecord(t, d); !sameJSON(t, got, preparedRecord) {
					t.Errorf("after %d lost: %s", lost, got)
				}
				if mark := markIn(t, d); mark != lost && name != "syslog, rfc3164" {
					t.Errorf("after %d lost: the datagram says %d", lost, mark)
				}
			}
			other := `{"@timestamp":"2026-11-24T09:00:00Z","event":"agent_init","hostname":"other"}` + "\n"
			if got := readRecord(t, pack(other, 1)); !sameJSON(t, got, other) {
				t.Errorf("another record than the prepared one: %s", got)
			}
			if stats := `{"event":"agent_stats","hostname":"other"}` + "\n"; !sameJSON(t, readRecord(t, pack(stats, 1)), stats) {
				t.Errorf("agent_stats while a record is prepared")
			}
			record := []byte(preparedRecord)
			if n := testing.AllocsPerRun(20, func() { b.Reset(); p.PackRecord(&b, record) }); n != 0 && !raceEnabled {
				t.Errorf("%v allocations for a prepared record", n)
			}
			t.Logf("%d bytes for a line of %d", len(pack(preparedRecord, 0)), len(preparedRecord))
		})
	}
}

// readRecord returns the JSON of a datagram with a record.
func readRecord(t testing.TB, d []byte) string {
	t.Helper()
	if isFrame(d) {
		key := NewKey([KeyBytes]byte{7})
		var h Header
		text := ""
		r := NewFrameReader(FrameReaderConfig{Keys: []*Key{key}})
		body, err := r.Open(d, &h)
		if err != nil {
			r = NewFrameReader(FrameReaderConfig{})
			body, err = r.Open(d, &h)
		}
		if err == nil {
			err = r.Read(&h, body, time.Now(), func(_ uint64, item []byte) { text = string(item) })
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var message map[string]any
	d = inflated(t, d)
	at := bytes.IndexByte(d, '{')
	if at > 0 { // syslog
		return string(d[at:])
	}
	if err := json.Unmarshal(d, &message); err != nil {
		t.Fatalf("%v: %s", err, d)
	}
	for _, name := range []string{"full_message", "_event"} {
		if text, ok := message[name].(string); ok {
			return text
		}
	}
	return string(d)
}

// inflated decompresses with the standard library, which checks the checksums.
func inflated(t testing.TB, d []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	switch {
	case d[0] == 0x1f:
		r, err = gzip.NewReader(bytes.NewReader(d))
	case d[0] == 0x78:
		r, err = zlib.NewReader(bytes.NewReader(d))
	default:
		return d
	}
	if err == nil {
		d, err = io.ReadAll(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// markIn returns the figure that setLost set.
func markIn(t testing.TB, d []byte) (lost uint64) {
	t.Helper()
	if isFrame(d) {
		var h Header
		r := NewFrameReader(FrameReaderConfig{})
		if _, err := r.Open(d, &h); err != nil {
			key := NewKey([KeyBytes]byte{7})
			if _, err := NewFrameReader(FrameReaderConfig{Keys: []*Key{key}}).Open(d, &h); err != nil {
				t.Fatal(err)
			}
		}
		return h.Dropped
	}
	d = inflated(t, d)
	for _, name := range []string{`"_tetracast_dropped":`, `dropped="`} {
		if _, after, ok := bytes.Cut(d, []byte(name)); ok {
			_, _ = fmt.Sscan(string(after), &lost)
		}
	}
	return lost
}

func isFrame(d []byte) bool { return d[0] == frameMagic>>8 && d[1] == frameMagic&0xff }

func sameJSON(t testing.TB, a, b string) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	one, _ := json.Marshal(x)
	two, _ := json.Marshal(y)
	return bytes.Equal(one, two)
}

// BenchmarkPackRecord sets a prepared record beside one that each send makes anew.
func BenchmarkPackRecord(b *testing.B) {
	for name, p := range recordPackers(b) {
		for _, prepared := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/prepared=%v", name, prepared), func(b *testing.B) {
				var batch Batch
				record := []byte(preparedRecord)
				if prepared {
					p.(Preparer).PrepareRecord(record)
				} else if preparer, ok := p.(Preparer); ok {
					preparer.PrepareRecord([]byte("{}\n"))
				}
				b.ReportAllocs()
				for b.Loop() {
					batch.Reset()
					p.PackRecord(&batch, record)
				}
				b.ReportMetric(float64(len(batch.Datagrams[0])), "bytes")
			})
		}
	}
}
