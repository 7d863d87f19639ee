package filetail

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tetracast/internal/source/line"
)

// Config says what to follow.
type Config struct {
	// Names returns the files to follow: paths, and patterns as those of path/filepath's
	// Match. It is asked at each look; none of them need be there yet.
	Names func() []string
	// Checkpoint is the file that keeps how far each was read. Empty: none, and every
	// start begins at the files' beginnings.
	Checkpoint string
	// Room returns how many bytes of events may be handed on now; a last one may be
	// longer. Nil: any number.
	Room func() int
	// Progress returns how many events were taken of all that was handed on, and
	// how many of them, in order, have reached their end, so that they need not be read
	// again. Nil: what is handed on has reached it.
	Progress func() (taken, settled uint64)
	// MaxLineBytes is the longest line that is taken, and the longest that is joined of
	// parts. 0: any.
	MaxLineBytes int
	// Logger gets the log. Nil discards it.
	Logger *slog.Logger
}

// Bounds of what is followed.
const (
	maxLogs  = 256 // names
	maxFiles = 512 // rotations of each
	maxOpen  = 16  // files held open beside those that have their names: a deleted one keeps its space on the disk
)

const (
	lookInterval = time.Second            // the longest time between two looks through the folders
	lookPause    = 20 * time.Millisecond  // the shortest
	readPause    = 10 * time.Millisecond  // between two rounds that found the end of every file
	saveInterval = 250 * time.Millisecond // between two checkpoints
	maxRoomWait  = 50 * time.Millisecond
	deletedWait  = 10 * time.Second // for the writer of a file without a name
	zipWait      = time.Second      // before a damaged compressed file is read again: it may be being written
	zipTries     = 5
)

const (
	readBytes = 64 << 10
	turnBytes = 1 << 20 // of a file, before it is the turn of the next log
	handLines = 64

	eventBytes = 16 // what an event takes in a queue beside its own bytes
)

// Tail is a source that follows files. Run it once.
type Tail struct {
	config  Config
	logs    map[string]*log
	order   []*log // as they get their turn
	marks   marks
	buffer  []byte
	batch   [][]byte
	watcher *watcher
	blind   bool // in tests: without notices of the kernel

	looked  time.Time // at the folders
	again   bool      // look at them before the next read
	saved   time.Time
	changed bool // since the last checkpoint
	known   map[string]bool
	found   bool // some file was followed
	report  report

	loadedAt time.Time // when the previous run wrote the checkpoint; zero: there is none

	mu         sync.Mutex
	stats      Stats
	blindUntil time.Time // counted as blind up to here
}

// New checks the configuration and reads the checkpoint. It does not need the files.
func New(config Config) (*Tail, error) {
	if config.Room == nil {
		config.Room = func() int { return math.MaxInt }
	}
	if config.Progress == nil {
		config.Progress = func() (taken, settled uint64) { return 0, 0 }
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Tail{config: config, logs: map[string]*log{}, buffer: make([]byte, readBytes+contentBytes)}
	t.stats.Problem = errNotLooked
	return t, t.load()
}

// Run hands on each event, without its newline, in batches that are lent for the call,
// until ctx ends.
func (t *Tail) Run(ctx context.Context, take func(batch [][]byte)) error {
	t.watcher = newWatcher(t.blind)
	defer t.watcher.close()
	defer t.closeFiles()
	wait := readPause
	for ctx.Err() == nil {
		if t.lookDue() {
			t.look()
		}
		switch t.pass(ctx, take) {
		case atEnd:
			t.settle()
			t.pause(ctx, readPause)
			t.await(ctx)
			wait = readPause
		case noRoom:
			t.settle()
			t.pause(ctx, wait)
			wait = min(2*wait, maxRoomWait)
		case more:
			if t.again {
				t.pause(ctx, lookPause-time.Since(t.looked)) // there is nothing to read before the next look
			}
			wait = readPause
		}
		t.settle()
		t.save(false)
	}
	return ctx.Err()
}

// lookDue says whether the folders are to be looked through before the next read.
func (t *Tail) lookDue() bool {
	if t.watcher.names() {
		t.again = true
	}
	since := time.Since(t.looked)
	return t.looked.IsZero() || since >= lookInterval || t.again && since >= lookPause
}

// pause waits without heed of notices, so that a writer of many lines does not cost a
// wake-up for each.
func (t *Tail) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// await waits for a notice, or until the next look or checkpoint is due.
func (t *Tail) await(ctx context.Context) {
	wait := max(0, lookInterval-time.Since(t.looked))
	switch {
	case t.again:
		wait = lookPause
	case t.changed || !t.marks.empty():
		wait = min(wait, saveInterval)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case names := <-t.watcher.notices():
		t.watcher.heard(names)
	case <-timer.C:
	}
}

// look finds out what is there.
func (t *Tail) look() {
	now := time.Now()
	t.changed = t.changed || t.looked.IsZero() // what comes behind the first look is ours
	t.looked, t.again = now, false
	names := t.config.Names()
	paths := expand(names)
	if len(paths) > maxLogs {
		t.config.Logger.Warn("More files match than are followed", "files", len(paths), "limit", maxLogs)
		paths = paths[:maxLogs]
	}
	for _, path := range paths {
		if t.logs[path] == nil && len(t.logs) < maxLogs {
			t.logs[path] = &log{path: path, strict: t.foreign(names, path), unwrap: line.Unwrapper{Limit: t.config.MaxLineBytes}}
		}
	}
	t.known = map[string]bool{} // what appears under these names from now on is new
	for _, name := range names {
		t.known[name] = true
	}
	wanted := map[string]bool{}
	for _, path := range paths {
		wanted[path] = true
	}
	folders := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(t.logs)) {
		l := t.logs[path]
		gone, rotated, news, err := l.look(now)
		l.err = err
		t.changed = t.changed || news
		if rotated {
			t.count(func(s *Stats) { s.Rotations++ })
		}
		for _, f := range gone {
			t.lose(l, f)
		}
		if len(l.files) == 0 && !wanted[path] {
			delete(t.logs, path)
			t.changed = true
			continue
		}
		folders[filepath.Dir(path)] = true
	}
	t.order = slices.SortedFunc(maps.Values(t.logs), func(a, b *log) int { return cmp.Compare(a.path, b.path) })
	t.hold()
	t.watcher.watch(folders)
	t.tell(names, now)
}

// foreign says whether the files that had a name before are none of ours.
func (t *Tail) foreign(names []string, path string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		if !t.known[name] {
			return false
		}
		ok, _ := filepath.Match(name, path)
		return ok || resolve(name) == path
	})
}

// hold opens what may be deleted: each log's live file, and of the others the oldest.
func (t *Tail) hold() {
	open := 0
	for _, l := range t.order {
		for _, f := range l.files {
			if f.isOpen() && !f.live {
				open++
			}
		}
	}
	for _, l := range t.order {
		for _, f := range l.files {
			if f.done || f.isOpen() || !f.placed || !f.live && (open >= maxOpen || f.zipped()) {
				continue
			}
			if t.open(l, f) && !f.live {
				open++
			}
		}
	}
}

// open opens a file of the log at its position.
func (t *Tail) open(l *log, f *file) bool {
	if time.Now().Before(f.retry) {
		return false
	}
	err := f.open()
	switch {
	case err == nil:
		t.found, f.err = true, nil
		return true
	case errors.Is(err, errChanged):
		t.renew(l, f)
	case errors.Is(err, errOther), errors.Is(err, fs.ErrNotExist):
		t.again = true
	case f.zipped() && !errors.Is(err, fs.ErrPermission):
		t.damaged(f, err)
	default:
		f.err, f.retry = err, time.Now().Add(lookInterval)
	}
	return false
}

// state is what a round left.
type state uint8

const (
	atEnd  state = iota // of every file
	more                // there is more to read, or to look at
	noRoom              // for what there is to read
)

// pass gives each log a turn.
func (t *Tail) pass(ctx context.Context, take func([][]byte)) state {
	all := atEnd
	for _, l := range t.order {
		for i := 0; i < len(l.files); i++ {
			f := l.files[i]
			if f.done || !f.isOpen() && !t.open(l, f) {
				if t.again && !f.done {
					return more // what it is now has to be found out first
				}
				continue
			}
			s := t.turn(ctx, l, f, take)
			if s == noRoom || t.again || ctx.Err() != nil {
				return s
			}
			if s == more {
				all = more
				break // the files after it wait
			}
			if t.over(l, f) {
				t.retire(l, f, take)
			}
		}
	}
	return all
}

// turn reads a file to its end, or for a while.
func (t *Tail) turn(ctx context.Context, l *log, f *file, take func([][]byte)) state {
	for read := 0; read < turnBytes; {
		if ctx.Err() != nil || t.lookDue() {
			t.again = t.again || ctx.Err() == nil
			return more
		}
		room := t.config.Room()
		if room <= 0 {
			return noRoom
		}
		t.limit(f)
		text, from, err := f.fill(t.buffer)
		switch {
		case errors.Is(err, errChanged):
			t.renew(l, f)
			return more
		case err != nil && f.zipped():
			t.damaged(f, err)
			return atEnd
		case err != nil:
			f.err, f.retry = err, time.Now().Add(lookInterval)
			f.close()
			return atEnd
		case len(text) == from:
			return atEnd
		}
		f.grew = time.Now()
		read += t.hand(l, f, text, from, room, take)
	}
	return more
}

// limit has unfinished lines share the bound of one, beside a little for each.
func (t *Tail) limit(f *file) {
	if t.config.MaxLineBytes == 0 {
		return
	}
	held := 0
	for _, l := range t.order {
		held += l.unwrap.Held()
		for _, other := range l.files {
			if other != f && !other.done {
				held += other.lines.Held()
			}
		}
	}
	f.lines.Limit = max(t.config.MaxLineBytes-held, min(t.config.MaxLineBytes, turnBytes))
}

// hand cuts what is new in text into lines, hands on what they hold, as far as there is
// room, and returns how many bytes of it were taken.
func (t *Tail) hand(l *log, f *file, text []byte, from, room int, take func([][]byte)) int {
	tooLong := f.lines.TooLong() + l.unwrap.TooLong()
	limited := l.unwrap.RateLimited()
	start := f.readTo - int64(from) // of text
	rest := text[from:]
	whole := -1 // how much of text is whole
	for room > 0 {
		one, behind, ok := f.lines.Cut(rest)
		if !ok {
			rest = nil
			break
		}
		rest = behind
		before := len(t.batch)
		t.batch = l.unwrap.Append(t.batch, one)
		for _, event := range t.batch[before:] {
			room -= len(event) + eventBytes
		}
		if !l.unwrap.Open() {
			whole = len(text) - len(rest)
		}
		if len(t.batch) >= handLines {
			t.flush(l, f, text, start, whole, take)
			whole = -1
		}
	}
	t.flush(l, f, text, start, whole, take)
	t.changed = f.advance(text, from, len(rest)) || t.changed
	t.count(func(s *Stats) {
		s.TooLong += f.lines.TooLong() + l.unwrap.TooLong() - tooLong
		s.RateLimited += l.unwrap.RateLimited() - limited
	})
	return len(text) - from - len(rest)
}

// flush hands on the batch, and marks the position behind it.
func (t *Tail) flush(l *log, f *file, text []byte, start int64, whole int, take func([][]byte)) {
	if len(t.batch) > 0 {
		take(t.batch)
		clear(t.batch)
		t.batch = t.batch[:0]
		l.unwrap.Release()
	}
	if whole < 0 {
		return
	}
	f.at = position{start + int64(whole), contentOf(text[max(0, whole-contentBytes):whole])}
	taken, _ := t.config.Progress()
	for _, ended := range l.ending {
		t.marks.add(mark{taken: taken, file: ended, at: ended.at, last: true})
	}
	l.ending = nil
	t.marks.add(mark{taken: taken, file: f, at: f.at})
}

// over says whether a file that was read to its end will not become longer.
func (t *Tail) over(l *log, f *file) bool {
	now := time.Now()
	switch {
	case f.live:
		return false
	case f.zipped() || f.truncated:
		return true
	case l.live() != nil:
		return f.quiet(now)
	case f.placed:
		return false // its writer has nothing else to write to
	}
	return f.quiet(now) && now.Sub(f.left) >= deletedWait && now.Sub(f.grew) >= deletedWait
}

// retire takes leave of a file that was read to its end.
func (t *Tail) retire(l *log, f *file, take func([][]byte)) {
	t.batch = l.unwrap.Append(t.batch, f.lines.End())
	if len(t.batch) > 0 {
		take(t.batch)
		clear(t.batch)
		t.batch = t.batch[:0]
		l.unwrap.Release()
	}
	f.at = position{f.readTo, contentOf(f.before)}
	f.done = true
	f.close()
	taken, _ := t.config.Progress()
	if l.unwrap.Open() {
		l.ending = append(l.ending, f) // until the rest of the line has come
		return
	}
	t.marks.add(mark{taken: taken, file: f, at: f.at, last: true})
}

// renew begins a file anew that is not what was read.
func (t *Tail) renew(l *log, f *file) {
	l.renew(f)
	t.again = true
	t.looked = t.looked.Add(-lookPause)
	t.count(func(s *Stats) { s.Truncations++ })
	t.lost(Lost{Path: f.path, Offset: f.at.offset, Cause: CauseTruncated}, f.grew)
	t.config.Logger.Warn("A file became shorter or was written anew: what was written to it in between is lost, unless a copy of it is found",
		"path", f.path, "read_to", f.at.offset, "lines", nil)
}

// damaged gives up a compressed file after some tries: it may be being written.
func (t *Tail) damaged(f *file, err error) {
	f.close()
	if f.retries++; f.retries < zipTries {
		f.retry = time.Now().Add(zipWait)
		return
	}
	f.done, f.closed = true, true
	t.changed = true
	t.count(func(s *Stats) { s.Missing++ })
	t.lost(Lost{Path: f.path, Offset: f.at.offset, Cause: CauseDamaged}, f.grew)
	t.config.Logger.Error("A compressed file cannot be read to its end: the rest of it is lost", "path", f.path, "read_to", f.at.offset, "lines", nil, "cause", err)
}

// lose says that a file is gone before it was read to its end.
func (t *Tail) lose(l *log, f *file) {
	t.changed = true
	if f.truncated {
		return // it was said when it was found
	}
	next := ""
	if len(l.files) > 0 {
		next = l.files[0].path
	}
	t.count(func(s *Stats) { s.Missing++ })
	t.lost(Lost{Path: f.path, Offset: f.at.offset, Cause: CauseGone, Next: next}, f.grew)
	t.config.Logger.Warn("A file is gone before it was read to its end, and so may be others that were rotated after it: their lines are lost",
		"path", f.path, "inode", f.id.number, "read_to", f.at.offset, "next", next, "lines", nil)
}

func (t *Tail) closeFiles() {
	for _, l := range t.order {
		for _, f := range l.files {
			f.close()
		}
	}
}
