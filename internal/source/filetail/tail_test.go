package filetail

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// follow runs a tail and collects its lines.
type follow struct {
	t     *testing.T
	tail  *Tail
	stop  context.CancelFunc
	ended chan error

	mu    sync.Mutex
	lines []string
}

func startTail(t *testing.T, c Config) *follow {
	t.Helper()
	tail, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &follow{t: t, tail: tail, stop: stop, ended: make(chan error, 1)}
	go func() {
		f.ended <- tail.Run(ctx, func(batch [][]byte) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, line := range batch {
				f.lines = append(f.lines, string(line))
			}
		})
	}()
	t.Cleanup(stop)
	return f
}

// await waits until so many lines came.
func (f *follow) await(n int) []string {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		lines := append([]string(nil), f.lines...)
		f.mu.Unlock()
		if len(lines) >= n {
			return lines
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%d lines came, want %d: %.300q", len(lines), n, lines)
		}
	}
}

// end stops the tail as a signal does, or as a kill does.
func (f *follow) end(clean bool) {
	f.t.Helper()
	f.stop()
	<-f.ended
	if clean {
		if err := f.tail.Save(true); err != nil {
			f.t.Fatal(err)
		}
	}
}

// writer is a file that is written and rotated as Tetragon's exporter does.
type writer struct {
	t    *testing.T
	path string
	n    int
}

func (l *writer) write(text string) {
	l.t.Helper()
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		l.t.Fatal(err)
	}
}

func (l *writer) lines(n int) {
	for range n {
		l.n++
		l.write(fmt.Sprintf("{\"process_exec\":{\"process\":{\"exec_id\":\"%d\"}}}\n", l.n))
	}
}

// rotate gives the file another name, compressed or not.
func (l *writer) rotate(zip bool) (name string) {
	l.t.Helper()
	l.n++
	name = strings.TrimSuffix(l.path, ".log") + fmt.Sprintf("-2026-11-24T00-00-%05d.log", l.n)
	if err := os.Rename(l.path, name); err != nil {
		l.t.Fatal(err)
	}
	if zip {
		l.zip(name)
	}
	return name
}

func (l *writer) zip(name string) {
	l.t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		l.t.Fatal(err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(text)
	_ = w.Close()
	if err := os.WriteFile(name+".gz", out.Bytes(), 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		l.t.Fatal(err)
	}
}

func wantOnce(t *testing.T, lines []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, line := range lines {
		if seen[line] {
			t.Errorf("%s came twice", line)
		}
		seen[line] = true
	}
}

// TestTail: a file that appears late, grows, holds a half-written line for a
// while, and is rotated under the reader.
func TestTail(t *testing.T) {
	folder := t.TempDir()
	l := &writer{t: t, path: filepath.Join(folder, "tetragon.log")}
	f := startTail(t, Config{Names: names(l.path)})
	l.lines(3)
	f.await(3)
	l.write(`{"half":`)
	l.write(`"written"}` + "\n\n")
	if got := f.await(4); got[3] != `{"half":"written"}` {
		t.Errorf("the half-written line came as %q", got[3])
	}
	for i := range 5 {
		l.rotate(i%2 == 0)
		l.lines(10)
		f.await(14 + 10*i)
	}
	l.lines(1)
	wantOnce(t, f.await(55))
	f.end(true)
	if s := f.tail.Stats(); s.Rotations != 5 || s.Missing+s.Truncations+s.TooLong != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestTailResumes: what was written while nobody read, over several rotations, of
// which some are compressed, is read from where it was left.
func TestTailResumes(t *testing.T) {
	folder := t.TempDir()
	l := &writer{t: t, path: filepath.Join(folder, "tetragon.log")}
	c := Config{Names: names(l.path), Checkpoint: filepath.Join(folder, "position")}
	l.lines(5)
	f := startTail(t, c)
	f.await(5)
	f.end(true)

	l.lines(5)
	first := l.rotate(false)
	l.lines(5)
	l.rotate(false)
	l.lines(5)
	l.zip(first)
	f = startTail(t, c)
	got := f.await(15)
	wantOnce(t, got)
	if got[0] != `{"process_exec":{"process":{"exec_id":"6"}}}` {
		t.Errorf("it went on with %s", got[0])
	}
	f.end(true)
	if s := f.tail.Stats(); s.MayRepeat || s.Missing != 0 {
		t.Errorf("stats %+v", s)
	}

	l.lines(2)
	f = startTail(t, c)
	if got := f.await(2); len(got) != 2 {
		t.Errorf("%d lines, want 2", len(got))
	}
	f.end(true)
}

// TestTailKilled: after a kill nothing is missing, and that some may come twice is
// said.
func TestTailKilled(t *testing.T) {
	folder := t.TempDir()
	l := &writer{t: t, path: filepath.Join(folder, "tetragon.log")}
	c := Config{Names: names(l.path), Checkpoint: filepath.Join(folder, "position")}
	l.lines(5)
	f := startTail(t, c)
	f.await(5)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the checkpoint of every second
		if text, _ := os.ReadFile(c.Checkpoint); len(text) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no checkpoint was written")
		}
	}
	l.lines(5)
	f.await(10)
	f.end(false)
	l.lines(5)
	f = startTail(t, c)
	got := f.await(10)
	if got[len(got)-1] != fmt.Sprintf(`{"process_exec":{"process":{"exec_id":"%d"}}}`, l.n) {
		t.Errorf("the last is %s", got[len(got)-1])
	}
	f.end(true)
	if !f.tail.Stats().MayRepeat {
		t.Error("that events may come twice is not said")
	}
}

// TestTailAfterLogrotate: numbered names, the highest the oldest.
func TestTailAfterLogrotate(t *testing.T) {
	folder := t.TempDir()
	l := &writer{t: t, path: filepath.Join(folder, "tetragon.log")}
	c := Config{Names: names(l.path), Checkpoint: filepath.Join(folder, "position")}
	l.lines(5)
	f := startTail(t, c)
	f.await(5)
	f.end(true)
	for n := 11; n > 8; n-- { // 9 is younger than 10
		l.lines(5)
		name := fmt.Sprint(l.path, ".", n)
		if err := os.Rename(l.path, name); err != nil {
			t.Fatal(err)
		}
		if n > 9 {
			l.zip(name)
		}
	}
	l.lines(5)
	f = startTail(t, c)
	got := f.await(20)
	for i, line := range got {
		if want := fmt.Sprintf(`{"process_exec":{"process":{"exec_id":"%d"}}}`, i+6); line != want {
			t.Fatalf("line %d is %s, want %s", i, line, want)
		}
	}
	f.end(true)
}

func TestTailTruncated(t *testing.T) {
	folder := t.TempDir()
	l := &writer{t: t, path: filepath.Join(folder, "tetragon.log")}
	f := startTail(t, Config{Names: names(l.path)})
	l.lines(5)
	f.await(5)
	if err := os.Truncate(l.path, 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); f.tail.Stats().Truncations == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	l.lines(1)
	f.await(6)
	f.end(true)
	if s := f.tail.Stats(); s.Truncations != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestTailCountsRateLimits: what Tetragon itself left out of the file.
func TestTailCountsRateLimits(t *testing.T) {
	l := &writer{t: t, path: filepath.Join(t.TempDir(), "tetragon.log")}
	f := startTail(t, Config{Names: names(l.path)})
	l.write(`{"rate_limit_info":{"number_of_dropped_process_events":"12"},"node_name":"n"}` + "\n" + `{"rate_limit_info":{"number_of_dropped_process_events":"30"}}` + "\n")
	f.await(2)
	f.end(true)
	if s := f.tail.Stats(); s.RateLimited != 42 {
		t.Errorf("stats %+v", s)
	}
}

func TestTailOfLostFile(t *testing.T) {
	folder := t.TempDir()
	l := &writer{t: t, path: filepath.Join(folder, "tetragon.log")}
	c := Config{Names: names(l.path), Checkpoint: filepath.Join(folder, "position")}
	l.lines(5)
	f := startTail(t, c)
	f.await(5)
	f.end(true)
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	l.lines(3)
	f = startTail(t, c)
	f.await(3)
	f.end(true)
	if s := f.tail.Stats(); s.Missing != 1 {
		t.Errorf("stats %+v", s)
	}
	// Rubbish in the checkpoint: from the beginning, and it is said.
	if err := os.WriteFile(c.Checkpoint, []byte(`{"offset":-7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f = startTail(t, c)
	f.await(3)
	f.end(true)
	if !f.tail.Stats().MayRepeat {
		t.Error("that events may come twice is not said")
	}
}

func names(names ...string) func() []string { return func() []string { return names } }

// FuzzCheckpoint: whatever the file holds, the positions are possible ones or none.
func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(`{"offset":10,"head":5,"head_bytes":10,"clean":true}`))
	f.Add([]byte(`{"offset":-1}`))
	f.Add([]byte(`{"version":2,"logs":{"/a":[{"path":"/a","dev":1,"ino":2,"head":3,"head_bytes":4,"offset":5,"before":6,"before_bytes":5}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := readCheckpoint(text)
		if err != nil && len(c.Logs) > 0 {
			t.Fatalf("%+v, %v", c, err)
		}
		for _, files := range c.Logs {
			for _, f := range files {
				if f.Offset < 0 || f.HeadBytes < 0 || f.HeadBytes > contentBytes || f.BeforeBytes < 0 || int64(f.BeforeBytes) > f.Offset {
					t.Fatalf("%+v", f)
				}
			}
		}
	})
}
