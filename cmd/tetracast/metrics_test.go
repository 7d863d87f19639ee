package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/internal/metrics"
)

// metricsOf waits until the process serves metrics, and returns a function that
// scrapes them.
func (p *process) metricsOf() (scrape func() string, address string) {
	p.t.Helper()
	m := servingMetrics.FindStringSubmatch(p.waitLog("Serving metrics"))
	if m == nil {
		p.t.Fatalf("no address in the log:\n%s", p.log.String())
	}
	address = m[1]
	return func() string {
		p.t.Helper()
		answer, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			p.t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			p.t.Fatalf("status %s, %v:\n%s", answer.Status, err, text)
		}
		return string(text)
	}, address
}

var servingMetrics = regexp.MustCompile(`"?Serving metrics"? address=(\S+)`)

// value returns the sum of a metric's samples that have all the labels, written as
// name="value".
func value(text, name string, labels ...string) float64 {
	var sum float64
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			panic(err)
		}
		sum += v
	}
	return sum
}

// TestMetrics runs replay, export to two destinations and collect, and holds the
// whole text of both metrics to golden files, and to the accounts' equations.
func TestMetrics(t *testing.T) {
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	names := filepath.Join(folder, "expected")
	if err := os.WriteFile(names, []byte("# the fleet\ntest-node\nother-node # not there yet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tetragon := freeTCP(t)
	server := run(t, "replay", "--server-address", address, "--rate", "5000", "--metrics-address", tetragon, "--loss", "ring_buffer=3")
	server.waitLog("Serving")
	collect := startCollect(t, "--metrics-address", "127.0.0.1:0", "--per-agent-metrics", "--expected-agents", names)
	collected, _ := collect.metricsOf()
	export := run(t, "export", "--server-address", address, "--udp-destination", "json://"+collect.address, "--udp-destination", "frame://"+collect.address,
		"--metrics-address", "127.0.0.1:0", "--tetragon-metrics-address", tetragon)
	exported, _ := export.metricsOf()
	junk, err := net.Dial("udp", collect.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = junk.Close() }()
	for _, d := range []string{"junk", `{"version":"1.1",`, "\xd7\x54\x09"} {
		if _, err := io.WriteString(junk, d); err != nil {
			t.Fatal(err)
		}
	}
	const events = 683
	waitFor(t, collect.process, "all events", func() bool {
		text := collected()
		return value(text, "tetracast_collector_delivered_events_total") == 2*events && value(text, "tetracast_collector_undecodable_datagrams_total") == 3
	})
	waitFor(t, export, "a look at Tetragon's metrics and the end of the stream", func() bool {
		text := exported()
		return strings.Contains(text, "tetracast_exporter_upstream_lost_events_total{") && value(text, "tetracast_exporter_subscribed") == 0
	})
	texts := map[string]string{"export": exported(), "collect": collected()}
	for side, text := range texts {
		text = tetracastOnly(text)
		wantGolden(t, "testdata/metrics-"+side+".golden", scrub(strings.ReplaceAll(text, collect.address, "collector:7514")))
		for _, name := range served(text) {
			if !slices.Contains(metrics.Names(), name) {
				t.Errorf("%s serves %s, which docs/metrics.md does not have", side, name)
			}
		}
		checkMetrics(t, text)
	}
	wantExporterCloses(t, texts["export"])
	wantCollectorCloses(t, texts["collect"])
	for _, p := range []*process{export, collect.process} {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		if code := p.wait(10 * time.Second); code != 0 {
			t.Errorf("%s exited with %d", p.name, code)
		}
	}
}

func wantExporterCloses(t *testing.T, text string) {
	t.Helper()
	of := func(name string, labels ...string) float64 { return value(text, "tetracast_exporter_"+name, labels...) }
	for _, format := range []string{"json", "frame"} {
		label := fmt.Sprintf("format=%q", format)
		want := of("excluded_events_total") + of("intake_dropped_events_total") + of("dropped_events_total", label) +
			of("sent_events_total", label) + of("queued_events", label) + of("outside_events_total", label)
		if seen := of("seen_events_total"); seen != want || seen == 0 {
			t.Errorf("%s: seen %v, but all it became is %v", format, seen, want)
		}
		if n := of("datagram_size_bytes_count", label); n != of("sent_datagrams_total", label) || n == 0 {
			t.Errorf("%s: %v sizes of %v datagrams", format, n, of("sent_datagrams_total", label))
		}
	}
	if of("event_to_wire_seconds_count") == 0 || of("transcode_seconds_count") == 0 {
		t.Error("no time was measured")
	}
}

func wantCollectorCloses(t *testing.T, text string) {
	t.Helper()
	of := func(name string, labels ...string) float64 {
		return value(text, "tetracast_collector_"+name, labels...)
	}
	if received := of("received_events_total"); received != of("delivered_events_total")+of("dropped_events_total")+of("queued_events") || received == 0 {
		t.Errorf("received %v, but all it became is another figure", received)
	}
	if of("sink_write_seconds_count") == 0 || of("transcode_seconds_count") == 0 {
		t.Error("no time was measured")
	}
}

// served returns the names of the metrics in a scrape.
func served(text string) (names []string) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			names = append(names, strings.Fields(rest)[0])
		}
	}
	return names
}

// tetracastOnly leaves out the metrics of the Go runtime and of the process.
func tetracastOnly(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, "tetracast_") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// runDependent are the samples whose values are other ones in each run.
var runDependent = regexp.MustCompile(`^tetracast_(build_info|exporter_(queue_(bytes|age)|memo|blind|subscription|upstream|send_(calls|errors)|gso|icmp|retried|event_to_wire|transcode|pool|netns|path_mtu_bytes|metadata_(hits|record_(bytes|age))|sent_bytes|destination_queue` +
	`|(sent_datagrams|datagram_size_bytes).*format="frame"|datagram_size_bytes_sum)|collector_(memo|socket_(queue|buffer)|sink_write|transcode|received_(datagrams|bytes)|queue_bytes|agent_heard|announced|reordered))`)

// scrub makes the text the same in each run: it hides values and what the process was
// built from, and leaves out of a histogram of times all but one line.
func scrub(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if runDependent.MatchString(line) {
			line = line[:strings.LastIndexByte(line, ' ')] + " ?\n"
		}
		if strings.Contains(line, "build_info{") {
			line = buildLabels.ReplaceAllString(line, `="?"`)
		}
		out.WriteString(line)
	}
	return out.String()
}

var buildLabels = regexp.MustCompile(`="[^"]*"`)

// wantGolden holds text to a golden file.
func wantGolden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) == text {
		return
	}
	got, golden := strings.Split(text, "\n"), strings.Split(string(want), "\n")
	for i := range min(len(got), len(golden)) {
		if got[i] != golden[i] {
			t.Errorf("%s, line %d:\n got %s\nwant %s", path, i+1, got[i], golden[i])
			return
		}
	}
	t.Errorf("%s: %d lines, want %d", path, len(got), len(golden))
}

// checkMetrics has promtool look at the text, where it is.
func checkMetrics(t *testing.T, text string) {
	t.Helper()
	promtool := os.Getenv("TETRACAST_PROMTOOL")
	if promtool == "" {
		promtool = "promtool"
	}
	if _, err := exec.LookPath(promtool); err != nil {
		if os.Getenv("TETRACAST_PROMTOOL") != "" {
			t.Fatal(err)
		}
		t.Log("SKIPPED, NOT TESTED: promtool check metrics; promtool is not here (Debian's package prometheus has it)")
		return
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestMetricsAddressIsTaken: a port that was asked for must be free; the default one
// need not be.
func TestMetricsAddressIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	p := run(t, "collect", "--listen", freeUDP(t), "--metrics-address", taken.Addr().String())
	if code := p.wait(10 * time.Second); code != 1 || !strings.Contains(p.log.String(), "--metrics-address") {
		t.Errorf("exit %d:\n%s", code, p.log.String())
	}
	standard, err := net.Listen("tcp", "127.0.0.1:7516")
	if err != nil {
		t.Logf("another process has the default port already, which is as good: %v", err)
	} else {
		defer func() { _ = standard.Close() }()
	}
	cmd := exec.Command(os.Args[0], "collect", "--listen", freeUDP(t), "--exit-idle", "10ms")
	cmd.Env = append(os.Environ(), asMain+"=1", "GORACE=atexit_sleep_ms=0")
	var log syncBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), "Listening"); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not listen:\n%s", log.String())
		}
	}
	if !strings.Contains(log.String(), "the default address is taken") {
		t.Errorf("the log does not say that there are no metrics:\n%s", log.String())
	}
}
