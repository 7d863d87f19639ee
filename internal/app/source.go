package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"tetracast/exporter"
	"tetracast/internal/source"
	"tetracast/internal/source/filetail"
	"tetracast/internal/upstream"
)

// input is where events come from, and what is particular about it.
type input struct {
	source.Source
	// give returns what hands a batch to the exporter, until ctx ends without delay.
	give func(ctx context.Context, out *exporter.UDPExporter) source.Take
	// lost tells what was lost before the exporter; the reader may be nil.
	lost func(*upstream.Reader) exporter.Upstream
	// missed says how long before nothing was seen; false: longer, and nobody knows how
	// much.
	missed func(before time.Duration, known bool)
	// subscription tells of the subscription; nil: there is none.
	subscription func() source.Stats
	// files tells of the files that are followed; nil: there are none.
	files func() filetail.Stats
	// version is Tetragon's; empty: unknown. Nil: always unknown.
	version func() string
	// watch does what is to be done beside, until ctx ends.
	watch func(ctx context.Context)
	// save notes an orderly end.
	save func() error
	// setFilters asks for the events that another configuration wants.
	setFilters func(context.Context, *ExportConfig) error
}

// open makes the source that --source names. *out is set before it runs.
func (c *ExportConfig) open(log *slog.Logger, self *exporter.Self, out **exporter.UDPExporter) (*input, error) {
	in, err := c.openSource(log, self, out)
	if err != nil {
		return nil, err
	}
	if in.missed == nil {
		in.missed = func(time.Duration, bool) {} // what is read was kept for us
	}
	if in.setFilters == nil {
		in.setFilters = func(_ context.Context, next *ExportConfig) error { return next.refuseServerFlags() }
	}
	if in.watch == nil {
		in.watch = func(context.Context) {}
	}
	return in, nil
}

func (c *ExportConfig) openSource(log *slog.Logger, self *exporter.Self, out **exporter.UDPExporter) (*input, error) {
	lines, names, err := c.lines()
	if err != nil {
		return nil, err
	}
	if !lines {
		return c.openSubscription(log, self, out)
	}
	if names != nil {
		return c.openFiles(log, out, names)
	}
	var cut bool // lines that were read were not taken
	slowly := func(ctx context.Context, out *exporter.UDPExporter) source.Take {
		return c.giveLinesSlowly(ctx, out, &cut)
	}
	stdin := source.NewLines(os.Stdin)
	give := giveLines
	if info, err := os.Stdin.Stat(); err == nil && info.Mode().IsRegular() {
		give = slowly // a file can wait; who writes into a pipe shall not
	}
	return &input{Source: stdin, give: give, save: func() error { return nil },
		lost: func(losses *upstream.Reader) exporter.Upstream {
			return exporter.Upstream{Losses: lineLosses(losses, stdin.Stats())}
		}}, nil
}

// Stages at which events of a file or of standard input are lost before us.
const (
	stageRateLimit = "export_rate_limit" // Tetragon left them out of the file, and said so
	stageTooLong   = "line_too_long"     // lines
)

// lineLosses joins them with what Tetragon's metrics tell.
func lineLosses(losses *upstream.Reader, stats source.LineStats) map[string]*uint64 {
	all := losses.Losses()
	all[stageRateLimit], all[stageTooLong] = &stats.RateLimited, &stats.TooLong
	return all
}

func giveLines(_ context.Context, out *exporter.UDPExporter) source.Take {
	return func(batch [][]byte) {
		for _, line := range batch {
			_ = out.SendJSON(line) // its only error, ErrClosed, is in the account
		}
	}
}

// fileWait is how long a file waits for the queue to become shorter.
const fileWait = 2 * time.Millisecond

// giveLinesSlowly waits while the queue is half full, so that nothing of a file is
// lost for its own speed. Lines for which it still waits when ctx ends are not taken,
// and cut becomes true.
func (c *ExportConfig) giveLinesSlowly(ctx context.Context, out *exporter.UDPExporter, cut *bool) source.Take {
	return func(batch [][]byte) {
		for _, line := range batch {
			for out.QueuedBytes() > c.QueueBytes/2 {
				if ctx.Err() != nil {
					*cut = true
					return
				}
				time.Sleep(fileWait)
			}
			_ = out.SendJSON(line) // its only error, ErrClosed, is in the account
		}
	}
}

// refuseServerFlags refuses what only a server could do.
func (c *ExportConfig) refuseServerFlags() error {
	selected, err := c.Selection.Filter()
	switch {
	case err != nil || selected != nil || c.AllowList+c.DenyList+c.FieldFilters != "":
		return Usage(errors.New("app: filters are Tetragon's work, and --source "+c.Source+" asks no Tetragon"), "filter where the lines are made: tetra getevents and Tetragon's --export-allowlist have filters")
	case c.ServerAddress != "" || c.TLS.wanted():
		return Usage(errors.New("app: --server-address and --tls flags with --source "+c.Source), "events come from the server or from lines, not from both")
	}
	return nil
}

// lines says whether --source has events come as JSON lines, and names the files that
// have them; nil: they come from standard input.
func (c *ExportConfig) lines() (lines bool, names func() []string, err error) {
	path, isFile := strings.CutPrefix(c.Source, "file:")
	switch {
	case c.Source == "" || c.Source == "grpc":
		return false, nil, nil
	case c.Source == "-":
		return true, nil, c.refuseServerFlags()
	case isFile:
		return true, c.fileNames(path), c.refuseServerFlags()
	}
	return false, nil, Usage(fmt.Errorf("app: --source %q, want grpc, file:PATH or -", c.Source), "grpc is the default; file: names the file of Tetragon's --export-filename, or finds it")
}

// openSubscription makes the source that asks Tetragon.
func (c *ExportConfig) openSubscription(log *slog.Logger, self *exporter.Self, out **exporter.UDPExporter) (*input, error) {
	config, err := c.sourceConfig(log)
	if err != nil {
		return nil, err
	}
	var version atomic.Value
	version.Store("")
	config.Opened = self.Connected
	config.Connected = func(t source.Tetragon) {
		version.Store(t.Version)
		(*out).SetTetragon(exporter.Tetragon{Version: t.Version, BuildCommit: t.BuildCommit, BuildDate: t.BuildDate, ClusterName: t.Config["cluster-name"]})
	}
	in, err := source.New(config)
	if errors.Is(err, source.ErrClient) {
		return nil, Usage(err, "--grpc-client auto is the default: the framer where there is no TLS")
	}
	if err != nil {
		return nil, Usage(err, "--server-address is unix:///path or host:port")
	}
	setFilters := func(ctx context.Context, next *ExportConfig) error {
		config, err := next.sourceConfig(log)
		if err != nil {
			return err
		}
		return in.SetFilters(ctx, config.Filters, config.AutoFilters)
	}
	watch := func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-self.Looping():
				if err := in.AvoidLoop(ctx); err != nil {
					log.Error("Tetragon's own sends to this exporter are not left out", "error", err)
				}
			}
		}
	}
	unknown := false
	missed := func(before time.Duration, known bool) {
		in.Missed(before)
		unknown = !known
	}
	return &input{Source: in, give: giveEvents, missed: missed, save: func() error { return nil }, setFilters: setFilters, subscription: in.Stats,
		version: func() string { return version.Load().(string) }, watch: watch,
		lost: func(losses *upstream.Reader) exporter.Upstream {
			before := lostBefore(in, losses)
			before.BlindUnknown = unknown
			return before
		}}, nil
}

func giveEvents(_ context.Context, out *exporter.UDPExporter) source.Take {
	return func(batch [][]byte) {
		_ = out.SendBatch(batch) // its only error, ErrClosed, is in the account
	}
}

// lostBefore is what the source and Tetragon's metrics tell of losses before the
// exporter; losses may be nil.
func lostBefore(in *source.Subscription, losses *upstream.Reader) exporter.Upstream {
	stats := in.Stats()
	before := exporter.Upstream{Breaks: stats.Breaks, BlindTime: stats.BlindTime, Overlap: stats.Overlap}
	if losses != nil {
		before.Losses = losses.Losses()
	}
	return before
}
