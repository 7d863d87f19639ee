package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Compression is how rotated files are compressed. The zero value is not at all.
type Compression uint8

// The kinds of compression.
const (
	None Compression = iota
	Gzip
	Zstd
)

// ParseCompression reads none, gzip or zstd.
func ParseCompression(text string) (Compression, error) {
	switch text {
	case "none":
		return None, nil
	case "gzip":
		return Gzip, nil
	case "zstd":
		return Zstd, nil
	}
	return None, fmt.Errorf("sink: compression %q, want none, gzip or zstd", text)
}

// suffix ends the name of a file that is compressed so.
func (c Compression) suffix() string {
	switch c {
	case Gzip:
		return ".gz"
	case Zstd:
		return ".zst"
	}
	return ""
}

// writer returns a compressor on w that works in the goroutine that writes to it.
// Of 100 MB of recorded events zstd makes 2.0 MB in 0.5 s with 5 MiB of memory
// (with its default window of 8 MiB instead of 1 MiB: 1.8 MB and 19 MiB), gzip
// 3.5 MB in 1.0 s with 1 MiB.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c == Gzip {
		return gzip.NewWriter(w), nil
	}
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
}

// Run compresses rotated files, one at a time, also those that an earlier process
// left, until ctx ends; it gives up the one it is at then, for the next process
// to do. It starts no goroutine. What fails is logged and tried again, so the
// error is nil.
func (f *File) Run(ctx context.Context) error {
	if f.regular {
		f.removeParts()
	}
	if !f.regular || f.config.Compression == None {
		<-ctx.Done()
		return nil
	}
	retry := time.NewTimer(0) // at once: what is left from before
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.packer:
		case <-retry.C:
		}
		err := f.packAll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.packing.report(f.config.Log, "Compressing rotated files", "they stay as they are", err)
		if err != nil {
			retry.Reset(retryInterval)
		}
	}
}

// removeParts removes what a process that was killed while it compressed left.
func (f *File) removeParts() {
	entries, err := os.ReadDir(f.names.folder)
	for _, e := range entries {
		if f.names.isPart(e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(f.names.folder, e.Name())))
		}
	}
	if err != nil {
		f.config.Log.Warn("What a killed process left half compressed cannot be removed", "cause", err)
	}
}

// packAll compresses what is not yet.
func (f *File) packAll(ctx context.Context) error {
	list, err := f.names.list()
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.plain() && ctx.Err() == nil {
			err = errors.Join(err, f.pack(ctx, f.names.rotated(r.at)))
		}
	}
	return err
}

// pack puts the compressed file in the place of the plain one. Under its final
// name it is whole, and on the disk, before the plain one goes; a crash before
// that leaves the plain one, which is then compressed once more.
func (f *File) pack(ctx context.Context, plain string) (err error) {
	in, err := os.Open(plain)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was the oldest, and went
	}
	if err == nil {
		defer in.Close()
		err = lock(in, unix.LOCK_SH) // whoever still writes to it holds the other lock
	}
	if err != nil {
		return fmt.Errorf("sink: compressing: %w", err)
	}
	final := plain + f.config.Compression.suffix()
	part := f.names.part(final)
	defer func() {
		if err != nil {
			err = fmt.Errorf("sink: compressing %s: %w", plain, err)
		}
		if e := os.Remove(part); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	if err := f.packTo(ctx, part, in); err != nil {
		return err
	}
	f.renaming.Lock()
	defer f.renaming.Unlock()
	if _, err := os.Lstat(plain); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Rename(part, final); err != nil {
		return err
	}
	if err := syncFolder(f.names.folder); err != nil {
		return err
	}
	return os.Remove(plain)
}

// packTo writes the compressed form of the file to a new one of the same owner,
// mode and time.
func (f *File) packTo(ctx context.Context, path string, in *os.File) (err error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &stat); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	inherit(out, &stat)
	w, err := f.config.Compression.writer(out)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, interruptible{ctx, in})
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	written := time.Unix(stat.Mtim.Unix())
	_ = os.Chtimes(path, written, written)
	return out.Sync()
}

// interruptible reads until ctx ends.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
