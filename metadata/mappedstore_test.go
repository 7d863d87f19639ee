package metadata

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testStore holds a store to what the interface says.
func testStore(t *testing.T, s Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if value, err := s.Get(ctx, "nothing"); !errors.Is(err, ErrNotFound) || value != nil {
		t.Errorf("an empty store has %q, %v", value, err)
	}
	told := make(chan string, 8)
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(key string, value []byte) { told <- key + "=" + string(value) }) }()
	time.Sleep(50 * time.Millisecond) // nothing says that a watch has begun
	for _, value := range []string{"first", "", "second"} {
		given := []byte(value)
		if err := s.Put(ctx, "key", given); err != nil {
			t.Fatal(err)
		}
		for i := range given {
			given[i] = '!' // the store keeps a copy
		}
		if got, err := s.Get(ctx, "key"); err != nil || string(got) != value {
			t.Errorf("put %q, got %q, %v", value, got, err)
		}
	}
	if err := s.Put(ctx, "key", make([]byte, MaxEntry+1)); err == nil {
		t.Error("a value of more than MaxEntry was taken")
	}
	if err := s.Put(ctx, "long", bytes.Repeat([]byte("x"), MaxEntry)); err != nil {
		t.Error(err)
	}
	// A watcher may miss what another put follows at once, but not the last of a key.
	for want := []string{"key=second", "long=" + strings.Repeat("x", MaxEntry)}; len(want) > 0; {
		select {
		case got := <-told:
			want = slices.DeleteFunc(want, func(w string) bool { return w == got })
		case <-time.After(10 * time.Second):
			t.Fatalf("the watcher was never told of %.20q", want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestStores(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testStore(t, NewMemoryStore(10, 0)) })
	t.Run("mapped", func(t *testing.T) { testStore(t, NewMappedStore(filepath.Join(t.TempDir(), "m"))) })
}

// TestMappedStoreIsShared: what one puts, the others get, and what they were lent stays
// as it was.
func TestMappedStoreIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.cache")
	a, b := NewMappedStore(path), NewMappedStore(path)
	ctx := t.Context()
	if err := a.Put(ctx, "a", written("a", 0)); err != nil {
		t.Fatal(err)
	}
	loan, err := b.Lend("a")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { _ = b.Watch(watching, func(key string, _ []byte) { told <- key }) })
	time.Sleep(50 * time.Millisecond)
	for i := range 20 {
		if err := a.Put(ctx, "a", written("a", i)); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(ctx, "b", written("b", i)); err != nil {
			t.Fatal(err)
		}
		if value, err := b.Get(ctx, "a"); err != nil || !bytes.Equal(value, written("a", i)) {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	if value, ok := loan.copy(); !loan.Intact() || !ok || !bytes.Equal(value, written("a", 0)) {
		t.Error("a value that was lent has changed")
	}
	for seen := map[string]bool{}; len(seen) < 2; {
		select {
		case key := <-told:
			seen[key] = true
		case <-time.After(10 * time.Second):
			t.Fatalf("the watcher saw %v", seen)
		}
	}
	stop()
	watch.Wait()
	if s := b.SetAside(); s != (SetAside{}) {
		t.Errorf("set aside: %v", s)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("files are left over: %v", files)
	}
}

// TestMappedStoreBadFiles: whatever stands where the file should be, nothing crashes:
// it is counted, set aside where that can be, and the next put makes a good file.
func TestMappedStoreBadFiles(t *testing.T) {
	good := fileOf("value")
	with := func(change func(file []byte) []byte) func(path string) error {
		return func(path string) error { return os.WriteFile(path, change(bytes.Clone(good)), 0o600) }
	}
	tests := []struct {
		name   string
		make   func(path string) error
		defect Defect
	}{
		{"empty", with(func([]byte) []byte { return nil }), CutOff},
		{"cut off in the header", with(func(f []byte) []byte { return f[:20] }), CutOff},
		{"cut off in an entry", with(func(f []byte) []byte { return f[:40] }), CutOff},
		{"cut off at a page", with(func(f []byte) []byte { return f[:4096] }), CutOff},
		{"longer", with(func(f []byte) []byte { return append(f, 0) }), NotOurs},
		{"bit flipped", with(func(f []byte) []byte { f[60] ^= 4; return f }), BadChecksum},
		{"of another version", with(func(f []byte) []byte { f[8] = fileVersion + 1; return f }), OtherVersion},
		{"another kind of file", with(func([]byte) []byte { return []byte("#!/bin/sh\nexec true # no store of ours\n") }), NotOurs},
		{"zeros", with(func([]byte) []byte { return make([]byte, fileBytes) }), NotOurs},
		{"10 MB", with(func([]byte) []byte { return make([]byte, 10<<20) }), NotOurs},
		{"writable by all", func(path string) error {
			return errors.Join(os.WriteFile(path, good, 0o600), os.Chmod(path, 0o666))
		}, NotOurs},
		{"a link to a good one", func(path string) error {
			return errors.Join(os.WriteFile(path+".target", good, 0o600), os.Symlink(path+".target", path))
		}, NotOurs},
		{"a pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, NotOurs},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metadata.cache")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			s := NewMappedStore(path)
			if value, err := s.Get(t.Context(), "agent.0"); !errors.Is(err, ErrBadFile) || value != nil {
				t.Errorf("got %q, %v", value, err)
			}
			_, _ = s.Get(t.Context(), "agent.0")
			want := SetAside{}
			want[test.defect] = 1
			if got := s.SetAside(); got != want {
				t.Errorf("set aside %v, want one for %v", got, test.defect)
			}
			if err := s.Put(t.Context(), "agent.0", []byte("new")); err != nil {
				t.Fatal(err)
			}
			if value, err := s.Get(t.Context(), "agent.0"); string(value) != "new" || err != nil {
				t.Errorf("after a put: %q, %v", value, err)
			}
			if got := s.SetAside(); got != want {
				t.Errorf("set aside %v after the put, want one for %v", got, test.defect)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		s := NewMappedStore(t.TempDir())
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, ErrBadFile) {
			t.Error(err)
		}
		if err := s.Put(t.Context(), "k", nil); err == nil {
			t.Error("a folder was replaced")
		}
	})
	t.Run("no folder", func(t *testing.T) {
		s := NewMappedStore(filepath.Join(t.TempDir(), "gone", "metadata.cache"))
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if err := s.Put(t.Context(), "k", nil); err == nil {
			t.Error("a file was made where there is no folder")
		}
	})
}

// TestMappedStoreInUse: the file is cut off, overwritten or removed while its bytes are
// lent. The process lives, and the damage is seen.
func TestMappedStoreInUse(t *testing.T) {
	tests := []struct {
		name   string
		change func(path string) error
		intact bool
	}{
		{"removed", os.Remove, true},
		{"cut off", func(path string) error { return os.Truncate(path, 0) }, false},
		{"cut off within the page", func(path string) error { return os.Truncate(path, 70) }, false},
		{"overwritten", func(path string) error {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = file.WriteAt(bytes.Repeat([]byte("x"), 200), 40)
				err = errors.Join(err, file.Close())
			}
			return err
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metadata.cache")
			s := NewMappedStore(path)
			if err := s.Put(t.Context(), "k", written("k", 0)); err != nil {
				t.Fatal(err)
			}
			loan, err := s.Lend("k")
			if err != nil || !loan.Intact() {
				t.Fatal(err)
			}
			if err := test.change(path); err != nil {
				t.Fatal(err)
			}
			if loan.Intact() != test.intact {
				t.Errorf("intact %v, want %v", loan.Intact(), test.intact)
			}
			if _, ok := loan.copy(); ok != test.intact {
				t.Errorf("copied: %v", ok)
			}
			if !test.intact {
				loan.Damaged()
				if n := total(s.SetAside()); n != 1 {
					t.Errorf("%d files set aside", n)
				}
			}
			if value, err := s.Get(t.Context(), "k"); err == nil {
				t.Errorf("got %.20q", value)
			}
			if err := s.Put(t.Context(), "k", written("k", 1)); err != nil {
				t.Error(err)
			}
			if value, err := s.Get(t.Context(), "k"); err != nil || !isWritten("k", value) {
				t.Errorf("after a put: %v", err)
			}
		})
	}
}

func total(s SetAside) (n uint64) {
	for _, one := range s {
		n += one
	}
	return n
}

// TestMappedStoreCutOffWhileRead: the file is cut off and put again, over and over,
// while others read it: each read is a whole value or an error.
func TestMappedStoreCutOffWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.cache")
	writer := NewMappedStore(path)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var readers sync.WaitGroup
	var mu sync.Mutex
	reads, damaged := 0, 0
	for range 4 {
		readers.Go(func() {
			s := NewMappedStore(path)
			for ctx.Err() == nil {
				value, err := s.Get(ctx, "k")
				if err == nil && !isWritten("k", value) {
					t.Errorf("half a value: %.60q", value)
				}
				mu.Lock()
				reads++
				if errors.Is(err, ErrBadFile) {
					damaged++
				}
				mu.Unlock()
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		_ = writer.Put(ctx, "k", written("k", i))
		_ = os.Truncate(path, rand.Int64N(300))
	}
	readers.Wait()
	t.Logf("%d reads, of which %d met a file cut off", reads, damaged)
	if damaged == 0 {
		t.Error("no read met a file that was cut off: this test tests nothing")
	}
}

// smallDisk mounts a file system of some bytes, and returns a folder there.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+strconv.Itoa(bytes)); err != nil {
		if os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, NOT TESTED: a file system cannot be mounted here:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
	return folder
}

// TestMappedStoreDiskFull: a put that finds no room is an error, and the file that is
// there stays.
func TestMappedStoreDiskFull(t *testing.T) {
	folder := smallDisk(t, 2*fileBytes)
	s := NewMappedStore(filepath.Join(folder, "metadata.cache"))
	if err := s.Put(t.Context(), "k", []byte("old")); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(folder, "filler")
	if err := os.WriteFile(filler, make([]byte, fileBytes/2), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "k", []byte("new")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if value, err := s.Get(t.Context(), "k"); string(value) != "old" || err != nil {
		t.Errorf("after it: %q, %v", value, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "k", []byte("new")); err != nil {
		t.Error("with room again:", err)
	}
	if n := total(s.SetAside()); n != 0 {
		t.Errorf("%d files set aside", n)
	}
}

// TestMappedStoreReadOnly: on a disk that cannot be written, what is there is read,
// and what is bad is passed over.
func TestMappedStoreReadOnly(t *testing.T) {
	folder := smallDisk(t, 2<<20)
	path, bad := filepath.Join(folder, "metadata.cache"), filepath.Join(folder, "bad")
	if err := NewMappedStore(path).Put(t.Context(), "k", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, fileOf("x")[:5000], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", folder, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s := NewMappedStore(path)
	if value, err := s.Get(t.Context(), "k"); string(value) != "value" || err != nil {
		t.Errorf("got %q, %v", value, err)
	}
	if err := s.Put(t.Context(), "k", []byte("new")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("put: %v", err)
	}
	s = NewMappedStore(bad)
	for range 3 {
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, ErrBadFile) {
			t.Errorf("a bad file: %v", err)
		}
	}
	if got := s.SetAside(); got[CutOff] != 1 || total(got) != 1 {
		t.Errorf("set aside: %v", got)
	}
}

// startWriter starts another process that puts.
func startWriter(t *testing.T, path, name string, count int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", asWriter, path, name, count))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestMappedStoreProcesses: several processes put at the same time, and no put is lost.
func TestMappedStoreProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.cache")
	const puts = 100
	var writers []*exec.Cmd
	for i := range 4 {
		writers = append(writers, startWriter(t, path, fmt.Sprint("agent", i), puts))
	}
	for _, w := range writers {
		if err := w.Wait(); err != nil {
			t.Error(err)
		}
	}
	s := NewMappedStore(path)
	for i := range writers {
		name := fmt.Sprint("agent", i)
		if value, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(value, written(name, puts-1)) {
			t.Errorf("%s: %.40q, %v", name, value, err)
		}
	}
	if n := total(s.SetAside()); n != 0 {
		t.Errorf("%d files set aside", n)
	}
}

// TestMappedStoreKilled kills a process in the middle of its puts, again and again: the
// file is always whole, with what was put before, and nothing piles up beside it.
// TETRACAST_KILLS says how often; make kills does it 200 times.
func TestMappedStoreKilled(t *testing.T) {
	rounds := 10
	if text := os.Getenv("TETRACAST_KILLS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "metadata.cache")
	s := NewMappedStore(path)
	if err := s.Put(t.Context(), "bystander", written("bystander", 0)); err != nil {
		t.Fatal(err)
	}
	leftovers := 0
	for i := range rounds {
		cmd := startWriter(t, path, "k", 1<<30)
		for range 3 { // a reader beside it
			if value, err := s.Get(t.Context(), "k"); err == nil && !isWritten("k", value) {
				t.Fatalf("round %d: half a value", i)
			}
		}
		time.Sleep(time.Duration(rand.Int64N(int64(5 * time.Millisecond))))
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		fresh := NewMappedStore(path)
		if value, err := fresh.Get(t.Context(), "k"); err != nil && !errors.Is(err, ErrNotFound) || err == nil && !isWritten("k", value) {
			t.Fatalf("round %d: %v", i, err)
		}
		if value, err := fresh.Get(t.Context(), "bystander"); err != nil || !bytes.Equal(value, written("bystander", 0)) {
			t.Fatalf("round %d: what another put is gone: %v", i, err)
		}
		files, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(files) > 2 {
			t.Fatalf("round %d: %v, %v", i, files, err)
		}
		leftovers += len(files) - 1
		if n := total(fresh.SetAside()) + total(s.SetAside()); n != 0 {
			t.Fatalf("round %d: %d files set aside", i, n)
		}
	}
	t.Logf("%d rounds, of which %d were killed in the middle of a new file", rounds, leftovers)
}

// TestLockHeld: a process that holds the lock and does not let go costs a put, not more.
func TestLockHeld(t *testing.T) {
	folder := t.TempDir()
	unlock, err := lockFolder(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	s := NewMappedStore(filepath.Join(folder, "metadata.cache"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, "k", nil); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("while the lock is held: %v", err)
	}
	unlock()
	if err := s.Put(t.Context(), "k", nil); err != nil {
		t.Error("after that:", err)
	}
}

// BenchmarkLoan says what it costs to look whether a record is intact.
func BenchmarkLoan(b *testing.B) {
	s := NewMappedStore(filepath.Join(b.TempDir(), "m"))
	value := binary.AppendUvarint(bytes.Repeat([]byte("x"), 600), 1)
	if err := s.Put(b.Context(), "k", value); err != nil {
		b.Fatal(err)
	}
	loan, err := s.Lend("k")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !loan.Intact() {
			b.Fatal("not intact")
		}
	}
}
