package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"tetracast/internal/sink"
)

// The defaults of [WriteConfig]: a gigabyte in all.
const (
	DefaultWriteMaxBytes = 100_000_000
	DefaultWriteMaxFiles = 10
)

// minWriteBytes refuses what was meant in another unit: with --write-max-bytes
// 100 all events but the last would be removed at once.
const minWriteBytes = 64 << 10

// WriteConfig is the file that collect writes.
type WriteConfig struct {
	Path     string // empty: none
	MaxBytes int64  // 0: not rotated
	MaxFiles int    // 0: all are kept
	Compress string // none, gzip or zstd; empty: none
}

func (c *WriteConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Path, "write", "", "append the events to this file, a JSON object a line; SIGHUP opens it anew")
	flags.Int64Var(&c.MaxBytes, "write-max-bytes", DefaultWriteMaxBytes, "rotate the file of --write before it is longer; 0: never")
	flags.IntVar(&c.MaxFiles, "write-max-files", DefaultWriteMaxFiles, "keep so many files of --write, the current one among them, and remove the oldest; 0: keep all")
	flags.StringVar(&c.Compress, "write-compress", "none", "compress rotated files: none, gzip or zstd")
}

// outputFile is the file, and who asks to open it anew.
type outputFile struct {
	*sink.File
	asked chan os.Signal
}

// open opens the file, or returns nil if there shall be none. From then on SIGHUP
// does not end the process any more.
func (c *WriteConfig) open(log *slog.Logger) (*outputFile, error) {
	compression, err := sink.ParseCompression(c.compress())
	switch {
	case err != nil:
		return nil, Usage(fmt.Errorf("app: --write-compress %q, want none, gzip or zstd", c.Compress), "zstd is smaller and faster, gzip is read everywhere")
	case c.MaxBytes != 0 && c.MaxBytes < minWriteBytes:
		return nil, Usage(fmt.Errorf("app: --write-max-bytes %d, want 0 or at least %d", c.MaxBytes, minWriteBytes), "it is in bytes; 0 leaves the rotation to others")
	case c.MaxFiles < 0 || c.MaxFiles == 1:
		return nil, Usage(fmt.Errorf("app: --write-max-files %d, want 0 or at least 2", c.MaxFiles), "the current file is one of them, so with 1 a rotation would remove all events; 0 keeps all files")
	case compression != sink.None && c.MaxBytes == 0:
		return nil, Usage(fmt.Errorf("app: --write-compress %s, but --write-max-bytes 0", c.Compress), "only rotated files are compressed; logrotate can compress what it rotates")
	case c.Path == "":
		return nil, nil
	}
	file, err := sink.OpenFile(sink.FileConfig{Path: c.Path, MaxBytes: c.MaxBytes, MaxFiles: c.MaxFiles, Compression: compression, Log: log})
	if err != nil {
		return nil, Failed(err, c.hint(err))
	}
	f := &outputFile{File: file, asked: make(chan os.Signal, 1)}
	signal.Notify(f.asked, unix.SIGHUP)
	return f, nil
}

func (c *WriteConfig) compress() string {
	if c.Compress == "" {
		return "none"
	}
	return c.Compress
}

// hint says what to do about a file that cannot be opened.
func (c *WriteConfig) hint(err error) string {
	switch {
	case errors.Is(err, sink.ErrInUse):
		return "is another collector running? each needs a file of its own for --write"
	case errors.Is(err, fs.ErrPermission) && c.MaxBytes > 0:
		return fmt.Sprintf("user %d has to be able to read and write the file of --write and, as it is rotated, to read and write its folder; --write-max-bytes 0 does without the latter", os.Geteuid())
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("user %d has to be able to read and write the file of --write", os.Geteuid())
	}
	return "--write names a file in a folder that exists and can be written to"
}

// run does what is done beside the writing until ctx ends: compression, and the
// reopening on SIGHUP. A nil file needs nothing.
func (f *outputFile) run(ctx context.Context) {
	if f == nil {
		return
	}
	defer signal.Stop(f.asked)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = f.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.asked:
			f.Reopen()
		}
	}
}
