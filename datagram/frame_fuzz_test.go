package datagram

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// FuzzFrame: no datagram, with a checksum that fits or not, makes the reader
// panic or use more memory than its limits say; and a header that is taken is
// in the one form that its fields have.
func FuzzFrame(f *testing.F) {
	sample := messages(f)
	for _, c := range []FrameConfig{{}, {Compression: CompressionS2}, {Compression: CompressionZstd, Pad: true}, {MaxDatagram: 256}, {Key: testKey(1)}} {
		p := newTestFrame(f, c)
		var b Batch
		for i, m := range sample[:20] {
			_ = p.Pack(&b, &Event{Number: uint64(i) + 1, Wire: m})
		}
		p.PackRecord(&b, []byte("{}"))
		p.PackStats(&b, []byte("{}"), true)
		for _, d := range b.Datagrams[max(0, len(b.Datagrams)-4):] {
			f.Add(d, true)
		}
	}
	limits := FragmentLimits{Bytes: 1 << 20, Sets: 8, SetsPerStream: 4}
	plain := NewFrameReader(FrameReaderConfig{Fragments: limits})
	sealed := NewFrameReader(FrameReaderConfig{Fragments: limits, Keys: []*Key{testKey(1)}})
	f.Fuzz(func(t *testing.T, d []byte, fits bool) {
		if len(d) > MaxPayload {
			return
		}
		if fits && len(d) >= crcBytes {
			end := len(d) - crcBytes
			d = binary.BigEndian.AppendUint32(bytes.Clone(d[:end]), crc32.Checksum(d[:end], castagnoli))
		}
		for _, r := range []*FrameReader{plain, sealed} {
			var h Header
			body, err := r.Open(d, &h)
			if err != nil {
				continue
			}
			if again := appendHeader(nil, &h); !bytes.HasPrefix(d, again) || len(again) != headerSize(&h) {
				t.Fatalf("%+v\nis written as %x\nnot as     %x", h, again, d)
			}
			count := 0
			err = r.Read(&h, body, testTime, func(number uint64, event []byte) {
				count++
				if h.Kind == KindEvent && (number < h.First || number > h.Last()) {
					t.Fatalf("event %d of %+v", number, h)
				}
			})
			if err != nil && count > 0 {
				t.Fatalf("%d events came, and then %v", count, err)
			}
			if s := r.Fragments(); s.Bytes > limits.Bytes || s.Sets > limits.Sets || cap(r.expanded) > maxKept || cap(r.joined()) > maxKept {
				t.Fatalf("%+v, %d and %d bytes kept", s, cap(r.expanded), cap(r.joined()))
			}
		}
	})
}

func (r *FrameReader) joined() []byte { return r.fragments.joined }

// FuzzFramePack: whatever is packed in whatever way comes back.
func FuzzFramePack(f *testing.F) {
	f.Add([]byte("some events, some events, and some more"), uint8(0), uint16(1232), uint64(7))
	f.Add(bytes.Repeat([]byte("repeats "), 500), uint8(0x1d), uint16(300), uint64(1))
	for i, m := range messages(f) {
		if len(m) > 3000 && len(m) < 5000 && i%4 == 0 {
			f.Add(m, uint8(i), uint16(i), uint64(i))
		}
	}
	key := testKey(1)
	plain := NewFrameReader(FrameReaderConfig{})
	sealed := NewFrameReader(FrameReaderConfig{Keys: []*Key{key}})
	f.Fuzz(func(t *testing.T, text []byte, bits uint8, limit uint16, cuts uint64) {
		c := FrameConfig{Stream: cuts, Compression: Compression(bits & 3 % 3), Pad: bits&4 != 0, MaxDatagram: max(MinFrameDatagram, min(int(limit), MaxPayload))}
		r := plain
		if bits&8 != 0 {
			c.Key, r = key, sealed
		}
		if bits&16 != 0 {
			c.Dictionary = NoDictionary
		}
		p := newTestFrame(t, c)
		p.SetSums(Sums{Seen: cuts})
		var b Batch
		var want [][]byte
		for rest := text; len(rest) > 0; cuts = cuts>>3 | cuts<<61 {
			n := min(len(rest), int(cuts&0x3ff))
			event := rest[:n:n]
			want = append(want, event)
			if err := p.Pack(&b, &Event{Number: uint64(len(want)), Wire: event}); err != nil {
				t.Fatal(err)
			}
			rest = rest[max(n, 1):]
		}
		p.Flush(&b)
		var got []Event
		for _, d := range b.Datagrams {
			if len(d) > c.MaxDatagram {
				t.Fatalf("a datagram of %d bytes, limit %d", len(d), c.MaxDatagram)
			}
		}
		got = receive(t, r, b.Datagrams)
		if len(got) != len(want) {
			t.Fatalf("%d events came, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i].Number != uint64(i)+1 || !bytes.Equal(got[i].Wire, want[i]) {
				t.Fatalf("event %d came as %d, %x, want %x", i+1, got[i].Number, got[i].Wire, want[i])
			}
		}
	})
}
