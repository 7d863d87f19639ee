package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// TailConfig says which file to follow.
type TailConfig struct {
	// Path is the file that Tetragon exports to, --export-filename. It need not be
	// there yet.
	Path string
	// Checkpoint is the file that keeps how far it was read. Empty: none, and every
	// start begins at the file's beginning.
	Checkpoint string
	// Settled says whether everything that was handed on has reached its end, so
	// that it need not be read again. Nil: always.
	Settled func() bool
	// Logger gets the log. Nil discards it.
	Logger *slog.Logger
}

// TailStats counts what a tail met.
type TailStats struct {
	LineStats
	Rotations   uint64 // the file's name went to another file
	Truncations uint64 // the file became shorter: what was written in between is lost
	Missing     uint64 // files that were to be read on, and are gone
	// MayRepeat: the process before this one did not end in order; events that it
	// had sent after its last checkpoint are sent again.
	MayRepeat bool
}

// Tail is a source that follows a file of JSON lines through its rotations.
//
// A file that was renamed is read to its end before the new one, also where it
// has been compressed (.gz) or several rotations have passed. A line without its
// end waits for it. What a checkpoint names is found again by the file's first
// bytes, whatever its name is now.
type Tail struct {
	config   TailConfig
	splitter splitter
	readTo   int64 // of the file at hand
	buffer   []byte
	stats    struct {
		rotations, truncations, missing atomic.Uint64
		mayRepeat                       atomic.Bool
	}

	saved position // the last checkpoint
	seen  position // what was handed on
}

// lookInterval is how often the name is looked at without a notice of the kernel,
// and the least time between two checkpoints.
const lookInterval = time.Second

// NewTail checks the configuration and reads the checkpoint. It does not need the
// file.
func NewTail(config TailConfig) (*Tail, error) {
	if config.Path == "" {
		return nil, errors.New("source: no file to tail")
	}
	if config.Settled == nil {
		config.Settled = func() bool { return true }
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Tail{config: config, splitter: splitter{limit: MaxLineBytes}}
	return t, t.load()
}

// Stats returns the counts so far. It may be called at any time.
func (t *Tail) Stats() TailStats {
	return TailStats{
		LineStats: t.splitter.stats(), Rotations: t.stats.rotations.Load(),
		Truncations: t.stats.truncations.Load(), Missing: t.stats.missing.Load(), MayRepeat: t.stats.mayRepeat.Load(),
	}
}

// Run hands on each line, without its newline, until ctx ends.
func (t *Tail) Run(ctx context.Context, take Take) error {
	notices, stop := watch(filepath.Dir(t.config.Path))
	defer stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	t.catchUp(ctx, take, false)
	var file *os.File
	defer func() { closeFile(file) }()
	for ctx.Err() == nil {
		if file == nil {
			file = t.open()
		}
		if file != nil {
			// First whether it was renamed, then the read: so nothing is behind its end.
			moved := t.renamed(file)
			if err := t.read(ctx, file, take); err != nil {
				return err
			}
			if moved && ctx.Err() == nil {
				t.splitter.end(take)
				t.advance(file, t.readTo)
				closeFile(file)
				file = nil
				t.stats.rotations.Add(1)
				t.catchUp(ctx, take, true)
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-notices:
		case <-look.C:
			t.checkpoint()
		}
	}
	return ctx.Err()
}

// begin sets the position, from which a file is read on.
func (t *Tail) begin(p position) {
	p.Clean = false
	t.readTo = p.Offset
	t.splitter.reset()
	t.seen = p
}

// advance notes how far the whole lines of the file go.
func (t *Tail) advance(file io.ReaderAt, offset int64) {
	t.seen.Offset = offset
	if want := int(min(offset, maxHeadBytes)); file != nil && t.seen.HeadBytes < want {
		t.seen.Head, t.seen.HeadBytes = headOf(io.NewSectionReader(file, 0, maxHeadBytes), want)
	}
}

// open opens the file at the position, or at its beginning if that is of another
// file. It is nil if there is no file.
func (t *Tail) open() *os.File {
	file, err := os.Open(t.config.Path)
	if err != nil {
		return nil // it is not there yet
	}
	p := t.seen
	if !p.of(file) {
		p = position{}
	}
	if _, err := file.Seek(p.Offset, io.SeekStart); err != nil {
		closeFile(file)
		return nil
	}
	t.begin(p)
	return file
}

// renamed says whether the file's name belongs to another file now.
func (t *Tail) renamed(file *os.File) bool {
	now, err := os.Stat(t.config.Path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	mine, err := file.Stat()
	return err == nil && !os.SameFile(now, mine)
}

// read hands on what was appended to the file since the last time.
func (t *Tail) read(ctx context.Context, file *os.File, take Take) error {
	if info, err := file.Stat(); err == nil && info.Size() < t.readTo {
		t.stats.truncations.Add(1)
		t.config.Logger.Warn("The file became shorter: what was written in between is lost", "path", t.config.Path)
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("source: %s: %w", t.config.Path, err)
		}
		t.begin(position{})
	}
	return t.pour(ctx, file, file, take)
}

// pour hands on what in still has. file is where the beginning of it can be read
// again; nil: it is known.
func (t *Tail) pour(ctx context.Context, in io.Reader, file io.ReaderAt, take Take) error {
	if t.buffer == nil {
		t.buffer = make([]byte, readBytes)
	}
	for ctx.Err() == nil {
		n, err := in.Read(t.buffer)
		t.splitter.split(t.buffer[:n], take)
		t.readTo += int64(n)
		t.advance(file, t.readTo-t.splitter.pending)
		if err == io.EOF || n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("source: reading %s: %w", t.config.Path, err)
		}
	}
	return nil
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close() // it was only read
	}
}
