package datagram

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"

	"tetracast/internal/corpus"
)

// recordings are where in the large corpus each of its recordings lies.
var recordings = map[string][2]int{"a": {0, 15810}, "b": {15810, 24642}, "c": {24642, 25336}, "d": {25336, 25894}}

// recorded returns the events of the large corpus, and how long each is as a
// line of JSON.
func recorded(t testing.TB) (messages [][]byte, lines []int) {
	t.Helper()
	open := func(name string) *bufio.Reader {
		path, ok := corpus.Path(name)
		if !ok {
			t.Skip("SKIPPED: the large corpus is not here; TETRACAST_CORPUS names its folder")
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		unzipped, err := zstd.NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unzipped.Close)
		return bufio.NewReaderSize(unzipped, 1<<20)
	}
	in := open("events.binpb.zst")
	for {
		length, err := binary.ReadUvarint(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		message := make([]byte, length)
		if _, err := io.ReadFull(in, message); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, message)
	}
	in = open("events.tetra.jsonl.zst")
	for range messages {
		line, err := in.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, len(line))
	}
	return messages, lines
}

// BenchmarkFramePack packs recording a. The floor copies each event once.
func BenchmarkFramePack(b *testing.B) {
	messages, lines := recorded(b)
	messages, lines = messages[:recordings["a"][1]], lines[:recordings["a"][1]]
	inJSON := 0
	for _, n := range lines {
		inJSON += n
	}
	run := func(name string, c FrameConfig) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			f, err := NewFrame(c)
			if err != nil {
				b.Fatal(err)
			}
			var batch Batch
			var event Event
			bytes, number := 0, 0
			for b.Loop() {
				event = Event{Number: uint64(number) + 1, Wire: messages[number%len(messages)]}
				_ = f.Pack(&batch, &event)
				if number++; number%128 == 0 {
					for _, d := range batch.Datagrams {
						bytes += len(d)
					}
					batch.Reset()
				}
			}
			perEvent := float64(bytes) / float64(number)
			b.ReportMetric(perEvent, "B/event")
			b.ReportMetric(float64(inJSON)/float64(len(lines))/perEvent, "x-less-than-json")
			if s := f.Stats(); s.Groups > 0 {
				b.ReportMetric(float64(s.Compressions)/float64(s.Groups), "compressions/group")
			}
		})
	}
	key := NewKey([KeyBytes]byte{1})
	for _, compression := range []Compression{CompressionNone, CompressionS2, CompressionZstd} {
		run(compression.String(), FrameConfig{Compression: compression, Pad: true})
		run(compression.String()+"-sealed", FrameConfig{Compression: compression, Pad: true, Key: key})
	}
	b.Run("floor-copy", func(b *testing.B) {
		dst := make([]byte, 0, 1<<20)
		number := 0
		for b.Loop() {
			dst = append(dst[:0], messages[number%len(messages)]...)
			number++
		}
	})
}
