package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"tetracast/internal/udp/netns"
	"tetracast/ledger"
)

// textOf returns what a file holds, decompressed. One that cannot be, or ends in
// half a line, fails the test.
func textOf(t *testing.T, path string) string {
	t.Helper()
	packed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var in io.Reader = bytes.NewReader(packed)
	switch filepath.Ext(path) {
	case ".gz":
		in, err = gzip.NewReader(in)
	case ".zst":
		in, err = zstd.NewReader(in)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		t.Errorf("%s ends in half a line: %.80q", path, text[bytes.LastIndexByte(text, '\n')+1:])
	}
	return string(text)
}

// textsIn returns what the files in a folder hold, in the order of their names:
// that of their rotation. After a kill in that moment a file can be there both
// plain and compressed, which has to be the same then.
func textsIn(t *testing.T, folder string) (texts []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if strings.HasSuffix(e.Name(), ".part") {
			continue
		}
		text := textOf(t, filepath.Join(folder, e.Name()))
		if i > 0 && (e.Name() == entries[i-1].Name()+".gz" || e.Name() == entries[i-1].Name()+".zst") {
			if text != texts[len(texts)-1] {
				t.Errorf("%s is not what %s holds", e.Name(), entries[i-1].Name())
			}
			continue
		}
		texts = append(texts, text)
	}
	return texts
}

// sendTo sends events as JSON, numbered from a number on.
func sendTo(t *testing.T, address string, from, to, textBytes int) {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := strings.Repeat("x", textBytes)
	for i := from; i < to; i++ {
		// A collector that was killed refuses, which is no matter here.
		_, _ = fmt.Fprintf(conn, "{\"process_exec\":{\"process\":{\"exec_id\":\"%d\",\"arguments\":\"%s\"}},\"time\":\"2026-01-01T00:00:00Z\"}\n", i, text)
	}
}

// stop ends a collect process in good order and returns its account.
func (c collecting) stop(t *testing.T) ledger.Collector {
	t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	if code := c.wait(20 * time.Second); code != 0 {
		t.Errorf("collect exited with %d", code)
	}
	account := readJSON[ledger.Collector](t, c.account)
	if err := account.Check(); err != nil {
		t.Error(err)
	}
	return account
}

// waitLines waits until a file has so many lines.
func (c collecting) waitLines(t *testing.T, path string, want int) {
	t.Helper()
	waitFor(t, c.process, fmt.Sprintf("%d lines in %s", want, path), func() bool {
		text, _ := os.ReadFile(path)
		return bytes.Count(text, []byte{'\n'}) >= want
	})
}

// TestRotatesAndCompresses: the sample, many files long, is in the rotated files
// and the current one as protojson has it, once and in order.
func TestRotatesAndCompresses(t *testing.T) {
	want, _ := sampleOracle(t)
	for _, compression := range []string{"none", "gzip", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			account := filepath.Join(t.TempDir(), "export.json")
			collect := startCollect(t, "--write-max-bytes", "65536", "--write-max-files", "0", "--write-compress", compression)
			export := runWith(t, strings.NewReader(strings.Join(want, "")), "export", "--source", "-",
				"--udp-destination", "frame://"+collect.address, "--account", account, "--max-datagrams-per-second", "5000")
			if code := export.wait(time.Minute); code != 0 {
				t.Errorf("export exited with %d", code)
			}
			folder := filepath.Dir(collect.events)
			waitFor(t, collect.process, "the last file is compressed", func() bool {
				rotated, _ := filepath.Glob(filepath.Join(folder, "out-*.jsonl"))
				all, _ := filepath.Glob(filepath.Join(folder, "out-*"))
				lines := readJSONWhenThere(collect)
				return len(all) > 3 && (compression == "none" || len(rotated) == 0) && lines >= uint64(len(want))
			})
			a := collect.stop(t)
			if err := os.Remove(collect.account); err != nil {
				t.Fatal(err)
			}
			var events []string
			for _, text := range textsIn(t, folder) {
				if len(text) > 65536 && strings.Count(text, "\n") > 1 {
					t.Errorf("a file of %d bytes", len(text))
				}
				for line := range strings.Lines(text) {
					if !strings.HasPrefix(line, `{"@timestamp"`) { // agent_init, agent_stats
						events = append(events, line)
					}
				}
			}
			if !slices.Equal(events, want) {
				t.Errorf("%d events in the files, want the %d of the sample", len(events), len(want))
			}
			if a.Delivered != uint64(len(want)) {
				t.Errorf("delivered %d, want %d", a.Delivered, len(want))
			}
		})
	}
}

// readJSONWhenThere asks for the account, and returns how many events are
// delivered in the last one that was written.
func readJSONWhenThere(c collecting) uint64 {
	_ = c.cmd.Process.Signal(syscall.SIGUSR1)
	text, _ := os.ReadFile(c.account)
	var account ledger.Collector
	_ = json.Unmarshal(text, &account)
	return account.Delivered
}

// TestReopensOnHangup: what logrotate does, by hand.
func TestReopensOnHangup(t *testing.T) {
	collect := startCollect(t)
	sendTo(t, collect.address, 0, 100, 10)
	collect.waitLines(t, collect.events, 100)
	if err := os.Rename(collect.events, collect.events+".1"); err != nil {
		t.Fatal(err)
	}
	_ = collect.cmd.Process.Signal(syscall.SIGHUP)
	collect.waitLog("opened anew")
	sendTo(t, collect.address, 100, 300, 10)
	collect.waitLines(t, collect.events, 200)
	_ = collect.cmd.Process.Signal(syscall.SIGHUP) // with nothing moved
	sendTo(t, collect.address, 300, 301, 10)
	collect.waitLines(t, collect.events, 201)
	if a := collect.stop(t); a.Delivered != 301 {
		t.Errorf("delivered %d, want 301", a.Delivered)
	}
	for path, want := range map[string]int{collect.events: 201, collect.events + ".1": 100} {
		text, err := os.ReadFile(path)
		if err != nil || bytes.Count(text, []byte{'\n'}) != want {
			t.Errorf("%s: %d lines, %v; want %d", path, bytes.Count(text, []byte{'\n'}), err, want)
		}
	}
}

// TestLogrotate: the real one, with the configuration of docs/collect.md.
func TestLogrotate(t *testing.T) {
	logrotate, err := exec.LookPath("logrotate")
	if err != nil {
		netns.SkipLoudly(t, err.Error())
	}
	collect := startCollect(t, "--write-max-bytes", "0")
	folder, events := t.TempDir(), 0
	config := filepath.Join(folder, "logrotate.conf")
	text := fmt.Sprintf("%s {\n  rotate 5\n  missingok\n  compress\n  delaycompress\n  nocreate\n  postrotate\n    kill -HUP %d\n  endscript\n}\n", collect.events, collect.cmd.Process.Pid)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		sendTo(t, collect.address, events, events+100, 10)
		collect.waitLines(t, collect.events, 100)
		events += 100
		out, err := exec.Command(logrotate, "--force", "--state", filepath.Join(folder, "state"), config).CombinedOutput()
		if err != nil {
			t.Fatalf("logrotate: %v: %s", err, out)
		}
		waitFor(t, collect.process, "a new file", func() bool {
			_, err := os.Stat(collect.events)
			return err == nil
		})
	}
	if a := collect.stop(t); a.Delivered != uint64(events) {
		t.Errorf("delivered %d, want %d", a.Delivered, events)
	}
	if err := os.Remove(collect.account); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(strings.Join(textsIn(t, filepath.Dir(collect.events)), ""), "\n"); n != events {
		t.Errorf("%d lines, want %d", n, events)
	}
}

// TestKilledWhileWriting: a collector that rotates and compresses is killed again
// and again in the middle of a flood. Each line of each file is an event, none is
// there twice, and what the last process says it delivered is there.
func TestKilledWhileWriting(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 4
	}
	folder := t.TempDir()
	events, account := filepath.Join(folder, "out", "events.jsonl"), filepath.Join(folder, "account.json")
	if err := os.Mkdir(filepath.Dir(events), 0o700); err != nil {
		t.Fatal(err)
	}
	address, sent := freeUDP(t), 0
	start := func(args ...string) collecting {
		t.Helper()
		c := collecting{address: address, events: events, account: account}
		c.process = run(t, append([]string{"collect", "--listen", address, "--write", events, "--account", account,
			"--write-max-bytes", "1000000", "--write-max-files", "0", "--write-compress", "zstd"}, args...)...)
		c.waitLog("Listening")
		return c
	}
	random := rand.New(rand.NewPCG(5, 6))
	cut := 0
	for round := range rounds {
		c := start()
		if strings.Contains(c.log.String(), "cut off") {
			cut++
		}
		killed, flood := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(flood)
			for {
				select {
				case <-killed:
					return
				default:
					sendTo(t, address, sent, sent+100, 1200)
					sent += 100
				}
			}
		}()
		writes, last := 1+random.IntN(12), int64(-1)
		waitFor(t, c.process, "some writes", func() bool {
			if info, err := os.Stat(events); err == nil && info.Size() != last {
				last = info.Size()
				writes--
			}
			return writes < 0
		})
		_ = c.cmd.Process.Kill()
		c.wait(20 * time.Second)
		close(killed)
		<-flood
		if round%3 == 0 {
			// A kill seldom meets the inside of a write call: here is what it leaves then.
			// In the middle of a rotation it leaves no file.
			file, err := os.OpenFile(events, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.WriteString(file, `{"process_exec":{"process":{"exec_id":"half`)
			if err := errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := start("--exit-idle", "500ms")
	const last = 2000
	sendTo(t, address, sent, sent+last, 100)
	if code := c.wait(30 * time.Second); code != 0 {
		t.Errorf("collect exited with %d", code)
	}
	a := readJSON[ledger.Collector](t, account)
	seen, fromLast := map[string]bool{}, uint64(0)
	for line := range strings.Lines(strings.Join(textsIn(t, filepath.Dir(events)), "")) {
		var event struct {
			Exec struct {
				Process struct {
					ID string `json:"exec_id"`
				} `json:"process"`
			} `json:"process_exec"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Exec.Process.ID == "" {
			t.Fatalf("not an event: %v: %.100q", err, line)
		}
		id := event.Exec.Process.ID
		if seen[id] {
			t.Errorf("event %s is there twice", id)
		}
		seen[id] = true
		var number int
		if _, err := fmt.Sscan(id, &number); err == nil && number >= sent {
			fromLast++
		}
	}
	if fromLast != a.Delivered || a.Delivered == 0 {
		t.Errorf("the last process delivered %d, and %d of its events are there", a.Delivered, fromLast)
	}
	t.Logf("%d of %d events are there after %d kills; %d half lines were cut off", len(seen), sent+last, rounds, cut)
}

// TestWriteUsage: what would lose events is refused, and what cannot be written
// says so.
func TestWriteUsage(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "events.jsonl")
	f := func(code int, want, hint string, args ...string) {
		t.Helper()
		p := run(t, append([]string{"collect", "--listen", "127.0.0.1:0"}, args...)...)
		if got := p.wait(10 * time.Second); got != code {
			t.Errorf("%v: exit code %d, want %d", args, got, code)
		}
		log := p.log.String()
		if _, after, ok := strings.Cut(log, "hint: "); !ok || !strings.Contains(log, want) || !strings.Contains(after, hint) {
			t.Errorf("%v: want %q and the hint %q:\n%s", args, want, hint, log)
		}
	}
	f(2, `"lz4"`, "zstd", "--write", path, "--write-compress", "lz4")
	f(2, "--write-max-bytes 100,", "in bytes", "--write", path, "--write-max-bytes", "100")
	f(2, "--write-max-bytes -1,", "in bytes", "--write", path, "--write-max-bytes", "-1")
	f(2, "--write-max-files 1,", "all events", "--write", path, "--write-max-files", "1")
	f(2, "--write-compress zstd", "logrotate", "--write", path, "--write-compress", "zstd", "--write-max-bytes", "0")
	f(1, folder+": is a directory", "--write names a file", "--write", folder)
	holder := run(t, "collect", "--listen", "127.0.0.1:0", "--write", path)
	holder.waitLog("Listening")
	f(1, path+": another process writes to it", "another collector", "--write", path)
}
