package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"tetracast/exporter"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
)

// sample returns the built-in recording as protobuf, and as the JSON that tetracast
// makes of it.
func sample(t *testing.T) (wires [][]byte, lines []string) {
	t.Helper()
	recording, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	transcoder, err := exporter.NewTranscoder(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for {
		wire, err := recording.Next()
		if err == io.EOF {
			return wires, lines
		}
		if err != nil {
			t.Fatal(err)
		}
		line, _, err := transcoder.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		wires, lines = append(wires, bytes.Clone(wire)), append(lines, string(line))
	}
}

// send sends what give gives for each of so many events to a destination, one after
// another when the receiver's socket is empty, so that it has room however busy the
// machine is. It returns how many events were shortened.
func send(t *testing.T, destination string, port, events int, give func(e *exporter.UDPExporter, i int)) (shortened uint64) {
	t.Helper()
	d, err := exporter.ParseDestination(destination, exporter.Destination{MaxDatagramsPerSecond: 2000, MaxBytesPerSecond: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	e, err := exporter.NewUDPExporter(exporter.Config{
		Destinations: []exporter.Destination{d}, Tetragon: &exporter.Tetragon{Version: "v1.7.0"}, DrainTimeout: time.Minute, StatsInterval: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	for i := range events {
		give(e, i)
		for deadline := time.Now().Add(patience); e.QueuedBytes() > 0 || waiting(port) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %d of %d events the receiver reads no more", i, events)
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	account := e.Account()
	s := account.Streams[0]
	if err := account.Check(); err != nil || s.Dropped.Total() > 0 || account.Dropped.Total() > 0 {
		t.Fatalf("sent %d, dropped %v, %v", s.Sent, &s.Dropped, err)
	}
	return s.Truncated
}

// compare wants each event once, in order, in the same meaning, or shortened where
// it may be.
func compare(t *testing.T, got, want []string, shortened uint64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d events arrived, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		g, w := decode(t, got[i]), decode(t, want[i])
		if g["tetracast_truncated"] != nil {
			if g["time"] != w["time"] || g["node_name"] != w["node_name"] {
				t.Fatalf("event %d is another one: %.300s", i, got[i])
			}
			shortened--
			continue
		}
		if !reflect.DeepEqual(g, w) {
			t.Fatalf("event %d: got\n%.600s\nwant\n%.600s", i, got[i], want[i])
		}
	}
	if shortened != 0 {
		t.Errorf("%d shortened events too many or too few", int64(shortened))
	}
}

func decode(t *testing.T, text string) (o map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil || d.More() {
		t.Fatalf("%v: %.200s ... %.100s", err, text, text[max(0, len(text)-100):])
	}
	return o
}

// events leaves out what is no event.
func events(lines []string) (events []string) {
	for _, line := range lines {
		if !strings.HasPrefix(line, `{"@timestamp"`) {
			events = append(events, line)
		}
	}
	return events
}

// value takes the JSON out of what Telegraf writes.
func value(t *testing.T, lines []string) (values []string) {
	t.Helper()
	for _, line := range lines {
		var metric struct {
			Fields struct {
				Value   string `json:"value"`
				Message string `json:"message"`
			} `json:"fields"`
		}
		if err := json.Unmarshal([]byte(line), &metric); err != nil {
			t.Fatal(err)
		}
		values = append(values, strings.TrimSpace(metric.Fields.Value+metric.Fields.Message))
	}
	return values
}

// body takes the JSON out of what the OpenTelemetry collector writes.
func body(t *testing.T, lines []string) (bodies []string) {
	t.Helper()
	for _, line := range lines {
		var batch struct {
			ResourceLogs []struct {
				ScopeLogs []struct {
					LogRecords []struct {
						Body       struct{ StringValue string }
						Attributes []struct {
							Key   string
							Value struct{ StringValue string }
						}
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &batch); err != nil {
			t.Fatal(err)
		}
		for _, r := range batch.ResourceLogs {
			for _, s := range r.ScopeLogs {
				for _, l := range s.LogRecords {
					text := l.Body.StringValue
					for _, a := range l.Attributes {
						if a.Key == "message" { // of the syslog receiver
							text = a.Value.StringValue
						}
					}
					bodies = append(bodies, strings.TrimSpace(text))
				}
			}
		}
	}
	return bodies
}

// lists are how each peer's output is read.
var lists = map[string]func(t *testing.T, lines []string) []string{
	"rsyslog":   func(_ *testing.T, lines []string) []string { return lines },
	"syslog-ng": func(_ *testing.T, lines []string) []string { return lines },
	"telegraf":  value,
	"otel":      body,

	"telegraf-syslog": value,
	"otel-syslog":     body,
}

// TestSample: each peer receives the whole sample with nothing but its preset, and
// the giants in it shortened to what it reads.
func TestSample(t *testing.T) {
	wires, want := sample(t)
	for _, name := range []string{"rsyslog", "syslog-ng", "telegraf", "telegraf-syslog", "otel", "otel-syslog"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			shortened := send(t, fmt.Sprintf("%s://127.0.0.1:%d", schemeOf(name), r.port), r.port, len(wires), func(e *exporter.UDPExporter, i int) { _ = e.SendWire(wires[i]) })
			got := r.events(name, len(want))
			compare(t, got, want, shortened)
			t.Logf("%d events, %d of them shortened", len(got), shortened)
		})
	}
}

// events waits for so many events, and returns them.
func (r *running) events(name string, want int) []string {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		got := events(lists[name](r.t, r.lines("events.jsonl", 1)))
		if len(got) >= want || time.Now().After(deadline) {
			return got
		}
	}
}

// TestLimits: around the length that a preset names no event is cut by the
// receiver: it comes whole, or in the form that fits.
func TestLimits(t *testing.T) {
	for _, name := range []string{"rsyslog", "syslog-ng", "telegraf", "telegraf-syslog", "otel", "otel-syslog"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			to := fmt.Sprintf("%s://127.0.0.1:%d", schemeOf(name), r.port)
			d, err := exporter.ParseDestination(to, exporter.Destination{})
			if err != nil {
				t.Fatal(err)
			}
			// Headers take up to 400 bytes: the lengths of datagrams from below the
			// limit to above it all occur.
			var want []string
			for size := d.MaxDatagram - 400; size <= d.MaxDatagram+10; size += 1 + len(want)%2 {
				event := `{"process_exec":{"process":{"exec_id":"e","binary":"/bin/x","arguments":"%s"}},"node_name":"n","time":"2026-11-24T00:00:00Z"}`
				want = append(want, strings.Replace(event, "%s", strings.Repeat("x", size-len(event)+2), 1))
			}
			shortened := send(t, to, r.port, len(want), func(e *exporter.UDPExporter, i int) { _ = e.SendJSON([]byte(want[i])) })
			if shortened == 0 || shortened == uint64(len(want)) {
				t.Errorf("%d of %d shortened: the limit is not among their lengths", shortened, len(want))
			}
			compare(t, r.events(name, len(want)), want, shortened)
			t.Logf("limit %d: %d whole, %d shortened", d.MaxDatagram, uint64(len(want))-shortened, shortened)
		})
	}
}

// TestGELF: a GELF server of another project reads flat messages, JSON in a field,
// both compressions and chunks.
func TestGELF(t *testing.T) {
	wires, want := sample(t)
	for _, options := range []string{
		"gelf-fields=one", "gelf-fields=one&gelf-compression=gzip", "gelf-fields=one&gelf-compression=zlib&max-datagram=1232",
		"gelf-full-message=true", "gelf-full-message=true&gelf-compression=zlib",
	} {
		t.Run(options, func(t *testing.T) {
			r := start(t, "graygelf")
			shortened := send(t, fmt.Sprintf("graylog://127.0.0.1:%d?%s", r.port, options), r.port, len(wires), func(e *exporter.UDPExporter, i int) { _ = e.SendWire(wires[i]) })
			got := make([]string, len(want))
			for _, line := range r.lines("events.jsonl", len(want)+1) {
				message := decode(t, line)
				if message["version"] != "1.1" || message["host"] == "" || message["short_message"] == "" {
					t.Fatalf("not GELF 1.1: %.300s", line)
				}
				text, _ := message["_event"].(string)
				if full, ok := message["full_message"].(string); ok {
					text = full
					if id, _ := message["_process.exec_id"].(string); id != "" && !strings.Contains(full, id) {
						t.Fatalf("the fields are not those of the event: %.300s", line)
					}
				}
				number, ok := message["_tetracast_seq"].(json.Number)
				if !ok {
					continue // agent_init
				}
				// What is compressed it may decompress in another order.
				if n, err := number.Int64(); err != nil || n < 1 || n > int64(len(want)) || got[n-1] != "" {
					t.Fatalf("number %s of %d", number, len(want))
				} else {
					got[n-1] = text
				}
			}
			compare(t, got, want, shortened)
			t.Logf("%d events, %d of them shortened", len(got), shortened)
		})
	}
}
