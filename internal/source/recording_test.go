package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"tetracast/internal/corpus"
)

// readAll reads a recording to its end.
func readAll(in []byte) (messages [][]byte, err error) {
	r, err := NewRecording(bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	for {
		message, err := r.Next()
		if err == io.EOF {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, bytes.Clone(message))
	}
}

func plainSample(t testing.TB) []byte {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestRecordingInEveryWrapping(t *testing.T) {
	plain := plainSample(t)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var joined []byte
	for name, in := range map[string][]byte{"plain": plain, "gzip": corpus.Sample(), "zstd": encoder.EncodeAll(plain, nil)} {
		messages, err := readAll(in)
		if err != nil || len(messages) != corpus.SampleEvents {
			t.Fatalf("%s: %d messages, %v", name, len(messages), err)
		}
		joined = joined[:0]
		for _, m := range messages {
			joined = append(binary.AppendUvarint(joined, uint64(len(m))), m...)
		}
		if !bytes.Equal(joined, plain) {
			t.Errorf("%s: the messages are not those of the recording", name)
		}
	}
}

// TestRecordingCutOff: wherever a recording is cut, all whole messages come,
// then an error that names the offset of the one that is not.
func TestRecordingCutOff(t *testing.T) {
	plain := plainSample(t)[:6000]
	var ends []int // of the messages
	for pos := 0; pos < len(plain); {
		length, n := binary.Uvarint(plain[pos:])
		pos += n + int(length)
		ends = append(ends, pos)
	}
	for cut := 1; cut < len(plain); cut++ {
		whole, at := 0, 0
		for _, end := range ends {
			if end <= cut {
				whole, at = whole+1, end
			}
		}
		messages, err := readAll(plain[:cut])
		if len(messages) != whole {
			t.Fatalf("cut at %d: %d messages, want %d", cut, len(messages), whole)
		}
		if cut == at {
			if err != nil {
				t.Fatalf("cut between messages at %d: %v", cut, err)
			}
			continue
		}
		if !errors.Is(err, ErrCutOff) || !strings.Contains(err.Error(), "at offset "+strconv.Itoa(at)+":") {
			t.Fatalf("cut at %d, message at %d: %v", cut, at, err)
		}
	}
}

func TestNoRecording(t *testing.T) {
	random := make([]byte, 1000)
	_, _ = rand.Read(random)
	random[0], random[1] = 100, 0 // a length, and no protobuf tag
	f := func(what string, in []byte) {
		t.Helper()
		messages, err := readAll(in)
		if len(messages) > 0 || !errors.Is(err, ErrNoRecording) {
			t.Errorf("%s: %d messages, %v", what, len(messages), err)
		}
	}
	f("text", []byte("Dear reader, this is no recording."))
	f("JSON", []byte(`{"process_exec":{}}`))
	f("random bytes", random)
	f("a length of 2^62", binary.AppendUvarint(nil, 1<<62))
	f("a length without an end", bytes.Repeat([]byte{0xff}, 20))
	f("half a gzip header", []byte{0x1f, 0x8b, 8, 0, 0})
	if messages, err := readAll(nil); len(messages) != 0 || err != nil {
		t.Errorf("an empty file: %d messages, %v", len(messages), err)
	}
}

// TestRecordingRun: as a source, a damaged recording gives all before the
// damage, then the error.
func TestRecordingRun(t *testing.T) {
	run := func(in []byte) (n int, err error) {
		r, err := NewRecording(bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		err = r.Run(context.Background(), func(batch [][]byte) { n += len(batch) })
		return n, err
	}
	plain := plainSample(t)
	if n, err := run(plain); n != corpus.SampleEvents || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
	if n, err := run(plain[:len(plain)-1]); n != corpus.SampleEvents-1 || !errors.Is(err, ErrCutOff) {
		t.Errorf("without the last byte: %d messages, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, _ := NewRecording(bytes.NewReader(plain))
	if err := r.Run(ctx, func([][]byte) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzRecording: any bytes at all give messages and then an end or an error; no
// panic, and no more memory than the bytes are worth.
func FuzzRecording(f *testing.F) {
	f.Add([]byte{2, 0x0a, 0})
	f.Add(corpus.Sample()[:200])
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	f.Add(binary.AppendUvarint(nil, MaxMessageBytes))
	f.Fuzz(func(t *testing.T, in []byte) {
		messages, err := readAll(in)
		if err != nil && !errors.Is(err, ErrCutOff) && !errors.Is(err, ErrNoRecording) && len(messages) > 0 {
			t.Errorf("an error of no kind: %v", err)
		}
	})
}
