package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// PipelineOptions says how much bench pipeline does.
type PipelineOptions struct {
	Rounds  int           // of every row
	Window  time.Duration // that a process is watched in a round
	Peers   string        // the folder of collectors, with telegraf; empty: none
	Program string        // that exports, such as tetracast-agent; empty: this one
	Exports []string      // more arguments of export
	Only    string        // the tables to make, by the beginning of their names; empty: all
	// Profiles is a folder for a CPU profile of each export, of one round's window.
	// Empty: none.
	Profiles string
	JSON     bool

	settled bool // measure after what export does once, some seconds after its start
}

// settleTime is after export has given back the memory that its start needed.
const settleTime = 6 * time.Second

// PipelineRow is a measured row: medians over the rounds.
type PipelineRow struct {
	Name        string  `json:"name"`
	Goal        string  `json:"goal,omitempty"`
	EventsASec  float64 `json:"events_per_second"`
	CPUNS       float64 `json:"cpu_ns_per_event"`
	SpreadNS    float64 `json:"cpu_ns_per_event_spread"` // between the quartiles
	CoreShare   float64 `json:"core_share"`              // of one core
	Switches    float64 `json:"switches_per_second"`     // voluntary
	RSSBytes    uint64  `json:"rss_bytes"`
	Dropped     uint64  `json:"dropped"` // events, over all rounds
	Base        string  `json:"base,omitempty"`
	BaseByThis  float64 `json:"base_by_this,omitempty"` // how many times Base costs what this row costs
	GCShare     float64 `json:"gc_share,omitempty"`     // of the processor time
	LatencyP50  float64 `json:"latency_p50_us,omitempty"`
	LatencyP99  float64 `json:"latency_p99_us,omitempty"`
	LatencyP999 float64 `json:"latency_p999_us,omitempty"`
}

// PipelineTable is a set of rows that were measured in interleaved rounds.
type PipelineTable struct {
	Title string        `json:"title"`
	Rows  []PipelineRow `json:"rows"`
}

// Pipeline measures export as a process, beside rivals that are processes too: the
// processor time of the client alone, user and system.
func Pipeline(ctx context.Context, w io.Writer, options PipelineOptions) error {
	recordings, err := transcodeRecordings("")
	if err != nil {
		return err
	}
	var tables []PipelineTable
	for _, make := range []struct {
		name string
		make func() (PipelineTable, error)
	}{
		{"rivals-a", func() (PipelineTable, error) { return rivalsTable(ctx, recordings[0], 8, 20, options) }},
		{"rivals-b", func() (PipelineTable, error) {
			return rivalsTable(ctx, recordings[min(1, len(recordings)-1)], 20, 40, options)
		}},
		{"tail", func() (PipelineTable, error) { return tailTable(ctx, recordings[0], options) }},
		{"slow", func() (PipelineTable, error) { return slowTable(ctx, recordings[0], options) }},
		{"rates", func() (PipelineTable, error) { return ratesTable(ctx, recordings[0], options) }},
		{"latency", func() (PipelineTable, error) { return latencyTable(ctx, recordings[0], options) }},
	} {
		if !strings.HasPrefix(make.name, options.Only) {
			continue
		}
		table, err := make.make()
		if err != nil {
			return err
		}
		tables = append(tables, table)
		if !options.JSON {
			if err := table.write(w); err != nil {
				return err
			}
		}
	}
	if options.JSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			Machine Machine         `json:"machine"`
			Tables  []PipelineTable `json:"tables"`
		}{thisMachine(), tables})
	}
	m := thisMachine()
	_, err = fmt.Fprintf(w, "%s, %d processors, load %s, Linux %s, %s, %s\n", m.CPU, m.Processors, m.Load, m.Kernel, m.Go, m.Date)
	return err
}

// write writes the table for a person. A column that no row has is left out.
func (t *PipelineTable) write(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s\n", t.Title); err != nil {
		return err
	}
	columns := []struct {
		head string
		cell func(r *PipelineRow) string
	}{
		{"row", func(r *PipelineRow) string { return r.Name }},
		{"events/s", func(r *PipelineRow) string { return positive("%.0f", r.EventsASec) }},
		{"ns an event", func(r *PipelineRow) string { return positive("%.0f", r.CPUNS) }},
		{"spread", func(r *PipelineRow) string { return positive("%.0f", r.SpreadNS) }},
		{"of a core", func(r *PipelineRow) string { return positive("%.2f %%", 100*r.CoreShare) }},
		{"wake-ups/s", func(r *PipelineRow) string { return positive("%.1f", r.Switches) }},
		{"RSS MB", func(r *PipelineRow) string { return positive("%.1f", float64(r.RSSBytes)/1e6) }},
		{"GC", func(r *PipelineRow) string { return positive("%.2f %%", 100*r.GCShare) }},
		{"p50 us", func(r *PipelineRow) string { return positive("%.0f", r.LatencyP50) }},
		{"p99 us", func(r *PipelineRow) string { return positive("%.0f", r.LatencyP99) }},
		{"p99.9 us", func(r *PipelineRow) string { return positive("%.0f", r.LatencyP999) }},
		{"dropped", func(r *PipelineRow) string { return positive("%.0f", float64(r.Dropped)) }},
		{"cheaper", func(r *PipelineRow) string {
			if r.Base == "" {
				return ""
			}
			return fmt.Sprintf("%.2fx than %s", r.BaseByThis, r.Base)
		}},
		{"goal", func(r *PipelineRow) string { return r.Goal }},
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := make([]strings.Builder, len(t.Rows)+1)
	for _, c := range columns {
		any := false
		cells := make([]string, len(t.Rows))
		for i := range t.Rows {
			cells[i] = c.cell(&t.Rows[i])
			any = any || cells[i] != ""
		}
		if !any {
			continue
		}
		lines[0].WriteString("  " + c.head + "\t")
		for i, cell := range cells {
			lines[i+1].WriteString("  " + cell + "\t")
		}
	}
	for i := range lines {
		fmt.Fprintln(out, strings.TrimRight(lines[i].String(), "\t "))
	}
	fmt.Fprintln(out)
	return out.Flush()
}

func positive(format string, n float64) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

// rival is a client of the server, as a process.
type rivalProcess struct {
	name, base, goal string
	args             func(server, to, account string) []string // export's or a rival's
	env              []string
	uses             []processUsage
	gc               []float64
}

func rivalArgs(kind string) func(server, to, account string) []string {
	return func(server, to, account string) []string {
		return []string{"bench", "rival", kind, "--server-address", server, "--udp-destination", to, "--account", account}
	}
}

func exportArgs(format string, more []string) func(server, to, account string) []string {
	return func(server, to, account string) []string {
		return append([]string{"export", "--server-address", server, "--udp-destination", format + "://" + to, "--account", account,
			"--log-level", "error", "--tetragon-metrics-address", ""}, more...)
	}
}

// watch runs the rivals one after another against a server, in rounds.
func watch(ctx context.Context, events [][]byte, rate int, options PipelineOptions, rivals []*rivalProcess) error {
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	server, err := serve(ctx, folder, events, rate)
	if err != nil {
		return err
	}
	defer server.stop()
	return rounds(ctx, server.address, folder, options, rivals)
}

func rounds(ctx context.Context, server, folder string, options PipelineOptions, rivals []*rivalProcess) error {
	account := filepath.Join(folder, "account.json")
	for range options.Rounds {
		for _, r := range rivals {
			if err := r.watch(ctx, server, account, options); err != nil {
				return fmt.Errorf("bench: %s: %w", r.name, err)
			}
		}
	}
	return nil
}

func (r *rivalProcess) watch(ctx context.Context, server, account string, options PipelineOptions) error {
	sink, err := newDrainedSink()
	if err != nil {
		return err
	}
	defer sink.close()
	args, start := r.args(server, sink.address(), account), startSelf
	if args[0] == "export" && options.Program != "" {
		start = func(ctx context.Context, env []string, args ...string) (*child, error) {
			return startChild(ctx, env, options.Program, args...)
		}
	}
	window, warmUp := options.Window, max(options.Window/4, 500*time.Millisecond)
	if options.settled {
		warmUp = settleTime
	}
	var profile *profile
	if args[0] == "export" && options.Profiles != "" {
		if profile, err = newProfile(options.Profiles, r.name); err != nil {
			return err
		}
		args = append(args, "--pprof-address", profile.address)
	}
	client, err := start(ctx, r.env, args...)
	if err != nil {
		return err
	}
	profiled := profile.take(ctx, sink.first, warmUp, window)
	used, err := client.measure(ctx, sink.first, account, warmUp, window)
	err = errors.Join(err, <-profiled)
	log := client.stop()
	if err != nil {
		return err
	}
	r.uses = append(r.uses, used)
	if share, ok := gcShare(log, used); ok {
		r.gc = append(r.gc, share)
	}
	return nil
}

// row returns the medians.
func (r *rivalProcess) row() PipelineRow {
	row := PipelineRow{Name: r.name, Base: r.base, Goal: r.goal}
	median := func(f func(u *processUsage) float64) float64 {
		values := make([]float64, len(r.uses))
		for i := range r.uses {
			values[i] = f(&r.uses[i])
		}
		return quantile(values, 0.5)
	}
	perEvent := make([]float64, len(r.uses))
	for i := range r.uses {
		perEvent[i] = float64(r.uses[i].perEvent().Nanoseconds())
		row.Dropped += r.uses[i].dropped
	}
	if median(func(u *processUsage) float64 { return float64(u.events) }) > 0 {
		row.CPUNS = median(func(u *processUsage) float64 { return float64(u.perEvent().Nanoseconds()) })
		row.SpreadNS = quantile(perEvent, 0.75) - quantile(perEvent, 0.25)
	}
	row.EventsASec = median(func(u *processUsage) float64 { return float64(u.events) / u.window.Seconds() })
	row.CoreShare = median(func(u *processUsage) float64 { return u.cpu.Seconds() / u.window.Seconds() })
	row.Switches = median(func(u *processUsage) float64 { return float64(u.switches) / u.window.Seconds() })
	row.RSSBytes = uint64(median(func(u *processUsage) float64 { return float64(u.rssBytes) }))
	if len(r.gc) > 0 {
		row.GCShare = quantile(r.gc, 0.5)
	}
	return row
}

// tableOf makes a table of the rivals, each beside its base.
func tableOf(title string, rivals []*rivalProcess) PipelineTable {
	t := PipelineTable{Title: title}
	for _, r := range rivals {
		t.Rows = append(t.Rows, r.row())
	}
	for i := range t.Rows {
		for k := range t.Rows {
			if row := &t.Rows[i]; row.Base == t.Rows[k].Name && row.CPUNS > 0 {
				row.BaseByThis = t.Rows[k].CPUNS / row.CPUNS
			}
		}
	}
	return t
}
