package collector_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/udp/impair"
	"tetracast/internal/udp/netns"
	"tetracast/ledger"
)

// formats are all ways to send.
var formats = map[string]exporter.Destination{
	"json":            {Format: "json"},
	"json_sequence":   {Format: "json", JSONSequence: true},
	"ndjson":          {Format: "ndjson"},
	"ndjson_sequence": {Format: "ndjson", JSONSequence: true, MaxShared: 1232},
	"gelf":            {Format: "gelf"},
	"gelf_one":        {Format: "gelf", GELF: datagram.GELFConfig{Fields: datagram.GELFOne}},
	"gelf_gzip":       {Format: "gelf", MaxDatagram: 8192, GELF: datagram.GELFConfig{Compression: datagram.GELFGzip, FullMessage: true}},
	"gelf_zlib":       {Format: "gelf", MaxDatagram: 8192, GELF: datagram.GELFConfig{Compression: datagram.GELFZlib, Fields: datagram.GELFOne}},
	"syslog":          {Format: "syslog"},
	"syslog_bom":      {Format: "syslog", Syslog: datagram.SyslogConfig{BOM: true}},
	"syslog_3164":     {Format: "syslog", Syslog: datagram.SyslogConfig{RFC3164: true}},
	"frame":           {Format: "frame"},
	"frame_json":      {Format: "frame", FrameJSON: true, Compression: datagram.CompressionZstd},
}

// TestFormats sends the sample in every format to a collector that is told none:
// each event arrives once, as it was, and both accounts close.
func TestFormats(t *testing.T) {
	events := sampleEvents(t)
	transcoder, err := newTranscoder()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, wire := range events {
		line, _, err := transcoder.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(line))
	}
	for _, name := range slices.Sorted(maps.Keys(formats)) {
		t.Run(name, netns.Twice(func(t *testing.T) (lost string) {
			r := newRig(t, formats[name], "127.0.0.1:0", func(address string) string { return address }, here, here)
			r.send(events, 1)
			e, c := r.end()
			if c.Observed.SocketDropped > 0 {
				return "the collector's socket lost datagrams"
			}
			if c.Closes == nil || !*c.Closes || c.Received != uint64(len(events)) || c.Undecodable.Total() > 0 {
				t.Fatalf("account %+v of %d events", c, len(events)) // a writer that was given up may still write
			}
			s := e.Streams[0]
			agent := c.Agents[0]
			if agent.Hostname == "" || len(c.Agents) != 1 || len(agent.Streams) != 1 || *agent.Streams[0].Missing != 0 || agent.Streams[0].Stream != s.Stream {
				t.Errorf("agents %+v", c.Agents)
			}
			var got []string
			shortened := 0
			for _, line := range r.lines.text {
				if strings.HasPrefix(line, `{"@timestamp"`) {
					continue // agent_init, agent_stats
				}
				if formats[name].JSONSequence {
					at := strings.LastIndex(line, `,"tetracast":`)
					line = line[:at] + "}"
				}
				if strings.Contains(line, `"tetracast_truncated":`) || strings.Contains(line, `"_tetracast_cut_fields":`) {
					shortened++
				}
				got = append(got, line)
			}
			if len(got) != len(want) || uint64(shortened) != s.Truncated && name != "gelf" {
				t.Fatalf("%d lines, want %d; %d shortened, the sender says %d", len(got), len(want), shortened, s.Truncated)
			}
			for i, line := range got {
				if name == "gelf" {
					if !json.Valid([]byte(line)) || !strings.Contains(line, `"short_message":`) {
						t.Fatalf("event %d: %s", i, line)
					}
				} else if strings.ReplaceAll(line, `\u007f`, "\x7f") != want[i] && // which syslog escapes
					!strings.Contains(line, `"tetracast_truncated":`) &&
					!(strings.HasPrefix(name, "gelf") && len(want[i]) > datagram.MaxLuceneField && strings.Contains(line, `"short_message":`)) { // whose full_message is left out
					t.Fatalf("event %d: got\n%.200s\nwant\n%.200s", i, line, want[i])
				}
			}
			t.Logf("%d events in %d datagrams, %d bytes, %d shortened", s.Sent, s.Datagrams, s.Bytes, s.Truncated)
			return ""
		}))
	}
}

// TestLossOfMarkedFormats: formats in which events carry their number are audited
// event by event, by a network that drops, repeats and reorders.
func TestLossOfMarkedFormats(t *testing.T) {
	events := slices.DeleteFunc(sampleEvents(t), func(wire []byte) bool {
		return len(wire) > 16<<10 // whose chunks' fates the test would have to follow
	})
	for i, name := range []string{"json_sequence", "ndjson_sequence", "gelf", "gelf_zlib", "syslog"} {
		t.Run(name, netns.Twice(func(t *testing.T) (lost string) {
			t.Parallel()
			w := &markTruth{got: map[uint64]int{}, reader: datagram.NewGELFReader(datagram.GELFLimits{})}
			config := impair.Config{Drop: 0.1, Duplicate: 0.05, Reorder: 0.1, ReorderBy: 20, Seed: uint64(i), Watch: w.watch}
			to := formats[name]
			if name == "gelf_zlib" {
				to.MaxDatagram = 0 // on loopback: no chunks
			}
			r, passed := newRigBehind(t, to, config)
			r.send(events, 2)
			if truth := passed(); truth.Missed > 0 {
				return "the proxy itself lost datagrams"
			}
			e, c := r.end()
			if c.Observed.SocketDropped > 0 {
				return "the collector's socket lost datagrams"
			}
			if err := c.Check(); err != nil {
				t.Error(err)
			}
			var repeated uint64
			for _, times := range w.got {
				repeated += uint64(times - 1)
			}
			s, sent := c.Agents[0].Streams[0], e.Streams[0].Sent
			if s.Received != uint64(len(w.got)) || *s.Announced != sent || *s.Missing != sent-s.Received || *s.Duplicate != repeated || s.Ended != ledger.EndedGoodbye {
				t.Errorf("sent %d, passed on %d events, %d of them again; the account says %+v: announced %d, missing %d, duplicate %d, late %d",
					sent, len(w.got), repeated, s, *s.Announced, *s.Missing, *s.Duplicate, *s.Late)
			}
			return ""
		}))
	}
}

// markTruth is what a network did, event by event.
type markTruth struct {
	mu     sync.Mutex
	reader *datagram.GELFReader
	got    map[uint64]int // how often the event of that number was passed on
}

func (w *markTruth) watch(d []byte, times int, _ bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if times == 0 {
		return
	}
	note := func(p datagram.Payload, err error) {
		if err != nil {
			panic(err) // the exporter made it
		}
		if p.Mark.Number > 0 {
			w.got[p.Mark.Number] += times
		}
	}
	switch {
	case datagram.IsSyslog(d):
		note(datagram.UnpackSyslog(d))
	case datagram.IsGELF(d):
		p, _, err := w.reader.Read(d, netip.AddrPort{}, time.Time{})
		note(p, err)
	default:
		for p, err := range datagram.UnpackNDJSON(bytes.Clone(d)) {
			note(p, err)
		}
	}
}
