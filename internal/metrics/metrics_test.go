package metrics

import (
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/internal/source"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// TestPage holds docs/metrics.md to the metrics, of which it is made.
func TestPage(t *testing.T) {
	const path = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(Page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != Page() {
		t.Errorf("%s is not what the metrics say; go test ./internal/metrics -update writes it anew", path)
	}
}

// fullExporter is a state in which every metric has a series.
func fullExporter() ExporterState {
	n := uint64(7)
	state := ExporterState{QueueLimitBytes: 1 << 20, Subscription: &source.Stats{Connects: 4, Breaks: 3, Internal: 1, TooLarge: 1, Fallbacks: 1, Overlap: 7, Subscribed: true}}
	a := &state.Account
	blind := uint64(1500)
	a.Seen, a.Excluded, a.SubscriptionBreaks, a.BlindMS = 100, 3, 3, &blind
	a.Dropped[ledger.QueueFullPolicy] = 5
	a.Dropped[ledger.Killed] = 1 // none that is there from the start
	a.Upstream = map[string]*uint64{"ring_buffer": &n, "bpf_missed": nil}
	a.Observed.SndbufErrors = &n
	s := &state.Stats
	s.Tetragon = "v1.7.0"
	for i, address := range []string{"a.example:7514", "a.example:7514", "b\xff:1"} {
		stream := ledger.Stream{Sent: uint64(10 * (i + 1)), Queued: 1, Datagrams: 3, Bytes: 2000, Truncated: 1, Outside: 2}
		stream.Dropped[ledger.Oversize] = 2
		a.Streams = append(a.Streams, stream)
		d := exporter.DestinationStats{Address: address, Format: "frame", OverMTU: 1, QueueBytes: 5, Up: i == 1, Pool: udp.PoolStats{Hits: 1, Misses: 2, Dropped: 3, Bytes: 4}}
		d.Sizes[0], d.Sizes[3], d.Errors[1] = 1, 2, 4
		s.Streams = append(s.Streams, d)
		s.Sockets = append(s.Sockets, udp.ConnStats{MTU: 1500, Calls: 9, GSO: true})
		s.Metadata = append(s.Metadata, metadata.CacheStats{Hits: 3, RecordAge: time.Second})
	}
	return state
}

func fullFile() sink.FileStats {
	return sink.FileStats{Rotations: 3, Reopens: 1, FailedRotations: 2, FailedReopens: 4, FailedRemovals: 5, FailedCompressions: 6}
}

// fullCollector likewise.
func fullCollector(perAgent bool) (s collector.Stats) {
	s.Account.Received, s.Account.Delivered = 100, 90
	s.Account.Dropped[ledger.SinkFull] = 10
	s.Account.Undecodable[ledger.FaultCheck] = 5
	s.Undecodable[3][ledger.FaultCheck] = 3
	s.Missing = 4
	s.Sockets = []collector.SocketStats{{Dropped: 1, QueuedBytes: 2, BufferBytes: 3}}
	if perAgent {
		s.PerAgent = []collector.AgentStats{{Hostname: "node-1", Received: 1, Heard: time.Unix(1, 0)}}
	}
	return s
}

func registries(t testing.TB) map[string]*prometheus.Registry {
	t.Helper()
	e, c := NewExporter(fullExporter), NewCollector(fullCollector, 1<<20, true, fullFile)
	e.Measure().Wire("a.example:7514", "frame", time.Millisecond)
	e.Measure().Transcode(time.Microsecond)
	c.Measure().Sink(time.Millisecond)
	c.Measure().Transcode(time.Microsecond)
	all := map[string]*prometheus.Registry{}
	for name, collector := range map[string]prometheus.Collector{"both": Build{}, "export": e, "collect": c} {
		all[name] = prometheus.NewPedanticRegistry()
		if err := all[name].Register(collector); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestCatalogue: what is served is what the catalogue says, no more and no less, and
// keeps the conventions of Prometheus.
func TestCatalogue(t *testing.T) {
	for name, registry := range registries(t) {
		problems, err := testutil.GatherAndLint(registry)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", name, p.Metric, p.Text)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var served, listed []string
		for _, f := range families {
			served = append(served, strings.ToLower(f.GetType().String())+" "+f.GetName())
		}
		for _, m := range Catalogues()[name] {
			listed = append(listed, m.Kind+" "+m.Name)
		}
		slices.Sort(served)
		slices.Sort(listed)
		if !slices.Equal(served, listed) {
			t.Errorf("%s serves %v,\nthe catalogue has %v", name, served, listed)
		}
	}
}

// TestValues: streams of one name are summed up, every reason that occurred has a
// series, and what a process before this one counted is not lost.
func TestValues(t *testing.T) {
	all := registries(t)
	f := func(registry, want string, names ...string) {
		t.Helper()
		if err := testutil.GatherAndCompare(all[registry], strings.NewReader(want), names...); err != nil {
			t.Error(err)
		}
	}
	f("export", `# HELP tetracast_exporter_sent_events_total Events that the kernel took.
# TYPE tetracast_exporter_sent_events_total counter
tetracast_exporter_sent_events_total{destination="a.example:7514",format="frame"} 30
tetracast_exporter_sent_events_total{destination="b�:1",format="frame"} 30
`, "tetracast_exporter_sent_events_total")
	f("export", `# HELP tetracast_exporter_intake_dropped_events_total Events lost before any destination was to get them.
# TYPE tetracast_exporter_intake_dropped_events_total counter
tetracast_exporter_intake_dropped_events_total{reason="invalid"} 0
tetracast_exporter_intake_dropped_events_total{reason="killed"} 1
tetracast_exporter_intake_dropped_events_total{reason="queue_full_policy"} 5
tetracast_exporter_intake_dropped_events_total{reason="queue_full_process"} 0
tetracast_exporter_intake_dropped_events_total{reason="shutdown"} 0
`, "tetracast_exporter_intake_dropped_events_total")
	f("export", `# HELP tetracast_exporter_destination_up Whether the destination's name is resolved, the kernel takes its datagrams, and no ICMP answer says that they do not arrive: 1 or 0. That any arrive UDP does not tell.
# TYPE tetracast_exporter_destination_up gauge
tetracast_exporter_destination_up{destination="a.example:7514",format="frame"} 1
tetracast_exporter_destination_up{destination="b�:1",format="frame"} 0
`, "tetracast_exporter_destination_up")
	f("export", `# HELP tetracast_exporter_upstream_lost_events_total Events that Tetragon itself lost, as its own metrics tell; listener_overflow_all_clients counts for all its clients, so it is an upper bound.
# TYPE tetracast_exporter_upstream_lost_events_total counter
tetracast_exporter_upstream_lost_events_total{stage="ring_buffer"} 7
`, "tetracast_exporter_upstream_lost_events_total")
	f("collect", `# HELP tetracast_collector_undecodable_datagrams_total Datagrams that could not be decoded, by what they seem to be and what is wrong with them; format unknown: counted by a process before this one.
# TYPE tetracast_collector_undecodable_datagrams_total counter
tetracast_collector_undecodable_datagrams_total{fault="bad_check",format="frame"} 3
tetracast_collector_undecodable_datagrams_total{fault="bad_check",format="unknown"} 2
tetracast_collector_undecodable_datagrams_total{fault="not_sealed",format="frame"} 0
tetracast_collector_undecodable_datagrams_total{fault="unknown_key",format="frame"} 0
`, "tetracast_collector_undecodable_datagrams_total")
}

// TestAgentsAreBounded: those heard last have series, the others a sum.
func TestAgentsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollector(func(bool) (s collector.Stats) {
		for i := range MaxAgents + 2 {
			s.PerAgent = append(s.PerAgent, collector.AgentStats{Hostname: fmt.Sprintf("node-%04d", i), Received: 1, Heard: time.Unix(int64(i), 0)})
		}
		s.PerAgent[9].Hostname = ""
		return s
	}, 1, true, nil))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if family.GetName() != agentGot.Name {
			continue
		}
		for _, m := range family.GetMetric() {
			got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	if len(got) != MaxAgents+1 {
		t.Errorf("%d series", len(got))
	}
	for name, want := range map[string]float64{"node-0000": 0, "node-0001": 0, "node-4097": 1, others: 2, unnamed: 1} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
}

// FuzzScrape: a scrape never fails because of what a sender said: the names of hosts,
// two of which may look alike or like one of ours, and figures.
func FuzzScrape(f *testing.F) {
	f.Add("(unknown)", "", "(others)", uint64(1))
	f.Add("node\xff", "node\xfe", "node\xff\xff", uint64(1<<63))
	f.Add(strings.Repeat("a", 255)+"\xc3", strings.Repeat("a", 255)+"\xc4", "a\x00b\"\\\n\x1b[2J", uint64(0))
	f.Fuzz(func(t *testing.T, one, two, three string, figure uint64) {
		s := fullCollector(true)
		s.PerAgent = nil
		names := []string{one, two, three, "", one + two, unnamed, others}
		for i, name := range names {
			s.PerAgent = append(s.PerAgent, collector.AgentStats{Hostname: name, Received: 1, Missing: figure, SenderDropped: figure, Restarts: figure,
				Heard: time.Unix(int64(i%3), int64(figure)), Silent: figure%2 == 0})
		}
		s.Missing, s.Announced = figure, figure
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(NewCollector(func(bool) collector.Stats { return s }, 1, true, fullFile))
		answer := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
		if answer.Code != 200 {
			t.Fatalf("%q: %d: %s", names, answer.Code, answer.Body)
		}
		total := 0
		for line := range strings.Lines(answer.Body.String()) {
			if strings.HasPrefix(line, agentGot.Name+"{") {
				n, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
				if err != nil || !utf8.ValidString(line) {
					t.Fatalf("%q: %q: %v", names, line, err)
				}
				total += n
			}
		}
		if total != len(names) {
			t.Fatalf("%q: %d events in all series, want %d", names, total, len(names))
		}
	})
}

// TestCounterNeverFalls: a datagram that was too far ahead and is believed after all
// is taken off the account, and a counter must not fall.
func TestCounterNeverFalls(t *testing.T) {
	var s collector.Stats
	c := NewCollector(func(bool) collector.Stats { return s }, 1, false, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	for i, step := range []struct{ now, want int }{{2, 2}, {1, 2}, {3, 3}} {
		s.Account.Undecodable[ledger.FaultJump], s.Undecodable[3][ledger.FaultJump] = uint64(step.now), uint64(step.now)
		want := fmt.Sprintf("# HELP %s %s\n# TYPE %s counter\n", undecodableCount.Name, undecodableCount.Help, undecodableCount.Name)
		for _, fault := range []string{"bad_check} 0", "not_sealed} 0", fmt.Sprintf("number_too_far_ahead} %d", step.want), "unknown_key} 0"} {
			name, value, _ := strings.Cut(fault, "}")
			want += fmt.Sprintf("%s{fault=%q,format=\"frame\"}%s\n", undecodableCount.Name, name, value)
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), undecodableCount.Name); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
}
