package datagram

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tetracast/internal/corpus"
)

var testTime = time.Unix(1_700_000_000, 0)

// messages returns the wire bytes of the sample's events.
func messages(t testing.TB) (list [][]byte) {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	for len(whole) > 0 {
		length, n := binary.Uvarint(whole)
		list = append(list, whole[n:n+int(length)])
		whole = whole[n+int(length):]
	}
	return list
}

// events gives the messages both forms. The JSON is not what the transcoder
// makes, but an object on a line.
func events(messages [][]byte) []Event {
	list := make([]Event, len(messages))
	for i, m := range messages {
		line := append([]byte(`{"process_exec":"`), base64.StdEncoding.EncodeToString(m)...)
		list[i] = Event{Number: uint64(i) + 1, Line: append(line, "\"}\n"...), Wire: m}
	}
	return list
}

func testKey(seed byte) *Key { return NewKey([KeyBytes]byte{seed, 1, 2, 3}) }

// newTestFrame returns a packer whose salt is fixed.
func newTestFrame(t testing.TB, c FrameConfig) *Frame {
	t.Helper()
	f, err := newFrame(c, [saltBytes]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// receive opens and reads datagrams and returns what came, in order.
func receive(t testing.TB, r *FrameReader, datagrams [][]byte) (got []Event) {
	t.Helper()
	for i, d := range datagrams {
		var h Header
		body, err := r.Open(d, &h)
		if err == nil {
			err = r.Read(&h, body, testTime, func(number uint64, event []byte) {
				got = append(got, Event{Number: number, Wire: bytes.Clone(event)})
			})
		}
		if err != nil {
			t.Fatalf("datagram %d: %v: %+v", i, err, h)
		}
	}
	return got
}

// TestFrameRoundTrip packs the sample in every way and gets it back.
func TestFrameRoundTrip(t *testing.T) {
	sample := events(messages(t))
	if raceEnabled {
		sample = sample[:100] // ten times as slow
	}
	for _, compression := range []Compression{CompressionNone, CompressionS2, CompressionZstd} {
		for _, limit := range []int{MinFrameDatagram, 600, 1232, MaxPayload} {
			for bits := range 16 {
				c := FrameConfig{Stream: 7, MaxDatagram: limit, Compression: compression, JSON: bits&1 != 0, Pad: bits&2 != 0}
				if bits&4 != 0 {
					c.Key = testKey(1)
				}
				if bits&8 != 0 {
					c.Dictionary = NoDictionary
				}
				name := fmt.Sprintf("%v/%d/json=%v/pad=%v/sealed=%v/dictionary=%v", compression, limit, c.JSON, c.Pad, c.Key != nil, c.Dictionary == nil)
				t.Run(name, func(t *testing.T) { roundTrip(t, c, sample) })
			}
		}
	}
}

func roundTrip(t *testing.T, c FrameConfig, sample []Event) {
	f := newTestFrame(t, c)
	reader := FrameReaderConfig{}
	if c.Key != nil {
		reader.Keys = []*Key{testKey(2), c.Key}
	}
	r := NewFrameReader(reader)
	var b Batch
	var got []Event
	packed := 0
	drain := func() {
		for i, d := range b.Datagrams {
			if len(d) > c.MaxDatagram {
				t.Fatalf("a datagram of %d bytes", len(d))
			}
			packed += b.Events[i]
		}
		got = append(got, receive(t, r, b.Datagrams)...)
		b.Reset()
	}
	for i := range sample {
		f.SetSums(Sums{Seen: uint64(i) + 3, Excluded: 1, Dropped: 1})
		if err := f.Pack(&b, &sample[i]); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			drain()
		}
	}
	if len(got)+f.Waiting()+len(b.Datagrams) == 0 {
		t.Fatal("nothing was packed")
	}
	f.Flush(&b)
	drain()
	if len(got) != len(sample) || packed != len(sample) || f.Waiting() != 0 {
		t.Fatalf("%d events came, %d were packed, %d wait; want %d", len(got), packed, f.Waiting(), len(sample))
	}
	for i := range got {
		want := sample[i].Wire
		if c.JSON {
			want = bytes.TrimSuffix(sample[i].Line, []byte("\n"))
		}
		if got[i].Number != sample[i].Number || !bytes.Equal(got[i].Wire, want) {
			t.Fatalf("event %d came as number %d, %d bytes; want %d bytes", i+1, got[i].Number, len(got[i].Wire), len(want))
		}
	}
}

// TestFrameHeader: what goes into a header comes out, at the ends of each range.
func TestFrameHeader(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	value := func() uint64 { return random.Uint64() >> random.IntN(64) }
	figure := func() uint64 {
		return min(value()>>16, MaxNumber-maxItems) + uint64(random.IntN(2)*random.IntN(maxItems))
	}
	for range 10_000 {
		h := Header{Stream: value(), Record: value(), Datagram: max(figure(), 1), First: figure()>>1 + 1, Count: 1 + random.IntN(maxItems), Kind: KindEvent,
			Sums: Sums{figure(), figure(), figure(), figure()}, JSON: random.IntN(2) == 0}
		switch random.IntN(4) {
		case 0:
			h.Kind, h.Count, h.Goodbye = KindAgentStats, 0, true
			h.Sealed, h.KeyID, h.Host = true, random.Uint32(), strings.Repeat("n", 1+random.IntN(MaxKeyHost))
		case 1:
			h.Count = 1
			h.Datagram |= 1 << 20
			h.Fragment = Fragment{Index: random.IntN(1000), Total: 1000 + random.IntN(maxFragments-999)}
		case 2:
			h.Compression, h.HasDictionary, h.Dictionary = CompressionS2, true, random.Uint32()
		}
		bytes := append(appendHeader(nil, &h), 1, 2, 3, 4, 5, 6, 7, 8)
		var got Header
		n, host, err := parseHeader(bytes, &got)
		got.Host = string(host)
		if err != nil || n != len(bytes)-8 || n != headerSize(&h) || got != h {
			t.Fatalf("%+v\ncame back as\n%+v\n%d bytes of %d, size %d, %v", h, got, n, len(bytes)-8, headerSize(&h), err)
		}
	}
}

// TestFrameOwn: agent_init and agent_stats travel beside events, in fragments
// where they must, and are no events.
func TestFrameOwn(t *testing.T) {
	for _, c := range []FrameConfig{{}, {Compression: CompressionS2}, {MaxDatagram: MinFrameDatagram}, {MaxDatagram: 300, Key: testKey(1), Pad: true}} {
		f := newTestFrame(t, c)
		f.SetRecord(0xfeed)
		reader := FrameReaderConfig{}
		if c.Key != nil {
			reader.Keys = []*Key{c.Key}
		}
		r := NewFrameReader(reader)
		record := append([]byte(`{"event":"agent_init","x":"`), bytes.Repeat([]byte("0123456789"), 60)...)
		record = append(record, "\"}\n"...)
		var b Batch
		event := Event{Number: 1, Wire: []byte("an event")}
		if err := f.Pack(&b, &event); err != nil {
			t.Fatal(err)
		}
		f.PackRecord(&b, record)
		if f.Waiting() != 1 {
			t.Error("agent_init took an event along")
		}
		f.SetSums(Sums{Seen: 1})
		f.PackStats(&b, []byte(`{"event":"agent_stats"}`), true)
		var text string
		var last Header
		for i, d := range b.Datagrams {
			body, err := r.Open(d, &last)
			if err != nil {
				t.Fatal(err)
			}
			if last.Datagram != uint64(i)+1 || last.Record != 0xfeed || b.Events[i] != last.Count {
				t.Errorf("datagram %d: %+v, %d events", i, last, b.Events[i])
			}
			if err := r.Read(&last, body, testTime, func(number uint64, event []byte) {
				text += fmt.Sprintf("%d %d %s\n", last.Kind, number, event)
			}); err != nil {
				t.Fatal(err)
			}
		}
		want := "2 0 " + string(record) + "1 1 an event\n" + `3 0 {"event":"agent_stats"}` + "\n"
		if text != want || !last.Goodbye || last.Last() != 1 || last.Seen != 1 {
			t.Errorf("%+v: got\n%swant\n%s\n%+v", c, text, want, last)
		}
	}
}

// TestFrameBitFlips: whatever single bit of a frame changes, it is refused.
func TestFrameBitFlips(t *testing.T) {
	sample := events(messages(t)[:8])
	for _, key := range []*Key{nil, testKey(1), testKey(1).forHost("node-1")} {
		f := newTestFrame(t, FrameConfig{Compression: CompressionS2, Key: key, Pad: true})
		r := NewFrameReader(FrameReaderConfig{})
		if key != nil {
			r = NewFrameReader(FrameReaderConfig{Keys: []*Key{testKey(1)}})
		}
		var b Batch
		for i := range sample {
			if err := f.Pack(&b, &sample[i]); err != nil {
				t.Fatal(err)
			}
		}
		f.Flush(&b)
		d := b.Datagrams[0]
		var h Header
		for bit := range len(d) * 8 {
			d[bit/8] ^= 1 << (bit % 8)
			if _, err := r.Open(d, &h); err == nil {
				t.Fatalf("sealed %v: bit %d of byte %d changed, and the frame is taken", key != nil, bit%8, bit/8)
			}
			d[bit/8] ^= 1 << (bit % 8)
		}
		for n := range d {
			if _, err := r.Open(d[:n], &h); err == nil {
				t.Fatalf("sealed %v: cut to %d bytes, and the frame is taken", key != nil, n)
			}
		}
		if _, err := r.Open(d, &h); err != nil {
			t.Fatal("the frame itself:", err)
		}
	}
}

// TestFrameKeys: who has which key takes what.
func TestFrameKeys(t *testing.T) {
	frame := func(key *Key) []byte {
		f := newTestFrame(t, FrameConfig{Key: key})
		var b Batch
		f.PackStats(&b, []byte("{}"), false)
		return b.Datagrams[0]
	}
	check := func(sealed *Key, want error, keys ...*Key) {
		t.Helper()
		var h Header
		if _, err := NewFrameReader(FrameReaderConfig{Keys: keys}).Open(frame(sealed), &h); err != want {
			t.Errorf("sealed with %v, reader has %v: %v, want %v", sealed, keys, err, want)
		}
	}
	one, two := testKey(1), testKey(2)
	check(nil, nil)
	check(nil, ErrNotSealed, one)
	check(one, ErrUnknownKey)
	check(one, ErrUnknownKey, two)
	check(one, nil, one)
	check(two, nil, one, two)
	impostor := &Key{secret: two.secret, id: one.id}
	check(impostor, ErrCheck, one)

	// What a host's key can seal is that host's and nobody else's.
	a, b := one.forHost("a"), one.forHost("b")
	check(a, nil, one)
	check(a, nil, two, one)
	check(a, nil, a) // its owner reads what it sealed
	check(a, ErrUnknownKey, two)
	check(a, ErrUnknownKey, b)
	check(one, ErrUnknownKey, a) // the fleet's key is not found in a host's
	check(&Key{secret: a.secret, id: one.id, host: "b"}, ErrCheck, one)
	check(&Key{secret: a.secret, id: one.id}, ErrCheck, one)
	check(&Key{secret: two.forHost("a").secret, id: one.id, host: "a"}, ErrCheck, one)
}

// TestFrameHosts: frames of several hosts through one reader each name theirs, again and
// again, without an allocation, and a host cannot use what another one's frame left.
func TestFrameHosts(t *testing.T) {
	master := testKey(1)
	r := NewFrameReader(FrameReaderConfig{Keys: []*Key{master}})
	var frames [][]byte
	for _, name := range []string{"a", "b", strings.Repeat("n", MaxKeyHost), ""} {
		key := master
		if name != "" {
			key = master.forHost(name)
		}
		f := newTestFrame(t, FrameConfig{Key: key, Stream: uint64(len(frames)), MaxDatagram: MinFrameDatagram})
		var b Batch
		f.PackStats(&b, []byte("{}"), false)
		if err := f.Pack(&b, &Event{Number: 1, Wire: make([]byte, 5000)}); err != nil { // in fragments
			t.Fatal(err)
		}
		f.Flush(&b)
		for _, d := range b.Datagrams {
			var h Header
			if _, err := r.Open(d, &h); err != nil || h.Host != name || len(d) > MinFrameDatagram {
				t.Fatalf("%q: opened as of %q, %v, %d bytes", name, h.Host, err, len(d))
			}
		}
		frames = append(frames, b.Datagrams[0])
	}
	var h Header
	if n := testing.AllocsPerRun(100, func() {
		for _, d := range frames {
			if _, err := r.Open(d, &h); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("known streams cost %v allocations", n)
	}
	// The same stream and salt under another name.
	forged := bytes.Replace(frames[0], []byte("\x01a"), []byte("\x01b"), 1)
	if _, err := r.Open(forged, &h); err != ErrCheck {
		t.Errorf("a frame of a under the name of b: %v", err)
	}
	if _, err := r.Open(frames[0], &h); err != nil || h.Host != "a" {
		t.Errorf("after it, a's own: %q, %v", h.Host, err)
	}
}

// TestFrameNumbers: a hole in the numbers or another form ends a frame.
func TestFrameNumbers(t *testing.T) {
	f := newTestFrame(t, FrameConfig{})
	var b Batch
	for _, e := range []Event{{Number: 1, Wire: []byte("a")}, {Number: 2, Wire: []byte("b")}, {Number: 9, Wire: []byte("c")}, {Number: 10, Line: []byte("{}\n")}} {
		if err := f.Pack(&b, &e); err != nil {
			t.Fatal(err)
		}
	}
	f.Flush(&b)
	got := receive(t, NewFrameReader(FrameReaderConfig{}), b.Datagrams)
	text := ""
	for _, e := range got {
		text += fmt.Sprintf("%d%s ", e.Number, e.Wire)
	}
	if text != "1a 2b 9c 10{} " || len(b.Datagrams) != 3 {
		t.Errorf("%q in %d datagrams", text, len(b.Datagrams))
	}
	// Events that are packed again do not turn back what a goodbye says.
	b.Reset()
	if err := f.Pack(&b, &Event{Number: 4, Wire: []byte("d")}); err != nil {
		t.Fatal(err)
	}
	f.PackStats(&b, []byte("{}"), true)
	var h Header
	if _, err := NewFrameReader(FrameReaderConfig{}).Open(b.Datagrams[1], &h); err != nil || h.Last() != 10 {
		t.Errorf("after number 10 a goodbye says %d, %v", h.Last(), err)
	}
}

// TestFrameOversize: what no number of fragments can carry is refused, and
// changes nothing.
func TestFrameOversize(t *testing.T) {
	f := newTestFrame(t, FrameConfig{MaxDatagram: MinFrameDatagram})
	var b Batch
	for _, size := range []int{MaxFrameEvent + 1, maxFragments*(MinFrameDatagram-maxOverhead) + 1} {
		if err := f.Pack(&b, &Event{Number: 1, Wire: make([]byte, size)}); !errors.Is(err, ErrOversize) || f.Waiting() != 0 || len(b.Datagrams) != 0 {
			t.Errorf("%d bytes: %v, %d wait", size, err, f.Waiting())
		}
	}
	f = newTestFrame(t, FrameConfig{MaxDatagram: MaxPayload, Compression: CompressionZstd})
	if err := f.Pack(&b, &Event{Number: 1, Wire: make([]byte, MaxFrameEvent)}); err != nil {
		t.Error(err)
	}
	f.Flush(&b)
	if got := receive(t, NewFrameReader(FrameReaderConfig{}), b.Datagrams); len(got) != 1 || len(got[0].Wire) != MaxFrameEvent {
		t.Error("the longest event did not come back")
	}
}

// TestFrameAllocates: neither side allocates once it runs.
func TestFrameAllocates(t *testing.T) {
	var sample []Event
	for _, e := range events(messages(t)) {
		if len(e.Wire) < 800 { // what needs no fragments
			sample = append(sample, e)
		}
	}
	for _, compression := range []Compression{CompressionNone, CompressionS2, CompressionZstd} {
		if raceEnabled && compression == CompressionZstd {
			continue
		}
		for _, key := range []*Key{nil, testKey(1)} {
			f := newTestFrame(t, FrameConfig{Compression: compression, Key: key, Pad: true})
			config := FrameReaderConfig{}
			if key != nil {
				config.Keys = []*Key{key}
			}
			r := NewFrameReader(config)
			var b Batch
			var h Header
			count := 0
			take := func(uint64, []byte) { count++ }
			number := uint64(0)
			round := func() {
				for i := range sample {
					number++
					sample[i].Number = number
					_ = f.Pack(&b, &sample[i])
				}
				f.Flush(&b)
				for _, d := range b.Datagrams {
					body, err := r.Open(d, &h)
					if err == nil {
						err = r.Read(&h, body, testTime, take)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				b.Reset()
			}
			for range 3 {
				round() // what waits grows to its size
			}
			if n := testing.AllocsPerRun(5, round); n != 0 && !(raceEnabled && compression == CompressionZstd) {
				t.Errorf("%v, sealed %v: %v allocations for %d events, want 0", compression, key != nil, n, len(sample))
			}
			if count == 0 {
				t.Error("no event came")
			}
		}
	}
}
