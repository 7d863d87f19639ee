package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/internal/udp/netns"
)

// disk mounts a tmpfs with its options, until the test ends.
func disk(t *testing.T, options string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := unix.Mount("tetracast-test", folder, "tmpfs", 0, options); err != nil {
		netns.SkipLoudly(t, fmt.Sprintf("mounting a tmpfs needs root: %v", err))
	}
	t.Cleanup(func() { _ = unix.Unmount(folder, unix.MNT_DETACH) })
	return folder
}

// fill takes all the room that a file system has.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = file.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// The disk fills up and gets room again, three times, with rotation: exactly the
// lines that were counted as written are there, in their order, and each is whole.
func TestFullDisk(t *testing.T) {
	folder := disk(t, "size=1m")
	path, filler := filepath.Join(folder, "events.jsonl"), filepath.Join(folder, "filler")
	f, err := OpenFile(FileConfig{Path: path, MaxBytes: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // else the file system stays busy
	n, refused, partly := 0, 0, 0
	var written []string
	put := func(batches int) {
		for range batches {
			var b Batch
			for range 40 {
				b.Add(fmt.Appendf(nil, "{\"line\":%d,\"text\":\"%s\"}", n, bytes.Repeat([]byte{'x'}, n*37%700)))
				n++
			}
			lines, err := f.Write(&b)
			if (err == nil) != (lines == b.Len()) || err != nil && !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("%d of %d lines, %v", lines, b.Len(), err)
			}
			if refused += b.Len() - lines; 0 < lines && lines < b.Len() {
				partly++
			}
			for i := range lines {
				written = append(written, string(b.Line(i)))
			}
		}
	}
	for round := range 3 {
		put(10)
		whole := refused
		fill(t, filler)
		// Some room, so that the next batch comes in partly.
		if err := os.Truncate(filler, 4096*int64(3+round)); err != nil {
			t.Fatal(err)
		}
		put(80)
		if refused == whole {
			t.Fatalf("round %d: the disk was never full", round)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		// Space for the next round, as an operator would make it.
		list, err := f.names.list()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			name := f.names.rotated(r.at)
			for line := range strings.Lines(read(t, name)) {
				if len(written) == 0 || line != written[0] {
					t.Fatalf("round %d: %.60q, want %.60q", round, line, first(written))
				}
				written = written[1:]
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(1)
	for line := range strings.Lines(read(t, path)) {
		if !json.Valid([]byte(line)) || len(written) == 0 || line != written[0] {
			t.Fatalf("%.60q, want %.60q", line, first(written))
		}
		written = written[1:]
	}
	if len(written) > 0 {
		t.Errorf("%d lines that counted as written are not there, the first is %.60q", len(written), written[0])
	}
	if partly == 0 {
		t.Error("no batch was written in part: this tests nothing")
	}
	t.Logf("%d lines, %d refused, %d batches written in part", n, refused, partly)
}

func first(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

// Compression that has no room for its file leaves the plain one, and comes back
// to it.
func TestFullDiskCompression(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := disk(t, "size=256k")
		path, filler := filepath.Join(folder, "events.jsonl"), filepath.Join(folder, "filler")
		f, err := OpenFile(FileConfig{Path: path, MaxBytes: 50_000, Compression: Zstd})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		line := "{\"x\":\"" + strings.Repeat("0123456789", 2500) + "\"}"
		write(t, f, line, line)
		fill(t, filler)
		runUntilIdle(t, f)
		files := namesIn(t, folder)
		if len(files) != 3 || !strings.HasSuffix(files[0], ".jsonl") || read(t, filepath.Join(folder, files[0])) != line+"\n" {
			t.Fatalf("full: files %v", files)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		runUntilIdle(t, f)
		files = namesIn(t, folder)
		if len(files) != 2 || !strings.HasSuffix(files[0], ".jsonl.zst") || read(t, filepath.Join(folder, files[0])) != line+"\n" {
			t.Errorf("room again: files %v", files)
		}
	})
}

// A disk with no inode left lets the file be renamed, but no new one be made: the
// name is given back, nothing is lost, and later the file is rotated.
func TestNoInodeForTheNextFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := disk(t, "size=1m,nr_inodes=3") // the folder, the file, and one more
		path, filler := filepath.Join(folder, "events.jsonl"), filepath.Join(folder, "filler")
		f, err := OpenFile(FileConfig{Path: path, MaxBytes: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := os.WriteFile(filler, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, f, "aaa", "bbb", "ccc")
		if got, want := contents(t, path), []string{"aaa\nbbb\nccc\n"}; !slices.Equal(got, want) {
			t.Errorf("no inode: %q, want %q", got, want)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryInterval)
		write(t, f, "ddd")
		if got, want := contents(t, path), []string{"aaa\nbbb\nccc\n", "ddd\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// A file that may only grow (chattr +a) cannot be cut back: a torn line gets its
// newline, so that no event follows it on the same line. If it can be cut by the
// next write, it is.
func TestAppendOnlyFile(t *testing.T) {
	const appendOnly = 0x20 // FS_APPEND_FL, include/uapi/linux/fs.h
	f := func(lift bool, want string) {
		t.Helper()
		out, path := open(t, FileConfig{})
		flags := func(flags int) {
			t.Helper()
			if err := unix.IoctlSetPointerInt(int(out.file.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
				t.Skipf("SKIPPED, NOT TESTED: chattr: %v", err) // not every file system has it
			}
		}
		flags(appendOnly)
		defer flags(0)
		withFileLimit(t, 10, func() {
			if n, err := out.Write(batch("first", "second")); n != 1 || !errors.Is(err, unix.EFBIG) {
				t.Errorf("%d lines, %v; want 1 and EFBIG", n, err)
			}
		})
		wantFile(t, path, "first\nseco")
		if lift {
			flags(0)
		}
		write(t, out, "third")
		wantFile(t, path, want)
	}
	f(false, "first\nseco\nthird\n")
	f(true, "first\nthird\n")
}
