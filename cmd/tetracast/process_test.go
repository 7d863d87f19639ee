package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
	"tetracast/ledger"
)

// asMain makes this test binary be tetracast, so that the tests run the real
// commands as processes, with the race detector where the tests have it.
const asMain = "TETRACAST_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is a running tetracast.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	name   string
	out    bytes.Buffer
	log    syncBuffer
	exited chan struct{}
}

// run starts tetracast with the arguments; the test's end kills it.
func run(t testing.TB, args ...string) *process {
	t.Helper()
	return runWith(t, nil, args...)
}

// runWith gives it a standard input.
func runWith(t testing.TB, input io.Reader, args ...string) *process {
	t.Helper()
	return runTo(t, func(p *process) { p.cmd.Stdin = input }, args...)
}

// runTo lets the caller change the standard streams.
func runTo(t testing.TB, streams func(*process), args ...string) *process {
	t.Helper()
	p := &process{t: t, name: args[0], exited: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], args...)
	// The race detector would keep every process for a second at its end.
	p.cmd.Env = append(os.Environ(), asMain+"=1", "NODE_NAME=test-node", "GORACE=atexit_sleep_ms=0", "TETRACAST_METRICS_ADDRESS=") // tests run side by side
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.log
	streams(p)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s %v:\n%s", p.name, args, p.log.String())
		}
	})
	return p
}

// wait returns the exit code, or fails the test after the time.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("%s did not end within %v:\n%s", p.name, limit, p.log.String())
		return -1
	}
}

// waitLog waits until the log holds the text.
func (p *process) waitLog(text string) string {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if log := p.log.String(); strings.Contains(log, text) {
			return log
		}
		time.Sleep(2 * time.Millisecond) // another process's output has no condition to wait on
	}
	p.t.Fatalf("%s never logged %q:\n%s", p.name, text, p.log.String())
	return ""
}

// syncBuffer is a buffer that is written and read at the same time.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// freeUDP returns a UDP address that was free a moment ago.
func freeUDP(t testing.TB) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.LocalAddr().String()
}

// collecting is a collect process that writes to files: one for the events, however
// many.
type collecting struct {
	*process
	address, events, account string
}

func startCollect(t testing.TB, args ...string) collecting {
	t.Helper()
	folder := t.TempDir()
	c := collecting{address: freeUDP(t), events: filepath.Join(folder, "out.jsonl"), account: filepath.Join(folder, "account.json")}
	c.process = run(t, append([]string{"collect", "--listen", c.address, "--write", c.events, "--write-max-bytes", "0", "--account", c.account}, args...)...)
	c.waitLog("Listening")
	return c
}

// readJSON reads an account.
func readJSON[A any](t testing.TB, path string) (account A) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &account); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return account
}

// result is what a run of exporter and collector left.
type result struct {
	events     []string // without agent_init
	agentInits []string
	exporter   ledger.Exporter
	collector  ledger.Collector
}

// read reads what was left, and asserts that each account closes and that both
// settle.
func read(t testing.TB, c collecting, exportAccount string) (r result) {
	t.Helper()
	r.exporter, r.collector = readJSON[ledger.Exporter](t, exportAccount), readJSON[ledger.Collector](t, c.account)
	for _, err := range []error{r.exporter.Check(), r.collector.Check(), ledger.Settle(&r.exporter, &r.collector)} {
		if err != nil {
			t.Error(err)
		}
	}
	if r.exporter.Closes == nil || !*r.exporter.Closes {
		t.Error("the exporter's account does not say that it closes")
	}
	file, err := os.Open(c.events)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			if line != "" {
				t.Errorf("the file ends in half a line: %.80q", line)
			}
			return r
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line[:min(len(line), 100)], `"event":"agent_stats"`) {
			continue
		}
		if strings.HasPrefix(line, `{"@timestamp"`) {
			r.agentInits = append(r.agentInits, line)
			continue
		}
		r.events = append(r.events, line)
	}
}

// oracle returns what protojson makes of a recording, and how many lines of that
// fit no datagram.
func oracle(t testing.TB, recording *source.Recording) (lines []string, tooLong uint64) {
	t.Helper()
	var event tetragon.GetEventsResponse
	err := recording.Run(context.Background(), func(batch [][]byte) {
		for _, message := range batch {
			if err := proto.Unmarshal(message, &event); err != nil {
				t.Fatal(err)
			}
			text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&event)
			if err != nil {
				t.Fatal(err)
			}
			var line bytes.Buffer
			if err := json.Compact(&line, text); err != nil {
				t.Fatal(err)
			}
			line.WriteByte('\n')
			if line.Len() > datagram.MaxPayload {
				tooLong++
			}
			lines = append(lines, line.String())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, tooLong
}

// sampleOracle is the oracle of the built-in sample.
func sampleOracle(t testing.TB) (lines []string, tooLong uint64) {
	t.Helper()
	recording, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	return oracle(t, recording)
}

func wantEvents(t testing.TB, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if len(want[i]) > datagram.MaxPayload {
			wantShortened(t, got[i], want[i])
		} else if got[i] != want[i] {
			t.Fatalf("event %d:\n got %.200q\nwant %.200q", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d events arrived, want %d", len(got), len(want))
	}
}

// wantShortened wants a form of the event that fits a datagram and says what it
// lacks.
func wantShortened(t testing.TB, got, want string) {
	t.Helper()
	var short, whole map[string]any
	if err := json.Unmarshal([]byte(got), &short); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &whole); err != nil {
		t.Fatal(err)
	}
	if len(got) > datagram.MaxPayload || short["tetracast_truncated"] == nil || short["time"] != whole["time"] || short["node_name"] != whole["node_name"] {
		t.Fatalf("an event of %d bytes came with %d: %.200q", len(want), len(got), got)
	}
}

// plainSample is the built-in sample without its compression.
func plainSample(t testing.TB) []byte {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}
