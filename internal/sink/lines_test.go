package sink

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func batch(lines ...string) *Batch {
	b := new(Batch)
	for _, line := range lines {
		b.Add([]byte(line))
	}
	return b
}

func TestBatch(t *testing.T) {
	b := batch("one", "", "three")
	if string(b.Text) != "one\n\nthree\n" || b.Len() != 3 {
		t.Fatalf("%q, %d lines", b.Text, b.Len())
	}
	for i, want := range []string{"one\n", "\n", "three\n"} {
		if got := string(b.Line(i)); got != want {
			t.Errorf("line %d: %q, want %q", i, got, want)
		}
	}
	if b.Reset(); b.Len() != 0 || len(b.Text) != 0 {
		t.Error("not empty after Reset")
	}
}

// limited takes so many bytes in all, then fails as a full disk does.
type limited struct {
	bytes.Buffer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	n, _ := l.Buffer.Write(p[:min(len(p), l.room)])
	l.room -= n
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestLinesOnAPipeStartsANewLineAfterAShortWrite(t *testing.T) {
	f := func(room, wantLines int, want string) {
		t.Helper()
		w := &limited{room: room}
		s := NewLines(w)
		n, err := s.Write(batch("first", "second"))
		if n != wantLines || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("room for %d: %d lines, %v; want %d and ENOSPC", room, n, err, wantLines)
		}
		w.room = 100
		if n, err := s.Write(batch("third")); n != 1 || err != nil {
			t.Errorf("room for %d: then %d lines, %v", room, n, err)
		}
		if got := w.String(); got != want {
			t.Errorf("room for %d: %q, want %q", room, got, want)
		}
	}
	f(0, 0, "third\n")
	f(3, 0, "fir\nthird\n")
	f(5, 0, "first\nthird\n") // whole but for its newline: not taken, and so written is no lie
	f(6, 1, "first\nthird\n")
	f(9, 1, "first\nsec\nthird\n")
}

// A full disk, made by the file size limit of this process: the kernel takes a
// part of the block, then says EFBIG as it would say ENOSPC.
func TestFileIsCutBackToItsLastWholeLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	s, err := OpenFile(FileConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	withFileLimit(t, 10, func() {
		if n, err := s.Write(batch("first", "second")); n != 1 || !errors.Is(err, unix.EFBIG) {
			t.Errorf("%d lines, %v; want 1 and EFBIG", n, err)
		}
		wantFile(t, path, "first\n")
		if n, err := s.Write(batch("a line too long")); n != 0 || err == nil {
			t.Errorf("still full: %d lines, %v", n, err)
		}
		wantFile(t, path, "first\n")
	})
	if n, err := s.Write(batch("third")); n != 1 || err != nil {
		t.Errorf("room again: %d lines, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantFile(t, path, "first\nthird\n")
}

// Standard output that a shell redirected is a file without O_APPEND.
func TestRedirectedOutputHasNoHoleAfterACut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := NewLines(f)
	withFileLimit(t, 10, func() {
		if n, err := s.Write(batch("first", "second")); n != 1 || err == nil {
			t.Errorf("%d lines, %v; want 1 and an error", n, err)
		}
	})
	if _, err := s.Write(batch("third")); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantFile(t, path, "first\nthird\n")
	if _, err := f.Stat(); err != nil {
		t.Errorf("Close closed what it does not own: %v", err)
	}
}

func TestOpenFileRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "such", "folder")
	if _, err := OpenFile(FileConfig{Path: path}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if _, err := OpenFile(FileConfig{Path: os.DevNull, MaxBytes: -1}); err == nil || !strings.Contains(err.Error(), "-1 bytes") {
		t.Errorf("%v", err)
	}
}

func TestDeviceFull(t *testing.T) {
	s, err := OpenFile(FileConfig{Path: "/dev/full"})
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: /dev/full: %v", err)
	}
	if n, err := s.Write(batch("line")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d lines, %v; want 0 and ENOSPC", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestTeeCountsWhatAllTook(t *testing.T) {
	whole, half := new(bytes.Buffer), &limited{room: 4}
	s := Tee(NewLines(whole), NewLines(half))
	if n, err := s.Write(batch("one", "two")); n != 1 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d lines, %v; want 1 and ENOSPC", n, err)
	}
	if whole.String() != "one\ntwo\n" || half.String() != "one\n" {
		t.Errorf("%q and %q", whole, half)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// withFileLimit runs do while no file of this process may grow beyond bytes.
func withFileLimit(t *testing.T, bytes uint64, do func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("the file holds %q, %v; want %q", got, err, want)
	}
}
