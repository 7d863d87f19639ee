package transcode_test

import (
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/transcode"
)

// recordings are the parts of the corpus, by index of the event.
var recordings = []struct {
	name     string
	from, to int
}{{"a", 0, 15810}, {"b", 15810, 24642}, {"c", 24642, 25336}, {"d", 25336, 25894}}

// BenchmarkTranscode sets the transcoder, without and with its memo, beside
// protojson on typed structs and beside a copy of the finished JSON. One
// operation is one pass over a recording by a new transcoder, so that the memo
// is empty at the start; ns/event is the figure to compare.
func BenchmarkTranscode(b *testing.B) {
	events := recording(b, "events.binpb.zst")
	program, err := transcode.Compile(eventType)
	if err != nil {
		b.Fatal(err)
	}
	for _, part := range recordings {
		events := events[part.from:part.to]
		dst := make([]byte, 0, 1<<20)
		unique := uniqueEvents(b, events)
		run := func(name string, pass func() func(i int, wire []byte)) {
			b.Run(part.name+"/"+name, func(b *testing.B) {
				for b.Loop() {
					one := pass()
					for i, wire := range events {
						one(i, wire)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
				b.ReportMetric(0, "ns/op")
			})
		}
		transcoder := func(cacheBytes int) func() func(int, []byte) {
			return func() func(int, []byte) {
				tc := program.NewTranscoder(transcode.Options{CacheBytes: cacheBytes})
				return func(_ int, wire []byte) {
					if _, _, err := tc.Append(dst, wire); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		always := func(one func(int, []byte)) func() func(int, []byte) {
			return func() func(int, []byte) { return one }
		}
		run("plain", transcoder(0))
		run("memo", transcoder(4<<20))
		var event tetragon.GetEventsResponse
		run("protojson", always(func(_ int, wire []byte) {
			if err := proto.Unmarshal(wire, &event); err != nil {
				b.Fatal(err)
			}
			if _, err := (protojson.MarshalOptions{UseProtoNames: true}).MarshalAppend(dst, &event); err != nil {
				b.Fatal(err)
			}
		}))
		tc := program.NewTranscoder(transcode.Options{})
		json := make([][]byte, len(events))
		for i, wire := range events {
			if json[i], _, err = tc.Append(nil, wire); err != nil {
				b.Fatal(err)
			}
		}
		run("copy", always(func(i int, _ []byte) { copy(dst[:cap(dst)], json[i]) }))
		run("scan", always(func(_ int, wire []byte) {
			if _, err := transcode.Scan(wire); err != nil {
				b.Fatal(err)
			}
		}))
		run("unique", func() func(int, []byte) { // nothing comes twice: what the memo costs then
			tc := program.NewTranscoder(transcode.Options{CacheBytes: 4 << 20})
			return func(i int, _ []byte) {
				if _, _, err := tc.Append(dst, unique[i]); err != nil {
					b.Fatal(err)
				}
			}
		})
		run("unique/plain", func() func(int, []byte) {
			tc := program.NewTranscoder(transcode.Options{})
			return func(i int, _ []byte) {
				if _, _, err := tc.Append(dst, unique[i]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// uniqueEvents returns the events with a reference count in each process that
// no other has, as on a host that never repeats itself.
func uniqueEvents(b *testing.B, events [][]byte) [][]byte {
	unique := make([][]byte, len(events))
	for i, wire := range events {
		var event tetragon.GetEventsResponse
		if err := proto.Unmarshal(wire, &event); err != nil {
			b.Fatal(err)
		}
		if m, ok := member(&event).(interface{ GetProcess() *tetragon.Process }); ok && m.GetProcess() != nil {
			m.GetProcess().Refcnt = uint32(1000000 + i)
		}
		if m, ok := member(&event).(interface{ GetParent() *tetragon.Process }); ok && m.GetParent() != nil {
			m.GetParent().Refcnt = uint32(9000000 + i)
		}
		var err error
		if unique[i], err = proto.Marshal(&event); err != nil {
			b.Fatal(err)
		}
	}
	return unique
}
