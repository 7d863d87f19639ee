package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/internal/udp/netns"
)

// TestMain is the program that the tools below count: bench metadata --only.
func TestMain(m *testing.M) {
	if len(os.Args) == 9 && os.Args[1] == "bench" {
		goroutines, _ := strconv.Atoi(os.Args[6])
		exports, _ := strconv.Atoi(os.Args[8])
		options := MetadataOptions{Only: os.Args[4], Goroutines: goroutines, Exports: exports}
		if err := Metadata(context.Background(), os.Stdout, options); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// TestMetadata: the report comes, as text, as JSON and as a page, and holds what
// does not depend on the machine.
func TestMetadata(t *testing.T) {
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "page.md")
	if err := Metadata(t.Context(), &out, MetadataOptions{Rounds: 2, Exports: 400, JSON: true, Page: path}); err != nil {
		t.Fatal(err)
	}
	var report MetadataReport
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Blocks) != 4 || len(report.Shares) != 16 || len(report.Goals) != 26 {
		t.Fatalf("%d blocks, %d shares, %d goals", len(report.Blocks), len(report.Shares), len(report.Goals))
	}
	for b := range report.Blocks {
		block := &report.Blocks[b]
		for _, row := range block.Rows {
			if row.MedianNS <= 0 || row.CPUNS <= 0 {
				t.Errorf("%s: %s took no time: %+v", block.title(), row.Key, row)
			}
			want := 0.0
			if block.Name == export {
				want = 1
			}
			if shared := row.Key == byExporter && block.Goroutines > 1; row.Datagrams != want && !shared || row.Datagrams > 1 {
				t.Errorf("%s: %s sent %v datagrams an export, want %v", block.title(), row.Key, row.Datagrams, want)
			}
		}
		if before, after := block.row(oldWay), block.row(allOfThem); before.Bytes < 500 || before.Allocs < 10 || after.Bytes > before.Bytes/20 {
			t.Errorf("%s: old way %.0f B in %.1f allocations, all %.0f B", block.title(), before.Bytes, before.Allocs, after.Bytes)
		}
	}
	out.Reset()
	if err := report.writeText(&out); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), string(page)} {
		for _, want := range []string{"old way: read", "constants alone", "hostname once, alone", "cached bytes alone", "all: the record", "SendMetadataEvent", "floor: the bare send", "CPU 60-80 %", "the bare send + 300"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	if strings.Contains(string(page), "<no value>") || strings.Contains(string(page), "%!") {
		t.Errorf("the page has holes:\n%s", page)
	}
}

// TestMetadataAllocates: neither the creation nor the whole export allocates.
func TestMetadataAllocates(t *testing.T) {
	rig, err := newMetadataRig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rig.close() }()
	for _, row := range []string{creation + "/" + allOfThem, export + "/" + allOfThem, export + "/" + byExporter, export + "/" + bareSend} {
		block, way, err := findWay(row)
		if err != nil {
			t.Fatal(err)
		}
		step := rig.step(block, way, false)
		if n := testing.AllocsPerRun(200, func() { err = errors.Join(err, step()) }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, want 0; %v", row, n, err)
		}
	}
}

// TestWays: what each way makes says the same, in valid JSON.
func TestWays(t *testing.T) {
	rig, err := newMetadataRig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rig.close() }()
	var first map[string]any
	for _, way := range waysOf(creation) {
		line, err := way.create(rig)
		var event map[string]any
		if err = errors.Join(err, json.Unmarshal(line, &event)); err != nil {
			t.Fatalf("%s: %v: %s", way.key, err, line)
		}
		if _, err := time.Parse(time.RFC3339Nano, event["@timestamp"].(string)); err != nil {
			t.Errorf("%s: %v", way.key, err)
		}
		delete(event, "@timestamp")
		delete(event, "started_at") // only the record has it
		delete(event, "hostname")   // NODE_NAME may name the node for the record
		if first == nil {
			first = event
		} else if !maps.Equal(first, event) {
			t.Errorf("%s: %v, want %v", way.key, event, first)
		}
	}
	if _, _, err := findWay("export/none"); !errors.Is(err, ErrNoRow) || !strings.Contains(err.Error(), "export/old-way") {
		t.Errorf("a row that is not there: %v", err)
	}
	if _, _, err := findWay(creation + "/" + bareSend); !errors.Is(err, ErrNoRow) {
		t.Errorf("creation without anything to create: %v", err)
	}
}

// TestMetadataSystemCalls: one export is exactly one system call that sends and
// no other of its own, and reads no hostname, where the old way reads it each time.
func TestMetadataSystemCalls(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		netns.SkipLoudly(t, "strace is not installed")
	}
	c := children{program: os.Args[0]}
	for _, row := range []struct {
		block, key  string
		send, uname float64
	}{{export, byExporter, 1, 0}, {export, bareSend, 1, 0}, {export, oldWay, 1, 1}, {export, cachedBytes, 1, 1}, {export, hostnameOnce, 1, 0}, {creation, allOfThem, 0, 0}} {
		calls, err := c.calls(t.Context(), strace, row.block, 1, row.key)
		if errors.Is(err, errTraceRefused) {
			netns.SkipLoudly(t, err.Error())
		}
		if err != nil {
			t.Fatal(err)
		}
		sends := 0.0
		for _, name := range sendCalls {
			if name != "write" { // by which the runtime wakes its poller
				sends += calls[name]
			}
		}
		if sends != row.send || calls[hostnameCall] != row.uname {
			t.Errorf("%s/%s: %v sends and %v hostname calls an export, want %v and %v: %v", row.block, row.key, sends, calls[hostnameCall], row.send, row.uname, calls)
		}
		measured := MetadataRow{Calls: calls}
		if all, _ := measured.calls(""); all < row.send+row.uname || all > row.send+row.uname+5*seldom {
			t.Errorf("%s/%s: %v system calls an export, want %v: %v", row.block, row.key, all, row.send+row.uname, calls)
		}
	}
}

// TestTracer: the tracepoints see each call, of all threads. Where tracefs is not
// mounted, it runs once more in a mount namespace where it is.
func TestTracer(t *testing.T) {
	tracer, err := newTracer()
	if err != nil && os.Getenv("TETRACAST_TEST_TRACEFS") == "" && os.Geteuid() == 0 {
		cmd := exec.Command("unshare", "-m", "sh", "-c", `mount -t tracefs none /sys/kernel/tracing; exec "$0" "$@"`, os.Args[0], "-test.run", "^TestTracer$", "-test.v")
		cmd.Env = append(os.Environ(), "TETRACAST_TEST_TRACEFS=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("PASS: TestTracer")) {
			if bytes.Contains(out, []byte("SKIP")) {
				t.Skipf("SKIPPED, NOT TESTED: %s", out)
			}
			t.Fatalf("with tracefs: %v\n%s", err, out)
		}
		return
	}
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	calls, err := tracer.count(spread(func() error {
		runtime.LockOSThread() // never unlocked: each goroutine has a thread of its own
		var name unix.Utsname
		return unix.Uname(&name)
	}, 40, 8))
	if err != nil || calls[hostnameCall] != 40 || calls[otherCalls] > 40 {
		t.Errorf("40 calls of uname counted as %v, %v", calls, err)
	}
}

// TestPerfCounter: a counter counts for threads that are there and for those
// that come later. It counts the processor's time, which every machine can.
func TestPerfCounter(t *testing.T) {
	counter, err := openPerf(unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_TASK_CLOCK, 0)
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	before := processClock()
	_ = spread(func() error {
		runtime.LockOSThread()
		for end := threadClockOrFail(t) + 20*time.Millisecond; threadClockOrFail(t) < end; {
		}
		return nil
	}, 6, 6)()
	used := processClock() - before
	counted, err := counter.end()
	if err != nil || counted < 0.8*float64(used) || counted > 1.2*float64(used)+1e7 {
		t.Errorf("counted %v, the process used %v: %v", time.Duration(counted), used, err)
	}
}

func threadClockOrFail(t *testing.T) time.Duration {
	now, err := threadClock()
	if err != nil {
		t.Error(err)
	}
	return now
}

func TestTSC(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("SKIPPED, NOT TESTED: no time-stamp counter is known here")
	}
	if before, after := tsc(), tsc(); before == 0 || after < before {
		t.Errorf("the time-stamp counter went from %d to %d", before, after)
	}
}

func TestParseCalls(t *testing.T) {
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 52.94    0.000054          54         1           execve
 37.25    0.000038           2        17         3 futex
  9.80    0.000010          10         1           sendmmsg
------ ----------- ----------- --------- --------- ----------------
100.00    0.000102           5        19         3 total
`
	calls, err := parseCalls(table)
	if want := map[string]int{"execve": 1, "futex": 17, "sendmmsg": 1}; err != nil || !maps.Equal(calls, want) {
		t.Errorf("got %v, %v, want %v", calls, err, want)
	}
	if _, err := parseCalls("strace: exec: no such file\n"); err == nil {
		t.Error("no table is no error")
	}
}

// TestGoals: each goal can fail.
func TestGoals(t *testing.T) {
	figure := func(v float64) *float64 { return &v }
	row := func(key string, scale float64) MetadataRow {
		return MetadataRow{Key: key, MedianNS: 1000 * scale, Bytes: 2000 * scale, Allocs: 30 * scale, Instructions: figure(10000 * scale),
			Calls: map[string]float64{"uname": scale, "sendmmsg": 1, "futex": 3}}
	}
	report := func(scale float64) *MetadataReport {
		r := new(MetadataReport)
		for _, name := range []string{creation, export} {
			r.Blocks = append(r.Blocks, MetadataBlock{Name: name, Goroutines: 1, Rows: []MetadataRow{
				row(oldWay, 1), row(constants, 1), row(hostnameOnce, 1), row(cachedBytes, 1), row(allOfThem, scale), row(byExporter, scale), row(bareSend, 0)}})
		}
		return r
	}
	for scale, want := range map[float64]string{0: "met", 0.1: "NOT MET"} {
		goals := report(scale).goals()
		if len(goals) != 13 {
			t.Fatalf("%d goals", len(goals))
		}
		for _, g := range goals {
			if g.verdict() != want {
				t.Errorf("at %v of the old way: %+v is %s", scale, g, g.verdict())
			}
		}
	}
	uncounted := report(0)
	for b := range uncounted.Blocks {
		for i := range uncounted.Blocks[b].Rows {
			uncounted.Blocks[b].Rows[i].Calls = nil
		}
	}
	if !slices.ContainsFunc(uncounted.goals(), func(g Goal) bool { return g.verdict() == notCounted }) {
		t.Error("what was not counted has a verdict")
	}
}

// TestMetadataInstructions: creation takes at most a twentieth of the old way's
// instructions, the whole export at most 300 more than the bare send, and
// constants change nothing. As in exporter, valgrind makes it a gate.
func TestMetadataInstructions(t *testing.T) {
	if os.Getenv("TETRACAST_GATE") == "" {
		t.Skip("SKIPPED, NOT TESTED: make bench-gate counts instructions")
	}
	valgrind, err := exec.LookPath("valgrind")
	if err != nil {
		t.Fatal("TETRACAST_GATE is set, but valgrind is not installed")
	}
	c := children{program: filepath.Join(t.TempDir(), "tetracast")} // a binary of go test has no names of functions
	if out, err := exec.Command("go", "build", "-o", c.program, "tetracast/cmd/tetracast").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	count := func(block, key string) instructionCount {
		t.Helper()
		n, err := c.instructions(t.Context(), valgrind, block, 1, key)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s/%s: %.0f instructions, %.0f of them outside Go's runtime", block, key, n.all, n.own)
		return n
	}
	old, named := count(creation, oldWay), count(creation, constants)
	if all := count(creation, allOfThem); all.all > old.all/20 {
		t.Errorf("creation takes %.0f instructions, the old way %.0f: want at least 95 %% less", all.all, old.all)
	}
	if change := named.own/old.own - 1; change < -0.01 || change > 0.01 {
		t.Errorf("constants change the instructions of the old way from %.0f to %.0f: the page says that they do not", old.own, named.own)
	}
	bare := count(export, bareSend)
	if whole := count(export, byExporter); whole.own > bare.own+mostAbove {
		t.Errorf("the export takes %.0f instructions, the bare send %.0f: want at most %d more", whole.own, bare.own, mostAbove)
	}
}

func TestParseInstructions(t *testing.T) {
	n, err := parseInstructions("desc: x\ncmd: y\nevents: Ir\nfl=/a.go\nfn=tetracast/a.f\n10 5\n11 6\nfi=/b.go\n3 1\nfe=/a.go\n12 2\nfn=runtime.sysmon\n7 100\nfn=internal/runtime/maps.x\n1 10\nsummary: 124\n")
	if err != nil || n.all != 124 || n.own != 14 {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := parseInstructions("summary: 0\n"); err == nil {
		t.Error("no counts are no error")
	}
}
