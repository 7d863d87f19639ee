package filetail

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// world is a folder with a writer that rotates, what compresses and deletes, and a tail that
// is stopped and killed, in virtual time. It knows what was written where.
type world struct {
	t            *testing.T
	folder, path string
	writer       *os.File
	on           string            // the rotation that the writer writes to; empty: the live file
	half         string            // the rest of a line that it has begun
	text         map[string]string // of each file: by its name without .gz
	rotations    []string          // there, the oldest first
	n            int               // lines
	rotated      int
	deleted      map[string]bool // lines of files that are gone
	repeated     bool            // lines may come twice

	tail            *Tail
	stop            context.CancelFunc
	ended           chan struct{}
	room            atomic.Bool
	handed          []string    // by this run
	settled         uint64      // of handed
	stuck           atomic.Bool // nothing reaches its end
	got             map[string]int
	missing, breaks uint64
	ops             []string
}

func (w *world) note(format string, args ...any) {
	w.ops = append(w.ops, fmt.Sprintf(format, args...))
	if os.Getenv("TETRACAST_WORLDS_LOG") != "" {
		w.t.Logf("%s; lines %d, rotations %v, on %q, handed %d, settled %d, room %v, stuck %v", w.ops[len(w.ops)-1], w.n, w.rotations, w.on, len(w.handed), w.settled, w.room.Load(), w.stuck.Load())
		for _, l := range w.tail.order {
			for _, f := range l.files {
				w.t.Logf("  %s %v at %d settle %d done %v closed %v live %v open %v", f.path, f.id, f.at.offset, f.settle.offset, f.done, f.closed, f.live, f.isOpen())
			}
		}
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v\n%v", err, w.ops)
	}
}

func (w *world) start() {
	var logger *slog.Logger
	if os.Getenv("TETRACAST_WORLDS_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	}
	tail, err := New(Config{
		Logger: logger,
		Names:  names(w.path), Checkpoint: filepath.Join(w.folder, "state", "position"),
		Room: func() int {
			if w.room.Load() {
				return 4096
			}
			return 0
		},
		Progress: func() (uint64, uint64) {
			if !w.stuck.Load() {
				w.settled = uint64(len(w.handed))
			}
			return uint64(len(w.handed)), w.settled
		},
	})
	w.check(err)
	w.handed, w.settled = nil, 0
	w.tail, w.ended = tail, make(chan struct{})
	tail.blind = true // inotify does not wait in virtual time
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() {
		defer close(w.ended)
		_ = tail.Run(ctx, func(batch [][]byte) {
			for _, line := range batch {
				w.handed = append(w.handed, string(line))
			}
		})
	}()
}

// end stops the tail: with its position, or without what had not reached its end.
func (w *world) end(clean bool) {
	w.stop()
	<-w.ended
	if clean {
		w.settled = uint64(len(w.handed))
		stuck := w.stuck.Load()
		w.stuck.Store(false)
		w.check(w.tail.Save(true))
		w.stuck.Store(stuck)
	}
	for _, line := range w.handed[:w.settled] {
		w.got[line]++
	}
	s := w.tail.Stats()
	w.missing += s.Missing
	w.breaks += s.Truncations
}

func (w *world) file() string {
	if w.on == "" {
		return w.path
	}
	return w.on
}

func (w *world) write(text string) {
	if w.writer == nil {
		w.reopen()
	}
	_, err := w.writer.WriteString(text)
	w.check(err)
	w.text[w.file()] += text
	_ = os.Chtimes(w.file(), time.Time{}, time.Now()) // its name may be gone
}

func (w *world) lines(n int) {
	for range n {
		w.n++
		line := fmt.Sprintf("{\"process_exec\":{\"process\":{\"exec_id\":\"%08d\",\"arguments\":\"%s\"}}}\n", w.n, bytes.Repeat([]byte{'x'}, w.n%97))
		w.write(w.half)
		w.half = ""
		if w.n%5 == 0 {
			w.write(line[:20])
			w.half = line[20:]
			continue
		}
		w.write(line)
	}
}

func (w *world) finish() { w.write(w.half); w.half = "" }

func (w *world) rotate() {
	if _, err := os.Stat(w.path); err != nil {
		return
	}
	w.finish()
	w.rotated++
	name := filepath.Join(w.folder, fmt.Sprintf("tetragon-2026-11-24T00-00-%05d.log", w.rotated))
	w.check(os.Rename(w.path, name))
	w.text[name] = w.text[w.path]
	delete(w.text, w.path)
	w.rotations = append(w.rotations, name)
	if w.on == "" {
		w.on = name
	}
}

func (w *world) reopen() {
	if w.writer != nil {
		w.finish()
		_ = w.writer.Close()
	}
	var err error
	w.writer, err = os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.check(err)
	w.on = ""
}

func (w *world) zip() {
	for _, name := range w.rotations {
		if _, err := os.Stat(name); err != nil || name == w.on {
			continue
		}
		text, err := os.ReadFile(name)
		w.check(err)
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write(text)
		_ = z.Close()
		w.check(os.WriteFile(name+".gz", out.Bytes(), 0o600))
		_ = os.Chtimes(name+".gz", time.Time{}, time.Now())
		w.check(os.Remove(name))
		return
	}
}

// remove is retention: of the oldest.
func (w *world) remove() {
	if len(w.rotations) == 0 || w.rotations[0] == w.on {
		return
	}
	w.sleep(lookInterval) // what came and went between two looks nobody has seen
	for line := range strings.Lines(w.text[w.rotations[0]]) {
		w.deleted[strings.TrimSuffix(line, "\n")] = true
	}
	_ = os.Remove(w.rotations[0])
	_ = os.Remove(w.rotations[0] + ".gz")
	w.rotations = w.rotations[1:]
}

func (w *world) copyTruncate() {
	if w.writer == nil || w.on != "" {
		return
	}
	w.finish()
	w.rotated++
	name := filepath.Join(w.folder, fmt.Sprintf("tetragon-2026-11-24T00-00-%05d.log", w.rotated))
	in, err := os.Open(w.path)
	w.check(err)
	defer in.Close()
	out, err := os.Create(name)
	w.check(err)
	defer out.Close()
	_, err = io.Copy(out, in)
	w.check(err)
	_ = os.Chtimes(name, time.Time{}, time.Now())
	w.check(os.Truncate(w.path, 0))
	w.text[name] = w.text[w.path]
	w.text[w.path] = ""
	w.rotations = append(w.rotations, name)
	w.repeated = true // what a copy has is found by its content, which a short file does not have
}

func (w *world) sleep(d time.Duration) { time.Sleep(d); synctest.Wait() }

// step does one thing.
func (w *world) step(op, arg byte) {
	w.note("%d/%d", op%14, arg)
	switch op % 14 {
	case 0, 1, 2:
		w.lines(1 + int(arg)%40)
	case 3:
		w.rotate()
		w.reopen()
	case 4:
		w.rotate()
	case 5:
		w.reopen()
	case 6:
		w.zip()
	case 7:
		w.remove()
	case 8:
		w.copyTruncate()
	case 9:
		w.sleep(time.Duration(arg) * 10 * time.Millisecond)
	case 10:
		w.end(false)
		w.repeated = true
		w.start()
	case 11:
		w.end(true)
		w.start()
	case 12:
		w.room.Store(!w.room.Load())
	case 13:
		w.stuck.Store(!w.stuck.Load())
	}
	synctest.Wait()
}

// verdict waits until all has come, and holds what came against what was written.
func (w *world) verdict() {
	w.room.Store(true)
	w.stuck.Store(false)
	w.finish()
	w.reopen()
	w.lines(1)
	w.finish()
	w.sleep(time.Minute)
	w.end(true)
	for i := 1; i <= w.n; i++ {
		line := fmt.Sprintf("{\"process_exec\":{\"process\":{\"exec_id\":\"%08d\",\"arguments\":\"%s\"}}}", i, bytes.Repeat([]byte{'x'}, i%97))
		switch n := w.got[line]; {
		case n == 0 && !(w.deleted[line] && w.missing+w.breaks > 0):
			w.t.Errorf("line %d of %d did not come, and nothing says so; deleted %v, missing %d, breaks %d", i, w.n, w.deleted[line], w.missing, w.breaks)
		case n > 1 && !w.repeated:
			w.t.Errorf("line %d came %d times", i, n)
		}
		delete(w.got, line)
		if w.t.Failed() {
			break
		}
	}
	for line := range w.got {
		w.t.Errorf("what nobody wrote: %q", line)
		break
	}
	if w.t.Failed() {
		w.t.Logf("%v", w.ops)
	}
}

func play(t *testing.T, ops []byte) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, folder: folder, path: filepath.Join(folder, "tetragon.log"), text: map[string]string{}, deleted: map[string]bool{}, got: map[string]int{}}
		w.room.Store(true)
		w.check(os.Mkdir(filepath.Join(folder, "state"), 0o700))
		w.start()
		w.reopen()
		w.sleep(2 * time.Second) // the first start, and a checkpoint
		w.lines(5)
		w.sleep(2 * time.Second)
		for pair := range slices.Chunk(ops, 2) {
			if len(pair) == 2 {
				w.step(pair[0], pair[1])
			}
		}
		w.verdict()
		_ = w.writer.Close()
	})
}

// TestWorld: whatever happens to the files and to the tail, in whatever order, each line
// comes, or a file that is gone is named; and each comes once if nothing was
// killed or copied.
func TestWorld(t *testing.T) {
	for seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, seed))
			ops := make([]byte, 2*(10+random.IntN(60)))
			for i := range ops {
				ops[i] = byte(random.IntN(math.MaxUint8 + 1))
			}
			play(t, ops)
		})
	}
}

func FuzzWorld(f *testing.F) {
	f.Add([]byte{0, 10, 4, 0, 0, 10, 5, 0, 0, 3, 6, 0, 10, 0, 9, 200})
	f.Fuzz(func(t *testing.T, ops []byte) { play(t, ops[:min(len(ops), 200)]) })
}

func seeds(t *testing.T) uint64 {
	n, err := strconv.ParseUint(cmp.Or(os.Getenv("TETRACAST_WORLDS"), "40"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
