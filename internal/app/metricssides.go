package app

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/metrics"
	"tetracast/internal/sink"
	"tetracast/internal/upstream"
)

// exportMetrics registers the metrics of an exporter, which *out is when it is
// scraped, and returns what that one is to be given.
func (c *ExportConfig) exportMetrics(s *metricsServer, out **exporter.UDPExporter, in *input, losses *upstream.Reader) *exporter.Measure {
	m := metrics.NewExporter(func() metrics.ExporterState {
		state := metrics.ExporterState{Account: in.account(*out, losses), Stats: (*out).Stats(), QueueLimitBytes: c.QueueBytes}
		if in.subscription != nil {
			subscription := in.subscription()
			state.Subscription = &subscription
		}
		return state
	})
	s.registry.MustRegister(m)
	return m.Measure()
}

// AgentsConfig says which agents collect misses, and whether each has series.
type AgentsConfig struct {
	SilentAfter time.Duration // 0: none is missed
	Expected    string        // file; empty: none
	PerAgent    bool
}

func (c *AgentsConfig) addFlags(flags *pflag.FlagSet) {
	flags.DurationVar(&c.SilentAfter, "agent-silent-after", collector.DefaultSilentAfter, "write agent_silent to the output when nothing new came of an agent for so long, and agent_back when it does; agents say something every 10s in frames and every 60s in other formats; 0: never")
	flags.StringVar(&c.Expected, "expected-agents", "", "file with a host name a line: those are missed even if nothing ever came of them, or their agent ended in order")
	flags.BoolVar(&c.PerAgent, "per-agent-metrics", false, fmt.Sprintf("serve metrics of each agent, of at most %d, by host name", metrics.MaxAgents))
}

// maxExpected bounds the file of expected agents.
const maxExpected = 100_000

// expected reads the file. Blank lines, and what follows a #, say nothing.
func (c *AgentsConfig) expected() (names []string, err error) {
	if c.Expected == "" {
		return nil, nil
	}
	if c.SilentAfter == 0 {
		return nil, Usage(fmt.Errorf("app: --expected-agents %s with --agent-silent-after 0, which misses nobody", c.Expected), "leave one of them out")
	}
	hint := "--expected-agents names a file with a host name a line"
	file, err := os.Open(c.Expected)
	if err != nil {
		return nil, Usage(fmt.Errorf("app: reading the expected agents: %w", err), hint)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		name := strings.TrimSpace(text)
		switch {
		case name == "":
			continue
		case len(name) > collector.MaxHostname || strings.ContainsAny(name, " \t"):
			return nil, Usage(fmt.Errorf("app: %s: line %d: %.80q is no host name", c.Expected, number, name), hint)
		case len(names) == maxExpected:
			return nil, Usage(fmt.Errorf("app: %s: more than %d names", c.Expected, maxExpected), hint)
		}
		names = append(names, name)
	}
	if err := lines.Err(); err != nil {
		return nil, Usage(fmt.Errorf("app: reading the expected agents from %s: %w", c.Expected, err), hint)
	}
	return names, nil
}

// collectMetrics registers the metrics of a collector, which *in is when it is
// scraped, and of its file, if it has one, and returns what that one is to be given.
func (c *CollectConfig) collectMetrics(s *metricsServer, in **collector.Collector, file *outputFile) *collector.Measure {
	var fileStats func() sink.FileStats
	if file != nil {
		fileStats = file.Stats
	}
	m := metrics.NewCollector(func(perAgent bool) collector.Stats { return (*in).Stats(perAgent) }, c.QueueBytes, c.Agents.PerAgent, fileStats)
	s.registry.MustRegister(m)
	return m.Measure()
}
