package datagram

import (
	"errors"
	"slices"
	"testing"
)

// frameBytes returns how long the datagrams are that messages are packed into.
func frameBytes(t testing.TB, c FrameConfig, messages [][]byte) (bytes int) {
	t.Helper()
	f := newTestFrame(t, c)
	f.SetRecord(1 << 63)
	f.SetSums(Sums{Seen: 1 << 40}) // as long a header as in a stream of a week
	var b Batch
	for i, m := range messages {
		event := Event{Number: uint64(i) + 1, Wire: m}
		if err := f.Pack(&b, &event); err != nil {
			t.Fatal(err)
		}
		for _, d := range b.Datagrams {
			bytes += len(d)
		}
		b.Reset()
	}
	f.Flush(&b)
	for _, d := range b.Datagrams {
		bytes += len(d)
	}
	return bytes
}

// TestFrameSizes measures frames of 1,232 bytes, headers and padding and all,
// against one JSON event a datagram, on the second half of a recording, and
// holds them to the goals. The dictionary is trained on all recordings but that
// half, and for comparison on all but that recording.
func TestFrameSizes(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: trains four dictionaries")
	}
	messages, lines := recorded(t)
	f := func(recording string, s2Goal, zstdGoal float64) {
		t.Helper()
		from, to := recordings[recording][0], recordings[recording][1]
		middle := (from + to) / 2
		inJSON := 0
		for _, n := range lines[middle:to] {
			inJSON += n
		}
		train := func(trainedTo int) *Dictionary {
			content, err := TrainDictionary(slices.Concat(messages[:trainedTo], messages[to:]), DefaultDictionary)
			if err != nil {
				t.Fatal(err)
			}
			d, err := NewDictionary(content)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		half, without := train(middle), train(from)
		times := func(c Compression, d *Dictionary) float64 {
			return float64(inJSON) / float64(frameBytes(t, FrameConfig{Compression: c, Dictionary: d, Pad: true}, messages[middle:to]))
		}
		for compression, goal := range map[Compression]float64{CompressionS2: s2Goal, CompressionZstd: zstdGoal} {
			got := times(compression, half)
			t.Logf("recording %s, %v: 1/%.1f of JSON, goal 1/%.0f; trained without the recording 1/%.1f", recording, compression, got, goal, times(compression, without))
			if got < goal {
				t.Errorf("recording %s, %v: 1/%.1f of JSON, want 1/%.0f", recording, compression, got, goal)
			}
		}
	}
	f("a", 13, 19)
	f("b", 34, 38)
}

func TestTrainDictionary(t *testing.T) {
	sample := messages(t)
	for _, size := range []int{minTrained, DefaultDictionary} {
		if raceEnabled && size == minTrained {
			continue // a small one takes the longest
		}
		content, err := TrainDictionary(sample, size)
		if err != nil {
			t.Fatal(err)
		}
		again, err := TrainDictionary(sample, size)
		if err != nil || string(again) != string(content) || len(content) > size {
			t.Errorf("size %d: %d bytes, the same again: %v, %v", size, len(content), string(again) == string(content), err)
		}
		d, err := NewDictionary(content)
		if err != nil {
			t.Fatal(err)
		}
		for _, compression := range []Compression{CompressionS2, CompressionZstd} {
			plain := frameBytes(t, FrameConfig{Compression: compression, Dictionary: NoDictionary}, sample)
			trained := frameBytes(t, FrameConfig{Compression: compression, Dictionary: d}, sample)
			if trained >= plain {
				t.Errorf("size %d, %v: %d bytes with the dictionary, %d without", size, compression, trained, plain)
			}
		}
	}
	for _, few := range [][][]byte{nil, {{}}, {[]byte("short")}, {make([]byte, 100)}} {
		if _, err := TrainDictionary(few, DefaultDictionary); !errors.Is(err, ErrUntrainable) {
			t.Errorf("%d messages: %v", len(few), err)
		}
	}
	for _, size := range []int{0, minTrained - 1, MaxDictionary + 1} {
		if _, err := TrainDictionary(sample, size); err == nil || errors.Is(err, ErrUntrainable) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestNewDictionary(t *testing.T) {
	f := func(content string, want error) {
		t.Helper()
		if _, err := NewDictionary([]byte(content)); !errors.Is(err, want) {
			t.Errorf("%.30q: %v, want %v", content, err, want)
		}
	}
	f("", ErrDictionaryFile)
	f("fifteen bytes..", ErrDictionaryFile)
	f("sixteen bytes...", nil)
	f(string(make([]byte, MaxDictionary+1)), ErrDictionaryFile)
	f("\x37\xa4\x30\xec and then no tables", ErrDictionaryFile)
}

// TestBuiltinDictionaries: what was once built in stays as it is, or frames of
// older agents could not be read.
func TestBuiltinDictionaries(t *testing.T) {
	var digests []uint32
	for _, d := range builtinDictionaries() {
		digests = append(digests, d.Digest())
	}
	if want := []uint32{0x31c1d08a}; !slices.Equal(digests, want) {
		t.Errorf("built in are %08x, want %08x", digests, want)
	}
}
