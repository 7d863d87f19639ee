package metrics

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tetracast/internal/printable"
)

// Metric is an entry of the catalogue.
type Metric struct {
	Name   string
	Kind   string // counter, gauge or histogram
	Labels []string
	Help   string

	desc *prometheus.Desc
}

// catalogue is a list of metrics in the order in which they are documented.
type catalogue []*Metric

// Catalogues returns all metrics, by the command that serves them. They must not be
// changed.
func Catalogues() map[string][]*Metric {
	return map[string][]*Metric{"both": common, "export": exported, "collect": collected}
}

func (c *catalogue) add(kind, name, help string, labels []string) *Metric {
	m := &Metric{Name: "tetracast_" + name, Kind: kind, Labels: labels, Help: help}
	m.desc = prometheus.NewDesc(m.Name, help, labels, nil)
	*c = append(*c, m)
	return m
}

func (c *catalogue) counter(name, help string, labels ...string) *Metric {
	return c.add("counter", name, help, labels)
}

func (c *catalogue) gauge(name, help string, labels ...string) *Metric {
	return c.add("gauge", name, help, labels)
}

func (c *catalogue) histogram(name, help string, labels ...string) *Metric {
	return c.add("histogram", name, help, labels)
}

// describe sends the metrics' descriptions.
func (c catalogue) describe(to chan<- *prometheus.Desc) {
	for _, m := range c {
		to <- m.desc
	}
}

// number is what a metric's value is made of.
type number interface {
	~int | ~uint64 | ~float64
}

// sending sends metrics to a scrape.
type sending chan<- prometheus.Metric

// send sends a counter or a gauge.
func send[N number](to sending, m *Metric, value N, labels ...string) {
	kind := prometheus.GaugeValue
	if m.Kind == "counter" {
		kind = prometheus.CounterValue
	}
	to <- prometheus.MustNewConstMetric(m.desc, kind, float64(value), valid(labels)...)
}

// truth is a gauge's value for yes and no.
func truth(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// sendHistogram sends a histogram with counts that are not cumulated yet, by their
// upper bounds.
func sendHistogram(to sending, m *Metric, bounds []int, counts []uint64, sum uint64, labels ...string) {
	buckets := make(map[float64]uint64, len(bounds))
	var total uint64
	for i, bound := range bounds {
		total += counts[i]
		buckets[float64(bound)] = total
	}
	to <- prometheus.MustNewConstHistogram(m.desc, total, float64(sum), buckets, valid(labels)...)
}

// valid makes labels what they must be, UTF-8, as destinations and hosts may not be.
func valid(labels []string) []string {
	for i, l := range labels {
		labels[i] = label(l)
	}
	return labels
}

// label is what a text becomes as a label's value: a person may read a scrape, too. Two
// texts can become one.
func label(text string) string { return printable.Line(strings.ToValidUTF8(text, "\uFFFD")) }

// seconds makes a histogram of durations, with buckets of old and native ones: those
// have a resolution of a tenth wherever the values are.
func seconds(m *Metric, bounds []float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: m.Name, Help: m.Help, Buckets: bounds, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	}, m.Labels)
}

// Page returns the text of docs/metrics.md.
func Page() string {
	var page strings.Builder
	page.WriteString("# Metrics\n\nMade from the metrics themselves; a test keeps it so.\n\n" +
		"`export` serves them at `http://127.0.0.1:7515/metrics`, `collect` at port 7516; `--metrics-address` says otherwise, and empty turns them off. The default\n" +
		"port of a second process on the same host is taken: that is logged, and the process goes on without metrics. A port that was asked for must be free.\n\n" +
		"The identities of the accounts hold among them, at every scrape:\n\n" +
		"- for each destination, `seen = excluded + intake_dropped + dropped + sent + queued + outside`;\n" +
		"- `received = delivered + dropped + queued`, and for streams with numbers `announced = received + missing + refused + unknown`.\n\n" +
		"`deploy/prometheus` has rules and alerts, `deploy/grafana` dashboards.\n")
	for _, section := range []struct{ title, name, text string }{
		{"Both", "both", "Beside them stand those of the Go runtime and of the process, `go_*` and `process_*`."},
		{"export", "export", "A destination is named as `--udp-destination` has it, with its port. Two that are alike share a series. What is unknown has no series."},
		{"collect", "collect", "Those of agents are there with `--per-agent-metrics`, for at most " + fmt.Sprint(MaxAgents) + " hosts; the others are summed up as `(others)`."},
	} {
		fmt.Fprintf(&page, "\n## %s\n\n%s\n\n| metric | type | labels | what |\n|---|---|---|---|\n", section.title, section.text)
		for _, m := range Catalogues()[section.name] {
			labels := "-"
			if len(m.Labels) > 0 {
				labels = "`" + strings.Join(m.Labels, "`, `") + "`"
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, labels, m.Help)
		}
	}
	return page.String()
}

// Names returns the names of all metrics, sorted.
func Names() []string {
	var names []string
	for _, list := range Catalogues() {
		for _, m := range list {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}
