package ledger

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func counters(stream uint64) Counters {
	n := uint64(stream)
	return Counters{Stream: stream, StartedAt: time.Unix(1, 5).UTC(), Seen: 10, Excluded: 1, Dropped: Drops{Oversize: 1, NotPermitted: 2}, Refused: 2, LastNumber: 8, Sent: 6, Datagrams: 9, Truncated: 1,
		Offered: Offered{First: 7, Last: 8, Events: 2}, Destination: 5, Began: 3, Ended: 4, Streams: 2,
		Before: Before{Breaks: 2, BlindTime: 68324 * time.Millisecond, BlindUnknown: true, Losses: Losses{0: new(uint64), 2: &n}}}
}

var boot = [16]byte{1, 2, 3}

func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "export.counters")
	a, b := counters(7), counters(8)
	b.Goodbye = true
	b.Counted = Moment{Wall: time.Unix(3, 4).UTC(), Monotonic: 5 * time.Second, Boot: boot}
	p, err := CreatePage(path, boot, []Counters{a, {}, {}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if got, err := ReadPage(path); err != nil || !reflect.DeepEqual(got, []Counters{a, {}, {}}) {
		t.Errorf("%+v, %v", got, err)
	}
	p.Store(2, &b)
	p.Store(3, &a) // there is no such slot
	// Without closing: as after a kill.
	got, err := ReadPage(path)
	if err != nil || !reflect.DeepEqual(got, []Counters{a, {}, b}) {
		t.Errorf("%+v, %v", got, err)
	}
	if n := testing.AllocsPerRun(100, func() { p.Store(0, &a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	earlier := append([]byte("tcstate1"), text[8:]...)
	for _, bad := range [][]byte{nil, text[:20], text[:pageHeader+8], earlier, append(text, 0)} {
		if err := os.WriteFile(path+"3", bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadPage(path + "3"); !errors.Is(err, ErrPage) || got != nil {
			t.Errorf("%d bytes: %v, want ErrPage", len(bad), err)
		}
	}
	for _, n := range []int{0, maxSlots + 1} {
		if _, err := CreatePage(path, boot, make([]Counters, n)); err == nil {
			t.Errorf("%d slots were taken", n)
		}
	}
}

// TestPageTorn ends a store after each of its bytes, as a kill can: a reader finds
// what was there before or what was stored, never a mixture, and never nothing.
func TestPageTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	a, b := counters(7), counters(7)
	b.Seen, b.Sent, b.LastNumber, b.Goodbye, b.Offered = 1<<40, 1<<39, 1<<41, true, Offered{}
	p, err := CreatePage(path, boot, []Counters{{Stream: 1}, a})
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(p.bytes)
	p.Store(1, &b)
	after := bytes.Clone(p.bytes)
	_ = p.Close()
	slot := pageHeader + pageSlot
	// In the order of the stores: the copy, then the word that makes it hold.
	order := append([]int(nil), seq(slot+8, slot+pageSlot)...)
	torn := bytes.Clone(before)
	for step := -1; step < len(order); step++ {
		if step >= 0 {
			torn[order[step]] = after[order[step]]
		}
		if got := readBack(t, torn); !reflect.DeepEqual(got[1], a) {
			t.Fatalf("after %d bytes: %+v", step+1, got[1])
		}
	}
	copy(torn[slot:slot+8], after[slot:]) // one store of 8 bytes
	if got := readBack(t, torn); !reflect.DeepEqual(got[1], b) {
		t.Fatalf("in the end: %+v", got[1])
	}
}

func readBack(t *testing.T, text []byte) []Counters {
	t.Helper()
	got, ok := parsePage(text)
	if !ok {
		t.Fatal("damaged")
	}
	return got
}

func seq(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// TestPageFlipped flips each bit of a page: what comes back is as it was stored, or
// nothing and an error. Bits of the copy that does not hold change nothing.
func TestPageFlipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	a, b := counters(7), counters(8)
	a.Counted = Moment{Wall: time.Unix(3, 4).UTC(), Monotonic: 5 * time.Second, Boot: boot}
	p, err := CreatePage(path, boot, []Counters{a, {}})
	if err != nil {
		t.Fatal(err)
	}
	p.Store(1, &a)
	p.Store(1, &b)
	text := bytes.Clone(p.bytes)
	_ = p.Close()
	unknown := 0
	for bit := range 8 * len(text) {
		text[bit/8] ^= 1 << (bit % 8)
		got, ok := parsePage(text)
		text[bit/8] ^= 1 << (bit % 8)
		if !ok {
			unknown++
		}
		if got == nil && !ok {
			continue
		}
		for i, want := range []Counters{a, b} {
			if !reflect.DeepEqual(got[i], want) && (ok || !reflect.DeepEqual(got[i], Counters{})) {
				t.Fatalf("bit %d of byte %d: slot %d is %+v, %v", bit%8, bit/8, i, got[i], ok)
			}
		}
	}
	if unknown == 0 {
		t.Error("no flip was noticed")
	}
}

// TestPageCutOff: somebody empties the file while it is mapped.
func TestPageCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "export.counters")
	p, err := CreatePage(path, boot, make([]Counters, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	c := counters(7)
	p.Store(0, &c)
	if p.Err() != nil {
		t.Fatal(p.Err())
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	p.Store(0, &c)
	if p.Err() == nil {
		t.Error("a page without a file claims to store")
	}
	p.Store(0, &c)
}

// TestPerish: what was seen is sent, lost for a reason, or killed, whatever of it had
// got a number; what the kernel was being given is killed until somebody received it.
func TestPerish(t *testing.T) {
	for name, test := range map[string]struct {
		intake, stream Counters
		want           Counters
	}{
		"in the queue": {
			Counters{Seen: 100, Excluded: 5, Dropped: Drops{QueueFullProcess: 10}}, Counters{LastNumber: 60, Sent: 60},
			Counters{Seen: 100, Excluded: 5, Dropped: Drops{QueueFullProcess: 10, Killed: 25}, LastNumber: 60, Sent: 60},
		},
		"numbered, and waiting": {
			Counters{Seen: 100}, Counters{LastNumber: 90, Sent: 60, Refused: 4, Dropped: Drops{NotPermitted: 4, Oversize: 2}},
			Counters{Seen: 100, Dropped: Drops{NotPermitted: 4, Oversize: 2, Killed: 34}, LastNumber: 90, Sent: 60, Refused: 30},
		},
		"being given to the kernel": {
			Counters{Seen: 100}, Counters{LastNumber: 60, Sent: 50, Offered: Offered{First: 51, Last: 70, Events: 20}},
			Counters{Seen: 100, Dropped: Drops{Killed: 50}, LastNumber: 70, Sent: 50, Refused: 20, Offered: Offered{First: 51, Last: 70, Events: 20}},
		},
		"began late": {
			Counters{Seen: 100}, Counters{LastNumber: 10, Sent: 10, Began: 80},
			Counters{Seen: 100, Dropped: Drops{Killed: 10}, LastNumber: 10, Sent: 10, Began: 80},
		},
		"ended before": {
			Counters{Seen: 100}, Counters{LastNumber: 10, Sent: 8, Began: 20, Ended: 33},
			Counters{Seen: 100, Dropped: Drops{Killed: 4}, LastNumber: 10, Sent: 8, Refused: 2, Began: 20, Ended: 33},
		},
	} {
		got, want := test.stream, test.want
		got.Perish(&test.intake)
		want.Goodbye, want.Streams = true, 1
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", name, got, want)
		}
	}
}

// TestMoment: the time between two processes is that of the clock that both have.
func TestMoment(t *testing.T) {
	at := time.Unix(1000, 0)
	then := Moment{Wall: at, Monotonic: 50 * time.Second, Boot: boot}
	for name, test := range map[string]struct {
		now  Moment
		want time.Duration
		ok   bool
	}{
		"the wall clock jumps":        {Moment{Wall: at.Add(-time.Hour), Monotonic: 53 * time.Second, Boot: boot}, 3 * time.Second, true},
		"the host was started again":  {Moment{Wall: at.Add(time.Minute), Monotonic: 3 * time.Second, Boot: [16]byte{9}}, time.Minute, true},
		"and has lost the time":       {Moment{Wall: time.Unix(5, 0), Monotonic: 3 * time.Second, Boot: [16]byte{9}}, 0, false},
		"nobody knows whether it was": {Moment{Wall: at.Add(time.Minute), Monotonic: 3 * time.Second}, time.Minute, true},
	} {
		if got, ok := test.now.Since(then); got != test.want || ok != test.ok {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, ok, test.want, test.ok)
		}
	}
	if _, ok := then.Since(Moment{}); ok {
		t.Error("the time since nobody knows when is known")
	}
}

func BenchmarkPageStore(b *testing.B) {
	p, err := CreatePage(filepath.Join(b.TempDir(), "counters"), boot, make([]Counters, 1))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	c := counters(7)
	b.ReportAllocs()
	for b.Loop() {
		c.Seen++
		p.Store(0, &c)
	}
}
