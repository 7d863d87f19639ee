package main

import (
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFileTorture: a file that is rotated five times a second, by a writer that goes on
// into the old one for a while, compressed, and deleted by retention; a destination
// that takes a tenth of what is written; and a kill every second. Each line arrives, or its file is
// named in the log. TETRACAST_TORTURE says for how long, such as 5m; make torture.
func TestFileTorture(t *testing.T) {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("TETRACAST_TORTURE"), "4s"))
	if err != nil {
		t.Fatal(err)
	}
	const total, every = 100_000, 200 * time.Millisecond
	lines := int(float64(total) * min(1, float64(length)/float64(5*time.Minute)))
	folder := t.TempDir()
	r := &rotator{t: t, path: filepath.Join(folder, "tetragon.log"), keep: 40}
	state, got := t.TempDir(), receiveIDs(t)
	rate := fmt.Sprint(max(1, int(float64(lines)/length.Seconds()/10)))
	args := []string{"export", "--source", "file:" + r.path, "--state-dir", state, "--udp-destination", got.address, "--queue-bytes", "200000"}
	slow := append(slices.Clip(args), "--max-datagrams-per-second", rate)

	export := run(t, slow...)
	r.write(1)
	waitFor(t, export, "a checkpoint", func() bool { // what was rotated before the first one is not ours
		_, err := os.Stat(filepath.Join(state, "export.position"))
		return err == nil
	})
	var log strings.Builder
	kills := 0
	kill := func() {
		_ = export.cmd.Process.Kill()
		<-export.exited
		log.WriteString(export.log.String())
	}
	start, killed := time.Now(), time.Now()
	for turn := 0; time.Since(start) < length; turn++ {
		due := int(float64(lines) * min(1, float64(time.Since(start)+every)/float64(length)))
		r.write((due - r.n) / 2)
		r.rename()
		r.write(due - r.n) // still into the old one
		r.reopen()
		r.tidy()
		if time.Since(killed) >= time.Second {
			kill()
			kills++
			export, killed = run(t, slow...), time.Now()
		}
		time.Sleep(time.Until(start.Add(time.Duration(turn+1) * every)))
	}
	r.write(lines - r.n)
	// The destination takes all from here on, and nothing is killed any more.
	kill()
	export = run(t, args...)
	last := fmt.Sprintf("id-%d", r.n)
	waitFor(t, export, "the last line", func() bool { return got.times(last) > 0 })
	time.Sleep(2 * time.Second) // for files that the writer may still have had open
	kill()

	delivered, twice, named, lost := 0, 0, 0, 0
	gaps := unreadFiles(log.String())
	for i := 1; i <= r.n; i++ {
		switch n := got.times(fmt.Sprintf("id-%d", i)); {
		case n > 1:
			twice++
			fallthrough
		case n == 1:
			delivered++
		case r.inGap(i, gaps):
			named++
		default:
			if lost++; lost < 5 {
				t.Errorf("line %d of file %d neither came nor is its file named", i, r.fileOf(i))
			}
		}
	}
	t.Logf("| length | kills | rotations | lines written | delivered | of them twice | in files named as missing | neither |\n"+
		"| %v | %d | %d | %d | %d | %d | %d | %d |", length, kills, len(r.files), r.n, delivered, twice, named, lost)
	t.Logf("files named as gone: %d; deleted by retention: %d", len(gaps), r.deleted)
	if lost > 0 || delivered == 0 || kills == 0 {
		t.Errorf("%d lines were lost unsaid, %d delivered, %d kills", lost, delivered, kills)
	}
}

// rotator writes a file as a writer under logrotate does.
type rotator struct {
	t       *testing.T
	path    string
	keep    int // files
	file    *os.File
	n       int          // lines written
	files   []rotatedLog // the oldest first
	first   int          // line of the live file
	deleted int
}

type rotatedLog struct {
	name        string
	first, last int // lines
	gone        bool
}

func (r *rotator) reopen() {
	r.t.Helper()
	if r.file != nil {
		_ = r.file.Close()
		r.files[len(r.files)-1].last = r.n
	}
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	r.file, r.first = file, r.n+1
}

func (r *rotator) write(lines int) {
	if r.file == nil {
		file, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			r.t.Fatal(err)
		}
		r.file, r.first = file, r.n+1
	}
	for range lines {
		r.n++
		if _, err := fmt.Fprintf(r.file, "{\"process_exec\":{\"process\":{\"exec_id\":\"id-%d\",\"arguments\":\"%080d\"}}}\n", r.n, r.n); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rotator) rename() {
	name := strings.TrimSuffix(r.path, ".log") + fmt.Sprintf("-2026-11-24T00-%02d-%02d.%03d.log", len(r.files)/60000, len(r.files)/1000%60, len(r.files)%1000)
	if err := os.Rename(r.path, name); err != nil {
		r.t.Fatal(err)
	}
	r.files = append(r.files, rotatedLog{name: name, first: r.first, last: r.n})
}

// tidy compresses all but the two youngest, and deletes beyond keep.
func (r *rotator) tidy() {
	for i := range r.files[:max(0, len(r.files)-2)] {
		f := &r.files[i]
		if i < len(r.files)-r.keep && !f.gone {
			f.gone = true
			r.deleted++
			_ = os.Remove(f.name)
			_ = os.Remove(f.name + ".gz")
		}
		if _, err := os.Stat(f.name); f.gone || err != nil {
			continue
		}
		in, err := os.Open(f.name)
		if err != nil {
			r.t.Fatal(err)
		}
		out, err := os.Create(f.name + ".gz")
		if err != nil {
			r.t.Fatal(err)
		}
		z := gzip.NewWriter(out)
		_, err = io.Copy(z, in)
		_ = in.Close()
		if err == nil {
			err = z.Close()
		}
		_ = out.Close()
		if err == nil {
			err = os.Remove(f.name)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// fileOf returns the index of the file with the line; the live one is behind the last.
func (r *rotator) fileOf(line int) int {
	i, _ := slices.BinarySearchFunc(r.files, line, func(f rotatedLog, line int) int { return cmp.Compare(f.last, line) })
	return i
}

// gap is what the log says of a file that was gone: it, and what lies before next.
type gap struct{ path, next string }

// unreadFiles finds them in a log.
func unreadFiles(log string) (gaps []gap) {
	for _, m := range regexp.MustCompile(`A file is gone before it was read.* path=(\S+) .*next=(\S+) `).FindAllStringSubmatch(log, -1) {
		gaps = append(gaps, gap{m[1], strings.Trim(m[2], `"`)})
	}
	return gaps
}

// inGap says whether retention deleted the line's file, and the log names it, or a gap
// up to a later file.
func (r *rotator) inGap(line int, gaps []gap) bool {
	i := r.fileOf(line)
	if i == len(r.files) || !r.files[i].gone {
		return false
	}
	return slices.ContainsFunc(gaps, func(g gap) bool {
		if strings.TrimSuffix(g.path, ".gz") == r.files[i].name {
			return true
		}
		next := slices.IndexFunc(r.files, func(f rotatedLog) bool { return f.name == strings.TrimSuffix(g.next, ".gz") })
		from := slices.IndexFunc(r.files, func(f rotatedLog) bool { return f.name == strings.TrimSuffix(g.path, ".gz") })
		return (next > i || g.next == r.path || g.next == "") && i >= from // from -1: it had the live name
	})
}

// received counts the lines of a format with one event a datagram.
type received struct {
	address string
	mu      sync.Mutex
	ids     map[string]int
}

func (r *received) times(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}

// receiveIDs counts by itself what arrives.
func receiveIDs(t *testing.T) *received {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.UDPConn).SetReadBuffer(32 << 20)
	r := &received{address: conn.LocalAddr().String(), ids: map[string]int{}}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		buffer := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var event struct {
				Exec struct {
					Process struct {
						ID string `json:"exec_id"`
					} `json:"process"`
				} `json:"process_exec"`
			}
			if json.Unmarshal(buffer[:n], &event) == nil && event.Exec.Process.ID != "" {
				r.mu.Lock()
				r.ids[event.Exec.Process.ID]++
				r.mu.Unlock()
			}
		}
	}()
	return r
}
