package exporter

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tetracast/internal/corpus"
	"tetracast/internal/source"
	"tetracast/internal/udp"
	"tetracast/metadata"
)

// asCounted makes this test binary do one thing so many times, so that its
// instructions can be counted: "announce N", "bare N", or "json N" and "frame N", with
// -measured behind the format where samples are taken.
const asCounted = "TETRACAST_TEST_COUNTED"

// beCounted exports the cached agent_init by the whole path, or sends the same
// bytes over a socket and nothing else.
func beCounted(what string) error {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	address := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: address.String()}}})
	if err != nil {
		return err
	}
	conn, err := udp.Dial(address, udp.Options{})
	if err != nil {
		return err
	}
	record, err := metadata.NewRecord(e.facts(e.config.Destinations[0]), nil)
	if err != nil {
		return err
	}
	line := [][]byte{record.Line()}
	kind, count, _ := strings.Cut(what, " ")
	n, err := strconv.Atoi(count)
	if format, measured := strings.CutSuffix(kind, "-measured"); format == "json" || format == "frame" {
		return exportCounted(address.String(), format, measured, n)
	}
	for range n {
		if err != nil {
			return err
		}
		if kind == "bare" {
			_, err = conn.Send(line)
		} else {
			err = e.SendMetadataEvent()
		}
	}
	return err
}

// TestAnnounceInstructions: exporting the cached agent_init costs at most 300
// instructions more than the bare send of its bytes. It counts with valgrind,
// whose counts repeat whatever else the machine does, so it is a gate; it takes
// some seconds, so make bench-gate asks for it.
func TestAnnounceInstructions(t *testing.T) {
	if os.Getenv("TETRACAST_GATE") == "" {
		t.Skip("SKIPPED, NOT TESTED: make bench-gate counts instructions")
	}
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Fatal("TETRACAST_GATE is set, but valgrind is not installed")
	}
	const many = 11000
	bare, announce := slope(t, "bare", many), slope(t, "announce", many)
	t.Logf("bare send %.0f instructions, whole path %.0f", bare, announce)
	if announce > bare+300 {
		t.Errorf("the whole path takes %.0f instructions, the bare send %.0f: want at most 300 more", announce, bare)
	}
}

// slope returns the instructions of one more time. What the runtime does beside
// it only ever adds to a count, so the least of some is the nearest.
func slope(t *testing.T, kind string, many int) float64 {
	t.Helper()
	const few = 1000
	least := func(n int) int64 {
		return min(instructions(t, kind, n), instructions(t, kind, n), instructions(t, kind, n))
	}
	return float64(least(many)-least(few)) / float64(many-few)
}

var refs = regexp.MustCompile(`I\s+refs:\s+([\d,]+)`)

func instructions(t *testing.T, kind string, n int) int64 {
	t.Helper()
	cmd := exec.Command("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", asCounted, kind, n), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1,cpu.rdtscp=off")
	out, err := cmd.CombinedOutput()
	m := refs.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("valgrind: %v\n%s", err, out)
	}
	count, err := strconv.ParseInt(strings.ReplaceAll(string(m[1]), ",", ""), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// exportCounted exports n events one by one: what is done once a batch then
// weighs most.
func exportCounted(address, format string, measured bool, n int) error {
	// Frames go when they are full: how many there are must not hang on how slow
	// valgrind is.
	config := Config{Destinations: []Destination{{Address: address, Format: format}}, FlushInterval: time.Hour}
	if measured {
		config.Measure = &Measure{Wire: func(string, string, time.Duration) {}, Transcode: func(time.Duration) {}}
	}
	e, err := NewUDPExporter(config)
	if err != nil {
		return err
	}
	recording, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		return err
	}
	var events [][]byte
	err = recording.Run(context.Background(), func(batch [][]byte) {
		for _, message := range batch {
			events = append(events, bytes.Clone(message))
		}
	})
	for i := range n {
		if err != nil {
			return err
		}
		e.lastTake = time.Time{} // no burst
		err = e.SendWire(events[i%len(events)])
		if !e.queue.empty() {
			e.work(nil) // in the place of Run
		}
	}
	return err
}

// TestMeasureInstructions: to take samples costs an event at most one
// instruction in a hundred more.
func TestMeasureInstructions(t *testing.T) {
	if os.Getenv("TETRACAST_GATE") == "" {
		t.Skip("SKIPPED, NOT TESTED: make bench-gate counts instructions")
	}
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Fatal("TETRACAST_GATE is set, but valgrind is not installed")
	}
	for _, format := range []string{"json", "frame"} {
		const many = 93000 // memory that grows makes a small difference of small counts
		off, on := slope(t, format, many), slope(t, format+"-measured", many)
		t.Logf("%s: %.0f instructions an event, %.0f with samples: %+.2f %%", format, off, on, 100*(on-off)/off)
		if on > off*1.01 {
			t.Errorf("%s: samples make %.0f instructions of %.0f, want at most 1 %% more", format, on, off)
		}
	}
}
