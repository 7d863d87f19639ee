package datagram

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fragments packs one event into fragments of 256 bytes at most.
func fragments(t *testing.T, stream, number uint64, event []byte) [][]byte {
	t.Helper()
	f := newTestFrame(t, FrameConfig{Stream: stream, MaxDatagram: MinFrameDatagram})
	f.header.First, f.header.Datagram = number, 1000*number
	var b Batch
	if err := f.Pack(&b, &Event{Number: number, Wire: event}); err != nil {
		t.Fatal(err)
	}
	f.Flush(&b)
	if len(b.Datagrams) < 2 {
		t.Fatal("the event fits one datagram")
	}
	return b.Datagrams
}

// readAt reads a datagram at some time after the start, and returns the numbers
// of the events that came of it.
func readAt(t *testing.T, r *FrameReader, d []byte, after time.Duration) (numbers []uint64, err error) {
	t.Helper()
	var h Header
	body, err := r.Open(d, &h)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Read(&h, body, testTime.Add(after), func(number uint64, _ []byte) { numbers = append(numbers, number) })
	return numbers, err
}

// TestFragments: in whatever order they come, the event is whole; twice is
// refused; of one that is missing there is nothing.
func TestFragments(t *testing.T) {
	event := bytes.Repeat([]byte("0123456789abcde."), 300)
	pieces := fragments(t, 1, 7, event)
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		r := NewFrameReader(FrameReaderConfig{})
		random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		for i, d := range pieces[:len(pieces)-1] {
			if got, err := readAt(t, r, d, 0); got != nil || err != nil {
				t.Fatalf("fragment %d gave %v, %v", i, got, err)
			}
			if _, err := readAt(t, r, d, 0); !errors.Is(err, ErrFragment) {
				t.Fatalf("fragment %d came twice: %v", i, err)
			}
		}
		if s := r.Fragments(); s.Sets != 1 || s.Bytes < len(event)/2 {
			t.Fatalf("what waits: %+v", s)
		}
		got := receive(t, r, pieces[len(pieces)-1:])
		if len(got) != 1 || got[0].Number != 7 || !bytes.Equal(got[0].Wire, event) {
			t.Fatalf("the event came as %d events", len(got))
		}
		if s := r.Fragments(); s != (FragmentStats{}) {
			t.Fatalf("after the last fragment: %+v", s)
		}
	}
}

// TestFragmentsContradict: a fragment that does not belong to its set is
// refused, and does the set no harm.
func TestFragmentsContradict(t *testing.T) {
	event := make([]byte, 1000)
	pieces := fragments(t, 1, 7, event)
	r := NewFrameReader(FrameReaderConfig{})
	if _, err := readAt(t, r, pieces[0], 0); err != nil {
		t.Fatal(err)
	}
	f := func(change func(*Header)) {
		t.Helper()
		var h Header
		body, err := r.Open(pieces[1], &h)
		if err != nil {
			t.Fatal(err)
		}
		change(&h)
		if err := r.Read(&h, body, testTime, func(uint64, []byte) { t.Error("an event came") }); !errors.Is(err, ErrFragment) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	f(func(h *Header) { h.Fragment.Total++ })
	f(func(h *Header) { h.First++ })
	f(func(h *Header) { h.Kind = KindAgentInit })
	f(func(h *Header) { h.JSON = true })
	f(func(h *Header) { h.Compression = CompressionZstd })
	if got := receive(t, r, pieces[1:]); len(got) != 1 || !bytes.Equal(got[0].Wire, event) {
		t.Error("the set was harmed")
	}
}

// TestFragmentLimits: what waits too long, or exceeds a limit, is given up, the
// oldest first, and told.
func TestFragmentLimits(t *testing.T) {
	event := make([]byte, 1000)
	f := func(limits FragmentLimits, run func(*FrameReader), want string) {
		t.Helper()
		var gone []string
		r := NewFrameReader(FrameReaderConfig{Fragments: limits, GaveUp: func(name StreamName, number uint64) {
			stream := name.ID
			gone = append(gone, fmt.Sprintf("%d/%d", stream, number))
		}})
		run(r)
		s := r.Fragments()
		if got := fmt.Sprintf("gone %v, sets %d, too old %d, too many %d", gone, s.Sets, s.TooOld, s.TooMany); got != want {
			t.Errorf("%+v:\ngot  %s\nwant %s", limits, got, want)
		}
		if s.Bytes > 64<<20 || limits.Bytes > 0 && s.Bytes > limits.Bytes {
			t.Errorf("%d bytes wait", s.Bytes)
		}
		r.Expire(testTime.Add(time.Hour))
		if s := r.Fragments(); s.Sets != 0 || s.Bytes != 0 {
			t.Errorf("after an hour there are %+v", s)
		}
	}
	first := func(r *FrameReader, stream, number uint64, after time.Duration) {
		t.Helper()
		if got, err := readAt(t, r, fragments(t, stream, number, event)[0], after); got != nil || err != nil {
			t.Fatal(got, err)
		}
	}
	f(FragmentLimits{}, func(r *FrameReader) {
		first(r, 1, 1, 0)
		first(r, 1, 2, 3*time.Second)
		first(r, 1, 3, 6*time.Second)
	}, "gone [1/1], sets 2, too old 1, too many 0")
	f(FragmentLimits{}, func(r *FrameReader) {
		first(r, 1, 1, 0)
		r.Expire(testTime.Add(5 * time.Second))
		r.Expire(testTime.Add(5*time.Second + 1))
	}, "gone [1/1], sets 0, too old 1, too many 0")
	f(FragmentLimits{SetsPerStream: 2}, func(r *FrameReader) {
		first(r, 2, 1, 0)
		first(r, 1, 1, 1)
		first(r, 1, 2, 2)
		first(r, 1, 3, 3)
	}, "gone [1/1], sets 3, too old 0, too many 1")
	f(FragmentLimits{Sets: 2}, func(r *FrameReader) {
		first(r, 1, 1, 0)
		first(r, 2, 1, 1)
		first(r, 2, 2, 2) // its own before that of others
		first(r, 3, 1, 3) // and then the oldest
	}, "gone [2/1 1/1], sets 2, too old 0, too many 2")
	f(FragmentLimits{Bytes: 600}, func(r *FrameReader) {
		first(r, 1, 1, 0)
		first(r, 1, 2, 1)
		first(r, 1, 3, 2)
	}, "gone [1/1], sets 2, too old 0, too many 1")
	f(FragmentLimits{Bytes: 100}, func(r *FrameReader) {
		if _, err := readAt(t, r, fragments(t, 1, 1, event)[0], 0); !errors.Is(err, ErrFragment) {
			t.Errorf("one fragment alone exceeds the limit: %v", err)
		}
	}, "gone [1/1], sets 0, too old 0, too many 1")
}

// TestFrameBombs: a small frame makes no large memory, whatever it says of
// itself; a dictionary that is not here and content that is broken are told
// apart.
func TestFrameBombs(t *testing.T) {
	f := func(h Header, body []byte, want error) {
		t.Helper()
		h.Stream, h.Datagram, h.First, h.Count, h.Kind = 1, 1, 1, 1, KindEvent
		r := NewFrameReader(FrameReaderConfig{})
		if err := r.Read(&h, body, testTime, func(uint64, []byte) { t.Error("an event came") }); !errors.Is(err, want) {
			t.Errorf("%+v, % x: %v, want %v", h, body[:min(len(body), 20)], err, want)
		}
		if cap(r.expanded) > maxGroup {
			t.Errorf("% x: made %d bytes", body[:min(len(body), 20)], cap(r.expanded))
		}
	}
	s2 := Header{Compression: CompressionS2}
	zstd := Header{Compression: CompressionZstd}
	f(Header{}, []byte{2, 'a'}, ErrBroken)
	f(Header{}, []byte{1, 'a', 0}, ErrBroken)
	f(Header{}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, ErrBroken)
	f(Header{}, []byte{0x80}, ErrBroken)
	f(s2, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, ErrTooLong) // says 4 GiB
	f(s2, []byte{0x81, 0x80, 0x10, 0}, ErrTooLong)             // says 256 KiB and a byte
	f(s2, []byte{5, 0}, ErrBroken)
	f(s2, []byte{}, ErrBroken)
	f(zstd, []byte("no frame of Zstandard"), ErrBroken)
	f(zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0, 0}, ErrTooLong) // says 64 GiB
	f(zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0}, ErrBroken)                                // does not say
	// Ten bytes that say 100, and then run on for 128 KiB a block.
	bomb := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 100}
	for range 1000 {
		bomb = append(bomb, 0x02, 0x00, 0x10, 'a')
	}
	f(zstd, bomb, ErrBroken)
	f(Header{Compression: CompressionS2, HasDictionary: true, Dictionary: 0x12345678}, []byte{1, 0}, ErrDictionary)
	f(Header{Compression: CompressionS2, HasDictionary: true}, []byte{1, 0}, ErrDictionary)

	// What our own packer makes is never taken for one.
	for _, compression := range []Compression{CompressionS2, CompressionZstd} {
		p := newTestFrame(t, FrameConfig{Compression: compression})
		var b Batch
		var sizes []int
		for i, size := range []int{10, 1 << 18, 1 << 20, 1 << 22, MaxFrameEvent, 5} {
			sizes = append(sizes, size)
			if err := p.Pack(&b, &Event{Number: uint64(i) + 1, Wire: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
		}
		p.Flush(&b)
		var got []int
		for _, e := range receive(t, NewFrameReader(FrameReaderConfig{}), b.Datagrams) {
			got = append(got, len(e.Wire))
		}
		if !slices.Equal(got, sizes) {
			t.Errorf("%v: came %v, want %v", compression, got, sizes)
		}
	}
}

// TestFrameShrinks: when the path MTU goes down, what waits goes into smaller
// frames.
func TestFrameShrinks(t *testing.T) {
	sample := events(messages(t)[:200])
	f := newTestFrame(t, FrameConfig{Compression: CompressionS2, MaxDatagram: 9000, Pad: true})
	var b Batch
	pack := func(events []Event) {
		for i := range events {
			if err := f.Pack(&b, &events[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	pack(sample[:100])
	before := len(b.Datagrams)
	f.SetMaxDatagram(500)
	pack(sample[100:])
	f.Flush(&b)
	if got := receive(t, NewFrameReader(FrameReaderConfig{}), b.Datagrams); len(got) != len(sample) {
		t.Errorf("%d events came, want %d", len(got), len(sample))
	}
	for i, d := range b.Datagrams[before:] {
		if len(d) > 500 {
			t.Errorf("datagram %d after the change has %d bytes", i, len(d))
		}
	}
}

func TestParseKeys(t *testing.T) {
	secret := pageKey()
	line := string(AppendKey(nil, secret))
	f := func(text string, keys int, want error) {
		t.Helper()
		got, err := ParseKeys([]byte(text))
		if len(got) != keys || !errors.Is(err, want) {
			t.Errorf("%q: %d keys, %v; want %d, %v", text, len(got), err, keys, want)
		}
	}
	f(line, 1, nil)
	f("# the new one\n\n"+line+line, 2, nil)
	f("", 0, ErrKeyFile)
	f(line+line+line, 0, ErrKeyFile)
	f(line[:len(line)-3]+"\n", 0, ErrKeyFile)
	f(line[:len(line)-2]+"g\n", 0, ErrKeyFile)
	f("tetracast-key-2 "+line[len(keyWord):], 0, ErrKeyFile)
	host, err := NewKey(secret).ForHost("node-1")
	if err != nil {
		t.Fatal(err)
	}
	ofHost := string(host.AppendLine(nil))
	f(ofHost, 1, nil)
	f(ofHost+line, 2, nil)
	f(strings.Replace(ofHost, "node-1", "node 1", 1), 0, ErrKeyFile)
	f(strings.Replace(ofHost, "node-1", strings.Repeat("n", MaxKeyHost+1), 1), 0, ErrKeyFile)
	f(strings.Replace(ofHost, "node-1", "n\x1b[2J", 1), 0, ErrKeyFile)
	f(strings.Replace(ofHost, fmt.Sprintf("%08x", host.ID()), "1", 1), 0, ErrKeyFile)
	read, _ := ParseKeys([]byte(ofHost))
	if len(read) == 1 && *read[0] != *host || host.Host() != "node-1" || strings.Contains(fmt.Sprint(host), fmt.Sprintf("%x", host.secret[:4])) {
		t.Errorf("a host's key was read as %v, want %v", read, host)
	}
	for _, name := range []string{"", "a b", "a\n", "\u00e4", strings.Repeat("n", MaxKeyHost+1)} {
		if _, err := NewKey(secret).ForHost(name); !errors.Is(err, ErrKeyHost) {
			t.Errorf("a key for %q: %v", name, err)
		}
	}
	if _, err := host.ForHost("node-2"); !errors.Is(err, ErrKeyHost) {
		t.Errorf("a host's key derived from a host's key: %v", err)
	}
	keys, _ := ParseKeys([]byte(line))
	if text := fmt.Sprint(keys[0]); text != fmt.Sprintf("key %08x", keys[0].ID()) || keys[0].ID() == 0 {
		t.Errorf("a key prints as %q", text)
	}
}

func TestBatchMemory(t *testing.T) {
	var b Batch
	one := b.Grow(10)
	copy(one, "0123456789")
	two := b.Grow(maxBlock)
	clear(two)
	if string(one) != "0123456789" || len(two) != maxBlock || cap(one) != 10 {
		t.Errorf("%q, %d bytes", one, len(two))
	}
	b.Add(one, 1)
	b.Reset()
	if again := b.Grow(10); &again[0] == &one[0] || &again[0] != &two[0] {
		t.Error("Reset did not keep the larger block")
	}
	b.Forget()
	b.Reset()
	if again := b.Grow(10); &again[0] == &two[0] {
		t.Error("memory that was given up is used again")
	}
	b.Grow(maxBlock + 1)
	if b.Reset(); b.block != nil {
		t.Error("a giant's memory was kept")
	}
}
