package datagram_test

import (
	"syscall"
	"testing"
	"time"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
)

// parts are the large corpus's recordings that differ most, by index of the
// event: default flags, and all metadata switched on.
var parts = []struct {
	name     string
	from, to int
}{{"default", 0, 15810}, {"all-metadata", 15810, 24642}}

// BenchmarkFormats sets the packers beside the transcoder in one run. One
// operation is a pass over a recording in batches of at most 64 events and 256
// KiB, as a worker makes them: transcoded, then packed by each format. cpu-ns/event of
// "transcode" is the floor; what a format costs is the difference.
func BenchmarkFormats(b *testing.B) {
	path, ok := corpus.Path("events.binpb.zst")
	if !ok {
		b.Skip("no corpus: set TETRACAST_CORPUS")
	}
	recording, err := source.OpenRecording(path)
	if err != nil {
		b.Fatal(err)
	}
	all := eventsOf(recording)
	gelf := func(c datagram.GELFConfig) datagram.Packer {
		c.Host, c.MaxDatagram = "edge-node-01", 8192
		p, err := datagram.NewGELF(c)
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	packers := []struct {
		name   string
		packer datagram.Packer
	}{
		{"transcode", nil},
		{"json", datagram.NewJSON(datagram.JSONConfig{})},
		{"ndjson-1232", datagram.NewNDJSON(datagram.JSONConfig{MaxShared: 1232})},
		{"ndjson-65507", datagram.NewNDJSON(datagram.JSONConfig{})},
		{"syslog", datagram.NewSyslog(datagram.SyslogConfig{Hostname: "edge-node-01", ProcID: "42"})},
		{"gelf-flat", gelf(datagram.GELFConfig{})},
		{"gelf-one", gelf(datagram.GELFConfig{Fields: datagram.GELFOne})},
		{"gelf-gzip", gelf(datagram.GELFConfig{Compression: datagram.GELFGzip})},
		{"gelf-zlib", gelf(datagram.GELFConfig{Compression: datagram.GELFZlib})},
	}
	for _, part := range parts {
		events := all[part.from:part.to]
		for _, f := range packers {
			b.Run(part.name+"/"+f.name, func(b *testing.B) {
				b.ReportAllocs()
				transcoder, err := exporter.NewTranscoder(4 << 20)
				if err != nil {
					b.Fatal(err)
				}
				var batch datagram.Batch
				var lines []byte
				var ends []int
				var packing datagram.Event
				before := cpuTime(b)
				for b.Loop() {
					for i := 0; i < len(events); i += len(ends) {
						lines, ends = lines[:0], ends[:0]
						for _, e := range events[i:min(i+64, len(events))] {
							if lines, _, err = transcoder.Append(lines, e.Wire); err != nil {
								b.Fatal(err)
							}
							lines = append(lines, '\n')
							if ends = append(ends, len(lines)); len(lines) > 256<<10 {
								break
							}
						}
						if f.packer == nil {
							continue
						}
						start := 0
						for k, end := range ends {
							packing = datagram.Event{Number: uint64(i + k + 1), Line: lines[start:end], Wire: events[i+k].Wire}
							_ = f.packer.Pack(&batch, &packing) // some are longer than a datagram
							start = end
						}
						f.packer.Flush(&batch)
						batch.Reset()
					}
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/float64(len(events)), "cpu-ns/event")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// cpuTime is what the process used so far: on a busy machine it says more than
// the clock.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
