package source

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rotated is a file that had the tail's name before.
type rotated struct {
	path   string
	number int // the higher, the older; 0: its name ends in a time
}

// catchUp reads the rest of the file that the position is of, if that has another
// name now, and then the files that had the name after it. whole says that nothing
// of the first is left to read.
func (t *Tail) catchUp(ctx context.Context, take Take, whole bool) {
	p := t.seen
	if p.HeadBytes == 0 {
		return
	}
	if file, err := os.Open(t.config.Path); err == nil {
		same := p.of(file)
		closeFile(file)
		if same {
			return
		}
	}
	files := t.rotatedFiles()
	first := slices.IndexFunc(files, func(r rotated) bool { return r.has(p) })
	if first < 0 && whole {
		return
	}
	if first < 0 {
		t.stats.missing.Add(1)
		t.config.Logger.Warn("The file that was read last is gone: what had been written to it since is lost", "path", t.config.Path)
		return
	}
	for i, r := range files[first:] {
		if i > 0 {
			t.begin(position{})
		}
		if err := t.readRotated(ctx, r, take); err != nil {
			t.config.Logger.Error("A rotated file cannot be read to its end", "path", r.path, "cause", err)
		}
		if ctx.Err() != nil {
			return
		}
		t.splitter.end(take)
	}
}

// rotatedFiles returns what can be a rotation of the file, the oldest first:
// name-TIME.ext as Tetragon's own rotation has it, name.ext-DATE and name.ext.1 as
// logrotate has it, all of them also with .gz. Where a file is there both ways it
// is being compressed. Their age is in their names: to compress one makes it young.
func (t *Tail) rotatedFiles() (files []rotated) {
	folder, base := filepath.Split(t.config.Path)
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	entries, _ := os.ReadDir(cmp.Or(folder, "."))
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, e := range entries {
		name := e.Name()
		rest, ok := strings.CutPrefix(name, stem)
		if !ok || name == base || !e.Type().IsRegular() {
			continue
		}
		plain, zipped := strings.CutSuffix(name, ".gz")
		if zipped && names[plain] {
			continue
		}
		r := rotated{path: filepath.Join(folder, name)}
		after, numbered := strings.CutPrefix(strings.TrimSuffix(rest, ".gz"), filepath.Ext(base)+".")
		switch {
		case numbered:
			n, err := strconv.Atoi(after)
			if err != nil || n < 1 {
				continue
			}
			r.number = n
		case !strings.HasPrefix(rest, "-") && !strings.HasPrefix(rest, filepath.Ext(base)+"-"):
			continue
		}
		files = append(files, r)
	}
	slices.SortFunc(files, func(a, b rotated) int {
		return cmp.Or(cmp.Compare(b.number, a.number), cmp.Compare(a.path, b.path))
	})
	return files
}

// open opens the file at its beginning, decompressed.
func (r *rotated) open() (io.ReadCloser, error) {
	file, err := os.Open(r.path)
	if err != nil || !strings.HasSuffix(r.path, ".gz") {
		return file, err
	}
	in, err := gzip.NewReader(file)
	if err != nil {
		closeFile(file)
		return nil, err
	}
	return unzipped{in, file}, nil
}

type unzipped struct {
	io.Reader
	file *os.File
}

func (u unzipped) Close() error { return u.file.Close() }

// has says whether the position is one of the file.
func (r rotated) has(p position) bool {
	in, err := r.open()
	if err != nil {
		return false
	}
	defer func() { _ = in.Close() }()
	head, n := headOf(in, p.HeadBytes)
	return n == p.HeadBytes && head == p.Head
}

// readRotated hands on what the file has behind the position.
func (t *Tail) readRotated(ctx context.Context, r rotated, take Take) error {
	in, err := r.open()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	var start bytes.Buffer // so that a kill in this file finds it again
	if _, err := io.CopyN(&start, in, maxHeadBytes); err != nil && err != io.EOF {
		return err
	}
	head := bytes.NewReader(start.Bytes())
	all := io.MultiReader(bytes.NewReader(start.Bytes()), in)
	if _, err := io.CopyN(io.Discard, all, t.seen.Offset); err != nil {
		return err
	}
	return t.pour(ctx, all, head, take)
}

// watch tells when something in the folder changes, if the kernel can: inotify(7).
// The look once a second finds what it misses.
func watch(folder string) (notices <-chan struct{}, stop func()) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	const changes = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM
	if _, err := unix.InotifyAddWatch(fd, cmp.Or(folder, "."), changes); err != nil {
		_ = unix.Close(fd)
		return nil, func() {}
	}
	file := os.NewFile(uintptr(fd), "inotify") // pollable, so Close ends the read
	told, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		var events [4096]byte
		for {
			if _, err := file.Read(events[:]); err != nil {
				return
			}
			select {
			case told <- struct{}{}:
			default:
			}
		}
	}()
	return told, func() { closeFile(file); <-ended }
}
