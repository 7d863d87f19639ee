package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func counters(stream uint64) Counters {
	return Counters{Stream: stream, StartedAt: time.Unix(1, 5).UTC(), Seen: 10, Excluded: 1, Dropped: Drops{Oversize: 1, NotPermitted: 2}, Refused: 2, LastNumber: 8, Sent: 6, Datagrams: 9, Truncated: 1}
}

func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "export.counters")
	p, err := CreatePage(path, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	a, b := counters(7), counters(8)
	b.Goodbye = true
	p.Store(0, &a)
	p.Store(2, &b)
	p.Store(3, &a) // there is no such slot
	// Without closing: as after a kill.
	got, err := ReadPage(path)
	if err != nil || !reflect.DeepEqual(got, []Counters{a, b}) {
		t.Errorf("%+v, %v", got, err)
	}
	if n := testing.AllocsPerRun(100, func() { p.Store(0, &a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[pageHeader+16]++ // a store that was cut off
	if err := os.WriteFile(path+"2", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadPage(path + "2"); err != nil || len(got) != 1 || got[0] != b {
		t.Errorf("a torn slot: %+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, text[:20], text[:pageHeader+8], []byte("tcstate2........"), append(text, 0)} {
		if err := os.WriteFile(path+"3", bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPage(path + "3"); !errors.Is(err, ErrPage) {
			t.Errorf("%d bytes: %v, want ErrPage", len(bad), err)
		}
	}
}

// TestPageCutOff: somebody empties the file while it is mapped.
func TestPageCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "export.counters")
	p, err := CreatePage(path, 1)
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

func BenchmarkPageStore(b *testing.B) {
	p, err := CreatePage(filepath.Join(b.TempDir(), "counters"), 1)
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
