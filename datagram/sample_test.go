package datagram_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
	"tetracast/transcode"
)

// sampleEvents returns the whole built-in recording, transcoded and numbered.
var sampleEvents = sync.OnceValue(func() []datagram.Event {
	recording, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		panic(err)
	}
	return eventsOf(recording)
})

// eventsOf reads a recording to its end.
func eventsOf(recording *source.Recording) (events []datagram.Event) {
	transcoder, err := exporter.NewTranscoder(4 << 20)
	if err != nil {
		panic(err)
	}
	for {
		wire, err := recording.Next()
		if err == io.EOF {
			return events
		}
		if err != nil {
			panic(err)
		}
		wire = bytes.Clone(wire)
		line, _, err := transcoder.Append(nil, wire)
		if err != nil {
			panic(err)
		}
		events = append(events, datagram.Event{Number: uint64(len(events) + 1), Line: append(line, '\n'), Wire: wire})
	}
}

// chosen are sample events that differ, one or two of each kind, none large:
// what the golden files show.
var chosen = sync.OnceValue(func() (events []datagram.Event) {
	seen := map[string]bool{}
	for _, e := range sampleEvents() {
		s, err := transcode.Scan(e.Wire)
		if err != nil {
			panic(err)
		}
		name := s.Kind.String() + string(rune('0'+s.Action))
		if !seen[name] && len(e.Line) < 6000 {
			seen[name] = true
			e.Number = uint64(len(events) + 1)
			events = append(events, e)
		}
	}
	return events
})

// pack packs the events and a record, and returns the datagrams. It uses the
// packer as a worker does: several events a batch, memory used again.
func pack(t testing.TB, p datagram.Packer, record string, events []datagram.Event) (datagrams [][]byte) {
	t.Helper()
	var b datagram.Batch
	send := func() {
		for _, d := range b.Datagrams {
			datagrams = append(datagrams, bytes.Clone(d))
		}
		if k, ok := p.(datagram.Keeper); ok {
			k.Keep()
		}
		scratch(&b)
	}
	if record != "" {
		p.PackRecord(&b, []byte(record+"\n"))
		send()
	}
	for i := range events {
		if err := p.Pack(&b, &events[i]); err != nil {
			t.Fatalf("event %d of %d bytes: %v", i, len(events[i].Line), err)
		}
		if i%10 == 9 {
			send()
		}
	}
	p.Flush(&b)
	send()
	return datagrams
}

// scratch resets the batch and overwrites its memory, which nobody may read any
// more.
func scratch(b *datagram.Batch) {
	b.Reset()
	clear(b.Grow(16 << 10))
	b.Reset()
}

const agentInit = `{"@timestamp":"2026-11-23T10:22:00.5Z","event":"agent_init","tetragon_version":"v1.7.0","hostname":"edge-node-01","os":"linux","kernel_version":"6.12.117","pid":42,"udp_destination":"192.0.2.1:7514","udp_buffer_size":65536,"uptime":"initialized at 0","started_at":"2026-11-23T10:21:59.9Z"}`

// upTo returns the events whose line is at most that long.
func upTo(bytes int, events []datagram.Event) (short []datagram.Event) {
	for _, e := range events {
		if len(e.Line) <= bytes {
			short = append(short, e)
		}
	}
	return short
}

func line(e datagram.Event) string { return strings.TrimSuffix(string(e.Line), "\n") }

// updating is what the flag of frame_page_test.go says.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

// golden compares datagrams with a file, one a line.
func golden(t *testing.T, name string, datagrams [][]byte) {
	t.Helper()
	var got bytes.Buffer
	for _, d := range datagrams {
		got.WriteString(strings.TrimSuffix(string(d), "\n") + "\n")
	}
	path := filepath.Join("testdata", name)
	if updating() {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			t.Fatalf("%s, line %d of %d: got\n%s\nwant\n%s", path, i+1, len(wantLines), at(gotLines, i), at(wantLines, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// packAllocates holds a packer to allocate nothing once its memory is there.
func packAllocates(t *testing.T, p datagram.Packer) {
	t.Helper()
	events := upTo(20000, sampleEvents())
	var b datagram.Batch
	pass := func() {
		for i := range events {
			_ = p.Pack(&b, &events[i])
		}
		p.Flush(&b)
		b.Reset()
	}
	pass() // lets the batch's memory grow to what it keeps
	if n := testing.AllocsPerRun(3, func() {
		for i := range events {
			_ = p.Pack(&b, &events[i])
			if i%32 == 31 {
				p.Flush(&b)
				b.Reset()
			}
		}
	}); n != 0 {
		t.Errorf("%d events cost %v allocations, want 0", len(events), n)
	}
}
