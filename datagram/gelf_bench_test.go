package datagram

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/corpus"
	"tetracast/internal/source"
)

// BenchmarkGELF packs the sample flat: with the memo of processes, and without. One
// operation is the whole sample. tetracast bench formats has all formats.
func BenchmarkGELF(b *testing.B) {
	recording, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		b.Fatal(err)
	}
	var events []Event
	for {
		wire, err := recording.Next()
		if err == io.EOF {
			break
		}
		var event tetragon.GetEventsResponse
		if err != nil || proto.Unmarshal(wire, &event) != nil {
			b.Fatal(err)
		}
		line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&event)
		if err != nil {
			b.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, line); err != nil {
			b.Fatal(err)
		}
		events = append(events, Event{Number: uint64(len(events) + 1), Line: append(compact.Bytes(), '\n')})
	}
	for _, memo := range []bool{true, false} {
		name := "memo"
		if !memo {
			name = "plain"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p, err := NewGELF(GELFConfig{})
			if err != nil {
				b.Fatal(err)
			}
			var batch Batch
			pass := func() {
				for i := range events {
					if err := p.Pack(&batch, &events[i]); err != nil {
						b.Fatal(err)
					}
					if i%32 == 31 {
						batch.Reset()
					}
				}
				batch.Reset()
			}
			pass() // learns the shapes
			if !memo {
				forget(&p.flat.shapes.root)
			}
			for b.Loop() {
				pass()
			}
		})
	}
}

// forget makes processes members like any other.
func forget(s *shape) {
	for ; s != nil; s = s.next {
		switch s.role {
		case roleProcess, roleParent, roleAncestors:
			s.role = rolePlain
		}
		if s.inside != nil {
			forget(s.inside)
		}
	}
}
