package datagram

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestFrameRemake: wherever a batch was cut, between frames or between the fragments
// of one, all that was not sent arrives once in frames of the new size, what waited
// in the packer too. Only the event of which some fragments had left is lost.
func TestFrameRemake(t *testing.T) {
	key := testKey(7)
	for _, c := range []FrameConfig{
		{Compression: CompressionNone, Pad: true},
		{Compression: CompressionS2},
		{Compression: CompressionZstd, JSON: true, Key: key},
		{Compression: CompressionS2, Dictionary: NoDictionary, Key: key, Pad: true},
	} {
		t.Run(fmt.Sprintf("%v json %v sealed %v", c.Compression, c.JSON, c.Key != nil), func(t *testing.T) {
			c.Stream, c.MaxDatagram = 9, 1472
			testFrameRemake(t, c)
		})
	}
}

func testFrameRemake(t *testing.T, c FrameConfig) {
	var random *rand.Rand
	var events []Event
	event := func() *Event {
		size := 20 + random.IntN(300)
		if random.IntN(6) == 0 {
			size = 1000 + random.IntN(6000)
		}
		bytes := make([]byte, size)
		for i := range bytes {
			bytes[i] = 'a' + byte(random.Uint32()%16)
		}
		e := Event{Number: uint64(len(events) + 1), Wire: bytes}
		if c.JSON {
			e.Line, e.Wire = bytes, nil
		}
		events = append(events, e)
		return &e
	}
	cuts, lost := 0, 0
	for from := 0; ; from++ {
		events, random = events[:0], rand.New(rand.NewPCG(1, 2)) // the same again
		f, err := NewFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		var old, anew, after Batch
		for range 40 {
			if err := f.Pack(&old, event()); err != nil {
				t.Fatal(err)
			}
		}
		if from == len(old.Datagrams) {
			break
		}
		waiting := f.Waiting()
		f.SetMaxDatagram(600)
		lostNow := f.Remake(&anew, &old, from)
		if f.Waiting() != waiting {
			t.Fatalf("cut at %d: %d events wait, before it %d", from, f.Waiting(), waiting)
		}
		cut := from > 0 && old.More[from-1]
		if want := map[bool]int{true: 1}[cut]; lostNow != want {
			t.Fatalf("cut at %d: %d events lost, want %d", from, lostNow, want)
		}
		lost += lostNow
		cuts++
		for range 10 {
			_ = f.Pack(&after, event())
		}
		f.Flush(&after)
		for _, d := range anew.Datagrams {
			if len(d) > 600 {
				t.Fatalf("cut at %d: a frame of %d bytes", from, len(d))
			}
		}
		got := map[uint64]int{}
		reader := f.reader()
		for _, d := range append(append(old.Datagrams[:from:from], anew.Datagrams...), after.Datagrams...) {
			var h Header
			body, err := reader.Open(d, &h)
			if err == nil {
				err = reader.Read(&h, body, time.Time{}, func(number uint64, b []byte) {
					got[number]++
					if e := &events[number-1]; !bytes.Equal(b, append(e.Wire, e.Line...)) {
						t.Errorf("cut at %d: event %d has other bytes", from, number)
					}
				})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range events {
			if got[uint64(i+1)] > 1 {
				t.Fatalf("cut at %d: event %d came %d times", from, i+1, got[uint64(i+1)])
			}
		}
		if len(got) != len(events)-lostNow {
			t.Fatalf("cut at %d: %d of %d events came, %d were lost", from, len(got), len(events), lostNow)
		}
	}
	if cuts < 10 || lost == 0 {
		t.Fatalf("%d cuts, %d events lost by them: too few to tell", cuts, lost)
	}
}
