package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// open opens a file in a new folder, or the path of the configuration.
func open(t testing.TB, config FileConfig) (*File, string) {
	t.Helper()
	if config.Path == "" {
		config.Path = filepath.Join(t.TempDir(), "events.jsonl")
	}
	f, err := OpenFile(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, config.Path
}

func write(t testing.TB, f *File, lines ...string) {
	t.Helper()
	if n, err := f.Write(batch(lines...)); n != len(lines) || err != nil {
		t.Fatalf("%d of %d lines, %v", n, len(lines), err)
	}
}

// contents returns what the rotated files hold, the oldest first, and then the
// current one.
func contents(t testing.TB, path string) (texts []string) {
	t.Helper()
	n := namesOf(path)
	list, err := n.list()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		text, err := os.ReadFile(n.rotated(r.at))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return append(texts, string(text))
}

func TestRotation(t *testing.T) {
	f := func(maxBytes int64, batches [][]string, want ...string) {
		t.Helper()
		out, path := open(t, FileConfig{MaxBytes: maxBytes})
		for _, lines := range batches {
			write(t, out, lines...)
		}
		if got := contents(t, path); !slices.Equal(got, want) {
			t.Errorf("limit %d: %q, want %q", maxBytes, got, want)
		}
	}
	abc := []string{"aaa", "bbb", "ccc"} // 4 bytes each
	one := [][]string{{"aaa"}, {"bbb"}, {"ccc"}}
	f(0, [][]string{abc}, "aaa\nbbb\nccc\n")
	f(1<<63-1, [][]string{abc}, "aaa\nbbb\nccc\n")
	f(12, [][]string{abc}, "aaa\nbbb\nccc\n")
	f(11, [][]string{abc}, "aaa\nbbb\n", "ccc\n")
	f(8, one, "aaa\nbbb\n", "ccc\n")
	f(7, [][]string{abc}, "aaa\n", "bbb\n", "ccc\n")
	f(4, one, "aaa\n", "bbb\n", "ccc\n")
	f(1, [][]string{abc}, "aaa\n", "bbb\n", "ccc\n") // too long for any file: one alone
	f(8, [][]string{{"a", "too long a line", "b"}, {"c"}}, "a\n", "too long a line\n", "b\nc\n")
	f(4, [][]string{{}, {""}, {}}, "\n")
}

// Over a restart the limit holds too.
func TestRotationGoesOnAfterARestart(t *testing.T) {
	out, path := open(t, FileConfig{MaxBytes: 8})
	write(t, out, "aaa")
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	out, _ = open(t, FileConfig{Path: path, MaxBytes: 8})
	write(t, out, "bbb", "ccc")
	if got, want := contents(t, path), []string{"aaa\nbbb\n", "ccc\n"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Whatever the sizes: no line is lost, divided or moved, no file is too long, and
// none is rotated before it has to be.
func TestRotationAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		limit := 1 + random.IntN(200)
		out, path := open(t, FileConfig{MaxBytes: int64(limit)})
		var all strings.Builder
		for range 1 + random.IntN(8) {
			var b Batch
			for range random.IntN(10) {
				b.Add(bytes.Repeat([]byte{'x'}, random.IntN(1+limit*5/4)))
			}
			all.Write(b.Text)
			if n, err := out.Write(&b); n != b.Len() || err != nil {
				t.Fatal(n, err)
			}
		}
		texts := contents(t, path)
		if strings.Join(texts, "") != all.String() {
			t.Fatalf("limit %d: the files are not what was written", limit)
		}
		for i, text := range texts {
			if len(text) > limit && strings.Count(text, "\n") > 1 {
				t.Errorf("limit %d: a file of %d bytes", limit, len(text))
			}
			if i > 0 && len(texts[i-1])+strings.Index(text, "\n")+1 <= limit {
				t.Errorf("limit %d: %q was rotated before %q", limit, texts[i-1], text)
			}
		}
	}
}

func TestRetention(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "events.jsonl")
	others := []string{"events-2.jsonl", "events-2026-13-24T08-00-00.000.jsonl", "events-2026-11-24T08-00-00.000.json",
		"events-2026-11-24T08-00-00.000.jsonl.bak", "other-2026-11-24T08-00-00.000.jsonl", "events-2026-11-24T08-00-00,000.jsonl"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "events-2000-01-01T00-00-00.000.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	// From before: the oldest is there in two forms, after a crash.
	for _, name := range []string{"events-2020-01-01T00-00-00.000.jsonl", "events-2020-01-01T00-00-00.000.jsonl.gz", "events-2020-01-02T00-00-00.000.jsonl.zst"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, _ := open(t, FileConfig{Path: path, MaxBytes: 2, MaxFiles: 4})
	left := func() (times []string) {
		list, err := f.names.list()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			times = append(times, r.at[:10])
		}
		return times
	}
	write(t, f, "0", "1")
	today := left()[2]
	for i, want := range [][]string{{"2020-01-01", "2020-01-02", today}, {"2020-01-02", today, today}, {today, today, today}, {today, today, today}} {
		if i > 0 {
			write(t, f, fmt.Sprint(i+1))
		}
		if got := left(); !slices.Equal(got, want) {
			t.Errorf("after rotation %d: %v, want %v", i+1, got, want)
		}
	}
	if got, want := contents(t, path), []string{"1\n", "2\n", "3\n", "4\n"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Errorf("a file that is no rotation was touched: %v", err)
		}
	}
}

// The order of the names is that of the events, whatever the clock does.
func TestNameOfARotation(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 123_456_789, time.FixedZone("", 3600))
	f := func(newest, want string) {
		t.Helper()
		var list []rotation
		if newest != "" {
			list = []rotation{{at: "2001-01-01T00-00-00.000"}, {at: newest}}
		}
		if got := next(list, now); got != want {
			t.Errorf("after %s: %s, want %s", newest, got, want)
		}
	}
	f("", "2026-11-24T08-00-00.123")
	f("2026-11-24T08-00-00.122", "2026-11-24T08-00-00.123")
	f("2026-11-24T08-00-00.123", "2026-11-24T08-00-00.124")
	f("2026-12-31T23-59-59.999", "2027-01-01T00-00-00.000")
}

func TestReopen(t *testing.T) {
	f, path := open(t, FileConfig{})
	write(t, f, "one")
	f.Reopen() // nothing was moved
	write(t, f, "two")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, f, "three") // not told yet
	f.Reopen()
	wantFile(t, path, "")
	write(t, f, "four")
	wantFile(t, path+".1", "one\ntwo\nthree\n")
	wantFile(t, path, "four\n")

	// With a file of the mover's, whose last line is torn.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{}\n{\"ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	write(t, f, "five")
	wantFile(t, path, "{}\nfive\n")
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	f.Reopen() // does nothing any more
	if n, err := f.Write(batch("six")); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %d lines, %v", n, err)
	}
}

// Others may cut the file off (copytruncate of logrotate), delete it, or move it
// when it is time to rotate.
func TestOthersHandleTheFile(t *testing.T) {
	f, path := open(t, FileConfig{MaxBytes: 8})
	write(t, f, "aaa", "bbb")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, f, "ccc", "ddd") // there is room for both
	wantFile(t, path, "ccc\nddd\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, f, "eee", "fff")
	wantFile(t, path, "eee\nfff\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("not"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, f, "ggg") // the file that has the name now is not rotated, for it is not ours
	if got, want := contents(t, path), []string{"not\nggg\n"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	wantFile(t, path+".1", "eee\nfff\n")
	if got, want := f.Stats(), (FileStats{Reopens: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestRotationBehindASymbolicLink(t *testing.T) {
	folder := t.TempDir()
	link, target := filepath.Join(folder, "link"), filepath.Join(folder, "data", "events.jsonl")
	if err := errors.Join(os.Mkdir(filepath.Dir(target), 0o700), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	f, _ := open(t, FileConfig{Path: link, MaxBytes: 4})
	write(t, f, "aaa", "bbb")
	if got, want := contents(t, target), []string{"aaa\n", "bbb\n"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	wantFile(t, link, "bbb\n")
}

// A group that was let in stays in.
func TestModeAndOwnerAreInherited(t *testing.T) {
	f, path := open(t, FileConfig{MaxBytes: 4})
	wantMode := func(want fs.FileMode, group uint32) {
		t.Helper()
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil || stat.Mode&0o777 != uint32(want) || stat.Gid != group {
			t.Errorf("mode %o, group %d, %v; want %o and %d", stat.Mode&0o777, stat.Gid, err, want, group)
		}
	}
	group := uint32(os.Getegid())
	wantMode(0o600, group)
	if os.Geteuid() == 0 {
		group = 4711
		if err := os.Chown(path, -1, int(group)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, f, "aaa", "bbb") // rotates
	wantMode(0o640, group)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	wantMode(0o640, group)
}

func TestTwoProcessesAtOneFile(t *testing.T) {
	f, path := open(t, FileConfig{MaxBytes: 4})
	refused := func() {
		t.Helper()
		if _, err := OpenFile(FileConfig{Path: path}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want ErrInUse", err)
		}
	}
	refused()
	write(t, f, "aaa", "bbb")
	refused() // the new file is locked as the first one was
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, FileConfig{Path: path})
	open(t, FileConfig{Path: os.DevNull, MaxBytes: 1})
	open(t, FileConfig{Path: os.DevNull, MaxBytes: 1})
}

// unprivileged runs do as a user who may do nothing to folders of others. It
// changes the rights of this thread only.
func unprivileged(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		do()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setfsuid(0); err != nil {
			panic(err) // the thread is of no use any more
		}
	}()
	do()
}

// locked makes the folder one in which names can be neither made nor removed, for
// a user without privileges, until the test ends.
func locked(t *testing.T, folder string) {
	t.Helper()
	if err := os.Chmod(folder, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(folder, 0o700) })
}

func TestPermissionsAreAskedForAtTheStart(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	path := filepath.Join(folder, "events.jsonl")
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(path, nil, 0o666), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	// t.TempDir's own folders are closed to others.
	for dir := filepath.Dir(folder); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: %v", err)
		}
	}
	locked(t, folder)
	unprivileged(t, func() {
		_, err := OpenFile(FileConfig{Path: path, MaxBytes: 1 << 20})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "access "+folder) {
			t.Errorf("%v, want a refusal that names the folder", err)
		}
		f, err := OpenFile(FileConfig{Path: path})
		if err != nil {
			t.Fatalf("without rotation the folder's mode is of no interest, but %v", err)
		}
		write(t, f, "line")
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if _, err := OpenFile(FileConfig{Path: filepath.Join(folder, "new")}); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v, want a refusal", err)
		}
	})
}

// A rotation that fails loses no line: the file grows, and is rotated when it can
// be again.
func TestRotationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f, path := open(t, FileConfig{MaxBytes: 4, Log: slog.New(slog.NewTextHandler(&log, nil))})
		locked(t, filepath.Dir(path))
		unprivileged(t, func() {
			for _, line := range []string{"aaa", "bbb", "ccc"} {
				write(t, f, line)
			}
			time.Sleep(retryInterval)
			write(t, f, "ddd")
		})
		if got, want := contents(t, path), []string{"aaa\nbbb\nccc\nddd\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if n := strings.Count(log.String(), "Rotating the output file fails"); n != 2 {
			t.Errorf("logged %d times, want one at each try:\n%s", n, log.String())
		}
		if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, f, "eee") // not yet
		time.Sleep(retryInterval)
		write(t, f, "fff")
		if got, want := contents(t, path), []string{"aaa\nbbb\nccc\nddd\neee\n", "fff\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if !strings.Contains(log.String(), "Rotating the output file works again") {
			t.Errorf("nothing says that it works again:\n%s", log.String())
		}
		if got, want := f.Stats(), (FileStats{Rotations: 1, FailedRotations: 2}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// While the file cannot be opened anew the moved one is written on; a deleted one
// is not, for nobody could read it: the lines are refused, and so counted.
func TestReopenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f, path := open(t, FileConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
		write(t, f, "one")
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		locked(t, filepath.Dir(path))
		unprivileged(t, func() {
			f.Reopen()
			write(t, f, "two")
		})
		wantFile(t, path+".1", "one\ntwo\n")
		if n := strings.Count(log.String(), "Opening the output file anew fails"); n != 1 {
			t.Errorf("logged %d times, want one:\n%s", n, log.String())
		}
		if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryInterval)
		write(t, f, "three")
		wantFile(t, path, "three\n")

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		locked(t, filepath.Dir(path))
		unprivileged(t, func() {
			if n, err := f.Write(batch("four")); n != 0 || !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%d lines, %v; want none and a refusal", n, err)
			}
		})
		if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, f, "five")
		wantFile(t, path, "five\n")
	})
}

// Everything at once: each line is in one file, once.
func TestWriteBesideReopenAndRun(t *testing.T) {
	f, path := open(t, FileConfig{MaxBytes: 20_000, Compression: Gzip})
	ctx, stop := context.WithCancel(t.Context())
	var beside sync.WaitGroup
	beside.Go(func() { _ = f.Run(ctx) })
	beside.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = os.Rename(path, fmt.Sprintf("%s.%d", path, i)) // between two files there is none
			f.Reopen()
			time.Sleep(time.Millisecond)
		}
	})
	const batches, each = 500, 20
	for i := range batches {
		var b Batch
		for j := range each {
			b.Add(fmt.Appendf(nil, "{\"line\":%d}", i*each+j))
		}
		if n, err := f.Write(&b); n != each || err != nil {
			t.Fatal(n, err)
		}
	}
	stop()
	beside.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, line := range allLines(t, filepath.Dir(path)) {
		seen[line]++
	}
	for i := range batches * each {
		if n := seen[fmt.Sprintf("{\"line\":%d}\n", i)]; n != 1 {
			t.Fatalf("line %d is there %d times", i, n)
		}
	}
	if len(seen) != batches*each {
		t.Errorf("%d lines, want %d", len(seen), batches*each)
	}
}

func TestFileAllocates(t *testing.T) {
	f, _ := open(t, FileConfig{MaxBytes: 1 << 30, MaxFiles: 10, Compression: Zstd})
	b := batch("one", "two")
	if n := testing.AllocsPerRun(100, func() { _, _ = f.Write(b) }); n != 0 {
		t.Errorf("a batch costs %v allocations, want 0", n)
	}
}

// BenchmarkFile is a write of 256 KiB, some 200 events, as the collector makes
// them, and one of a single event: beside Lines, which knows no rotation, and the
// write call, below which nothing can go.
func BenchmarkFile(b *testing.B) {
	for _, lines := range []int{1, 200} {
		var batch Batch
		for range lines {
			batch.Add(bytes.Repeat([]byte{'x'}, 1300))
		}
		path := filepath.Join(b.TempDir(), "events.jsonl")
		measure := func(name string, write func() error) {
			b.Run(fmt.Sprintf("%s-%d", name, lines), func(b *testing.B) {
				b.SetBytes(int64(len(batch.Text)))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := write(); err != nil {
						b.Fatal(err)
					}
					if i%100 == 99 {
						_ = os.Truncate(path, 0) // so that all write to a warm file
					}
				}
			})
		}
		f, _ := open(b, FileConfig{Path: path, MaxBytes: 1 << 30, MaxFiles: 10})
		measure("file", func() error { _, err := f.Write(&batch); return err })
		plain := NewLines(f.file)
		measure("lines", func() error { _, err := plain.Write(&batch); return err })
		measure("floor-write", func() error { _, err := f.file.Write(batch.Text); return err })
	}
}
