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
// operation is one event.
func BenchmarkTranscode(b *testing.B) {
	events := recording(b, "events.binpb.zst")
	program, err := transcode.Compile(eventType)
	if err != nil {
		b.Fatal(err)
	}
	for _, part := range recordings {
		events := events[part.from:part.to]
		dst := make([]byte, 0, 1<<20)
		run := func(name string, one func(wire []byte)) {
			b.Run(part.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					one(events[i])
					if i++; i == len(events) {
						i = 0
					}
				}
			})
		}
		for _, o := range []struct {
			name  string
			bytes int
		}{{"plain", 0}, {"memo", 4 << 20}} {
			tc := program.NewTranscoder(transcode.Options{CacheBytes: o.bytes})
			run(o.name, func(wire []byte) {
				if _, _, err := tc.Append(dst, wire); err != nil {
					b.Fatal(err)
				}
			})
		}
		var event tetragon.GetEventsResponse
		run("protojson", func(wire []byte) {
			if err := proto.Unmarshal(wire, &event); err != nil {
				b.Fatal(err)
			}
			if _, err := (protojson.MarshalOptions{UseProtoNames: true}).MarshalAppend(dst, &event); err != nil {
				b.Fatal(err)
			}
		})
		tc := program.NewTranscoder(transcode.Options{})
		json := make([][]byte, len(events))
		for i, wire := range events {
			if json[i], _, err = tc.Append(nil, wire); err != nil {
				b.Fatal(err)
			}
		}
		i := 0
		run("copy", func([]byte) {
			copy(dst[:cap(dst)], json[i])
			if i++; i == len(json) {
				i = 0
			}
		})
		run("scan", func(wire []byte) {
			if _, err := transcode.Scan(wire); err != nil {
				b.Fatal(err)
			}
		})
	}
}
