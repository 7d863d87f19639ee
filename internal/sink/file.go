package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is the error of a file that another process writes to. Two of them
// would rotate and compress it under each other.
var ErrInUse = errors.New("another process writes to it")

// retryInterval is the time between two tries of what failed beside the writing:
// a rotation, a reopening, a compression.
const retryInterval = 10 * time.Second

// FileConfig says where a [File] writes and what becomes of what it has written.
// Only Path must be set.
type FileConfig struct {
	// Path is the current file's name, always. A symbolic link is followed once.
	Path string
	// MaxBytes is what the file is rotated before it exceeds. A file is longer
	// only if it is a single line, or if rotating fails. 0: it is never rotated.
	MaxBytes int64
	// MaxFiles is how many files are kept, the current one among them; the
	// oldest are removed. 0: all.
	MaxFiles int
	// Compression is that of rotated files. [File.Run] does it.
	Compression Compression
	// Log takes what fails beside the writing, and changes of the file. nil: none.
	Log *slog.Logger
}

// File is the sink that appends lines to a file, and rotates it. Write and Close
// are for one owner; Reopen and Run are safe beside them.
type File struct {
	config  FileConfig
	names   names
	regular bool          // no device and no pipe
	asked   atomic.Bool   // Reopen was called
	packer  chan struct{} // of one place: tells Run of a rotation

	mu        sync.Mutex // guards what follows; held during a write
	file      *os.File
	lines     *Lines
	size      int64
	closed    bool
	rotation  trouble
	reopening trouble
	retention trouble
	packing   trouble // of Run's goroutine

	rotations, reopens atomic.Uint64

	renaming sync.Mutex // held while rotated files get and lose their names
}

// OpenFile returns a sink that appends to the file, which it creates with mode
// 0600, as Tetragon does with its export file: events hold command lines.
//
// A line that an earlier process left unfinished is cut off; if only its newline
// is missing it gets that before the next line.
//
// The error is [ErrInUse], or one of package fs if the file cannot be opened or,
// where it is to be rotated, its folder does not let it. A device or a named pipe
// is written to, and nothing else of all this.
func OpenFile(config FileConfig) (*File, error) {
	if config.MaxBytes < 0 || config.MaxFiles < 0 {
		return nil, fmt.Errorf("sink: at most %d bytes and %d files: negative", config.MaxBytes, config.MaxFiles)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	f := &File{config: config, packer: make(chan struct{}, 1)}
	file, err := openAppend(config.Path, nil)
	if err != nil {
		return nil, fmt.Errorf("sink: opening the output file: %w", err)
	}
	if err := f.begin(file); err != nil {
		_ = file.Close()
		return nil, err
	}
	return f, nil
}

// begin takes the file that OpenFile opened.
func (f *File) begin(file *os.File) error {
	if err := f.use(file); err != nil {
		return err
	}
	if f.regular = f.lines.file != nil; !f.regular {
		return nil
	}
	path, err := filepath.EvalSymlinks(f.config.Path)
	if err != nil {
		return fmt.Errorf("sink: opening the output file: %w", err)
	}
	f.names = namesOf(path)
	if f.config.MaxBytes > 0 {
		if err := unix.Faccessat(unix.AT_FDCWD, f.names.folder, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("sink: rotating in the output file's folder: %w", &fs.PathError{Op: "access", Path: f.names.folder, Err: err})
		}
	}
	return nil
}

// use makes the file the one that is written to, unless its end cannot be read.
func (f *File) use(file *os.File) error {
	lines := NewLines(file)
	size, err := f.takeEnd(lines)
	if err != nil {
		return fmt.Errorf("sink: reading the end of the output file: %w", err)
	}
	f.file, f.lines, f.size = file, lines, size
	return nil
}

// openAppend opens the file, locks it if it is one, and gives a new one owner and
// mode of the one before.
func openAppend(path string, before *unix.Stat_t) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND | os.O_CREATE
	file, err := os.OpenFile(path, flags|os.O_EXCL, 0o600)
	created := err == nil
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if created && before != nil {
		inherit(file, before)
	}
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = lock(file, unix.LOCK_EX)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// inherit gives the file the owner and the mode of another. Where the owner is
// not ours to give the mode stays as it is too: it was meant for others.
func inherit(file *os.File, other *unix.Stat_t) {
	if file.Chown(int(other.Uid), int(other.Gid)) == nil {
		_ = file.Chmod(fs.FileMode(other.Mode & 0o777))
	}
}

// lock takes the lock that tells processes of this program from each other, until
// the file is closed. Where the file system has no locks there is none.
func lock(file *os.File, how int) error {
	if err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return &fs.PathError{Op: "lock", Path: file.Name(), Err: ErrInUse}
	}
	return nil
}

// Write implements [Sink]. A batch is one write call for each file that it comes
// into.
func (f *File) Write(b *Batch) (lines int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.prepare(); err != nil {
		return 0, err
	}
	for lines < b.Len() {
		end := f.fit(b, lines)
		if end == lines {
			f.rotate() // after which lines fit, or what fits is not asked for a while
			continue
		}
		n, err := f.lines.write(b, lines, end)
		f.size += int64(b.start(lines+n) - b.start(lines))
		if lines += n; err != nil {
			return lines, err
		}
	}
	return lines, nil
}

// fit returns the end of the lines that may come into the file, from the first on.
func (f *File) fit(b *Batch, first int) (end int) {
	if f.config.MaxBytes == 0 || !f.regular || !f.rotation.due() {
		return b.Len()
	}
	room := min(max(f.config.MaxBytes-f.size, 0), int64(len(b.Text)))
	end = first + sort.SearchInts(b.Ends[first:], b.start(first)+int(room)+1)
	if end == first && f.size == 0 {
		end++
	}
	return end
}

// prepare asks the kernel for the file's size, which others may have changed
// (copytruncate), ends a torn line, and opens the file anew if that was asked
// for or nobody could read what is written because it has no name any more.
func (f *File) prepare() error {
	if f.closed {
		return fmt.Errorf("sink: writing: %w", os.ErrClosed)
	}
	if !f.regular {
		return nil
	}
	torn := f.lines.mend()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &stat); err != nil {
		return fmt.Errorf("sink: writing: %w", err)
	}
	f.size = stat.Size
	if stat.Nlink == 0 {
		if err := f.reopen(); err != nil {
			return err
		}
		f.config.Log.Warn("The output file was deleted and is made anew", "path", f.names.path)
		return nil
	}
	if torn == nil && f.asked.Load() && f.reopening.due() {
		f.asked.Store(false)
		err := f.reopen()
		f.reopening.report(f.config.Log, "Opening the output file anew", "the old one is written on", err)
		if err != nil {
			f.asked.Store(true)
		} else {
			f.config.Log.Info("The output file was opened anew", "path", f.names.path)
		}
	}
	return torn
}

// Reopen asks for the file of the name to be opened anew, because the present one
// was moved away, as logrotate does; see logrotate(8). It does not wait for a
// write that is under way, which ends in the old file. If the file cannot be
// opened the old one is written on, and the opening is tried again.
func (f *File) Reopen() {
	f.asked.Store(true)
	if !f.mu.TryLock() {
		return // the next write begins with it
	}
	defer f.mu.Unlock()
	_ = f.prepare() // the next write meets the same error, and returns it
}

// reopen opens the file of the name, if it is not that already.
func (f *File) reopen() error {
	mine, same, err := f.same()
	if err != nil || same {
		return err
	}
	if err := f.replace(&mine); err != nil {
		return err
	}
	f.reopens.Add(1)
	return nil
}

// replace opens the file that has the name, or makes it, in the place of mine.
func (f *File) replace(mine *unix.Stat_t) error {
	file, err := openAppend(f.names.path, mine)
	if err != nil {
		return fmt.Errorf("sink: opening the output file anew: %w", err)
	}
	old := f.file
	if err := f.use(file); err != nil {
		_ = file.Close()
		return err
	}
	if err := old.Close(); err != nil { // as by NFS, where writing fails as late as here
		f.config.Log.Error("Closing the output file failed: lines that counted as written may be missing at its end", "cause", err)
	}
	return nil
}

// same says whether the file still has its name.
func (f *File) same() (mine unix.Stat_t, same bool, err error) {
	if err := unix.Fstat(int(f.file.Fd()), &mine); err != nil {
		return mine, false, fmt.Errorf("sink: looking at the output file: %w", err)
	}
	var there unix.Stat_t
	err = unix.Stat(f.names.path, &there)
	return mine, err == nil && mine.Dev == there.Dev && mine.Ino == there.Ino, nil
}

// FileStats counts what a File does beside the writing.
type FileStats struct {
	Rotations uint64
	Reopens   uint64 // without those of a rotation
	// What failed and is tried again: rotating, reopening, removing what is too old, and
	// compressing.
	FailedRotations, FailedReopens, FailedRemovals, FailedCompressions uint64
}

// Stats returns the counts so far. It may be called at any time.
func (f *File) Stats() FileStats {
	return FileStats{
		Rotations: f.rotations.Load(), Reopens: f.reopens.Load(),
		FailedRotations: f.rotation.failures.Load(), FailedReopens: f.reopening.failures.Load(),
		FailedRemovals: f.retention.failures.Load(), FailedCompressions: f.packing.failures.Load(),
	}
}

// Close implements [Sink].
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("sink: closing the output file: %w", err)
	}
	return nil
}

// trouble is what failed beside the writing, and is tried again after a while.
// The zero value is no trouble.
type trouble struct {
	failing  bool
	next     time.Time
	failures atomic.Uint64
}

func (t *trouble) due() bool { return !t.failing || !time.Now().Before(t.next) }

// report logs each failure and what it means meanwhile, and the first success
// after one.
func (t *trouble) report(log *slog.Logger, task, meanwhile string, err error) {
	switch {
	case err != nil:
		log.Error(task+" fails", "meanwhile", meanwhile, "cause", err)
		t.next = time.Now().Add(retryInterval)
		t.failures.Add(1)
	case t.failing:
		log.Info(task + " works again")
	}
	t.failing = err != nil
}
