package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"tetracast/exporter"
	"tetracast/internal/source"
	"tetracast/internal/upstream"
	"tetracast/ledger"
)

// ExportConfig is the configuration of the export command.
type ExportConfig struct {
	// Reload reads the configuration again, on SIGHUP. Nil: it is not read again.
	Reload func() (Reloaded[ExportConfig], error)

	Log     LogConfig
	TLS     TLSConfig
	Profile ProfileConfig

	Destination    DestinationConfig
	QueueBytes     int
	TranscodeCache int // bytes; 0: none
	Metadata       MetadataConfig
	StatsInterval  time.Duration // -1: what the format wants; 0: none
	FlushInterval  time.Duration
	StateDir       string // empty: none
	AccountFile    string
	Metrics        MetricsConfig

	Source            string // grpc, file:PATH, or - for standard input
	Selection         source.Selection
	MetricsAddress    string // of Tetragon; auto or empty for none
	ServerAddress     string
	InfoFile          string // empty: where Tetragon writes it by default
	MaxReceiveBytes   int
	GRPCClient        string // auto, framer or grpc-go
	StallCheck        bool
	Remedies          string // auto or none
	Reconnect         bool
	FailFast          bool
	AllowList         string
	DenyList          string
	FieldFilters      string
	Filters           string // auto or none
	TetragonConfigDir string
}

// AddFlags declares the command's flags.
func (c *ExportConfig) AddFlags(flags *pflag.FlagSet) {
	c.Destination.addFlags(flags)
	flags.IntVar(&c.QueueBytes, "queue-bytes", exporter.DefaultQueueBytes, "the most bytes of events that wait; beyond it the oldest make room, exec and exit first, counted as queue_full_process and queue_full_policy")
	flags.IntVar(&c.TranscodeCache, "transcode-cache", exporter.DefaultTranscodeCacheBytes, "memory for parts of events that repeat, in bytes; 0: none")
	c.Metadata.addFlags(flags)
	c.Metrics.addFlags(flags, DefaultExportMetrics)
	flags.DurationVar(&c.StatsInterval, "stats-interval", -1, "time between two agent_stats, the account as an event, give or take a tenth; -1ns: 10s in frames, else 60s; 0: none, and no goodbye")
	flags.DurationVar(&c.FlushInterval, "flush-interval", exporter.DefaultFlushInterval, "the longest that an event waits for others to share its datagram, in formats that pack several; where fewer than 8 batches of events come in this time, none waits")
	flags.StringVar(&c.StateDir, "state-dir", "", "folder for what outlives the process, made if it is missing: its counters, so that the next run can tell the receivers what was lost with it, and how long nothing was seen; empty: none")
	flags.StringVar(&c.AccountFile, "account", "", "write the account as JSON to this file at the end and on SIGUSR1")

	flags.StringVar(&c.Source, "source", "grpc", "where events come from: grpc; file:PATH, the file that Tetragon exports to, or a pattern for the logs of its containers, followed through their rotations; file: alone, Tetragon's file where it is found; or -, lines on standard input")
	c.addFilterFlags(flags)
	flags.StringVar(&c.MetricsAddress, "tetragon-metrics-address", "auto", "where Tetragon serves its metrics, from which its own losses are read, host:port or URL; auto: as its info file says; empty: do not read them")
	flags.StringVar(&c.ServerAddress, "server-address", "", "Tetragon's gRPC address, unix:///path or host:port; empty: it is looked for")
	flags.StringVar(&c.InfoFile, "info-file", "", "where Tetragon writes its tetragon-info.json; empty: /var/run/tetragon/tetragon-info.json")
	flags.IntVar(&c.MaxReceiveBytes, "max-recv-size", source.MaxMessageBytes, "largest message to take from Tetragon, in bytes")
	flags.StringVar(&c.GRPCClient, "grpc-client", string(source.ClientAuto), "what receives the events: framer, a client for this one call at a fraction of the CPU, without TLS; grpc-go; or auto, the framer until it meets a fault")
	flags.BoolVar(&c.StallCheck, "stall-check", false, "where nothing comes for 30s, have a second subscription over grpc-go tell a quiet host from a stalled stream; it costs one event twice, more and more rarely")
	flags.StringVar(&c.Remedies, "remedies", "auto", "auto: where Tetragon ends the subscription at each text that is not UTF-8, ask for events without the fields of the control group's name; where it makes an event of each event that it sends here over TCP, ask it to leave these out; none: do neither")
	flags.BoolVar(&c.Reconnect, "reconnect", true, "subscribe again when the subscription ends; false: exit 0 when Tetragon ends it")
	flags.BoolVar(&c.FailFast, "fail-fast", false, "exit 1 if Tetragon, a file to follow or a destination cannot be reached at the start")
	flags.StringVar(&c.TetragonConfigDir, "tetragon-config-dir", "", "Tetragon's configuration folder, with tetragon.yaml or a file for each flag, to read its filters from before Tetragon 1.7")
	c.TLS.addFlags(flags)
	c.Profile.addFlags(flags)
	c.Log.addFlags(flags)
}

// addFilterFlags declares the flags that say which events to ask for.
func (c *ExportConfig) addFilterFlags(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&c.Selection.Namespaces, "namespace", "n", nil, "only events of these Kubernetes namespaces; this and the following flags are those of tetra getevents")
	flags.StringSliceVar(&c.Selection.NamespaceRegex, "namespace-regex", nil, "only events of namespaces that match")
	flags.StringSliceVar(&c.Selection.Pods, "pod", nil, "only events of pods whose name matches this regular expression")
	flags.StringSliceVar(&c.Selection.Processes, "process", nil, "only events of processes whose binary matches this regular expression")
	flags.StringSliceVarP(&c.Selection.EventTypes, "event-types", "e", nil, "only events of these types, such as PROCESS_EXEC")
	flags.StringSliceVar(&c.Selection.PolicyNames, "policy-names", nil, "only events of these tracing policies")
	flags.StringSliceVar(&c.Selection.CELExpressions, "cel-expression", nil, "only events that satisfy this CEL expression")
	flags.BoolVar(&c.Selection.Host, "host", false, "only events of the host, or with --namespace those too")
	flags.StringVar(&c.AllowList, "allow-list", "", "events to ask for: Tetragon's filters, a JSON object a line, or @FILE")
	flags.StringVar(&c.DenyList, "deny-list", "", "events to leave out, likewise")
	flags.StringVar(&c.FieldFilters, "field-filters", "", "fields to put in or leave out, likewise")
	flags.StringVar(&c.Filters, "filters", "auto", "auto: without filters given, use those of Tetragon's own export; none: ask for all events")
}

// Export subscribes to Tetragon and sends its events until the subscription
// ends for good or ctx does.
func Export(ctx context.Context, c ExportConfig, streams Streams) error {
	log, level, err := streams.levelled(c.Log)
	if err != nil {
		return err
	}
	self, err := exporter.ReadSelf("/proc")
	if err != nil {
		log.Warn("No event of the exporter itself is excluded, but those of its connection to Tetragon: with a policy on the network path it would export its own sends", "error", err)
	}
	tuneRuntime(exportProcs, int64(c.QueueBytes)+exportMemory, log)
	release, err := holdStateDir(c.StateDir, "export")
	if err != nil {
		return err
	}
	defer release()
	exporterConfig, err := c.exporterConfig(log, self)
	if err != nil {
		return err
	}
	var out *exporter.UDPExporter
	in, err := c.open(log, self, &out)
	if err != nil {
		return err
	}
	serving, err := c.Metrics.open(log)
	if err != nil {
		return err
	}
	defer serving.close()
	look := upstream.Config{Find: c.findMetrics(), Version: in.version, Logger: log}
	if c.StatsInterval > 0 && c.StatsInterval < upstream.DefaultInterval {
		look.Interval = c.StatsInterval // so that each agent_stats has something new
	}
	losses := upstream.New(look)
	exporterConfig.Upstream = func() exporter.Upstream { return in.lost(losses) }
	if serving != nil {
		exporterConfig.Measure = c.exportMetrics(serving, &out, in, losses)
	}
	if out, err = exporter.NewUDPExporter(exporterConfig); err != nil {
		return Usage(err, formsHint)
	}
	defer func() { _ = out.Close() }()
	in.missed(out.Gap())
	if c.FailFast || !c.Reconnect {
		if err := out.Resolve(ctx); err != nil && ctx.Err() == nil {
			return Failed(err, "without --fail-fast and --reconnect=false the name is tried until it resolves")
		}
	}
	profiles, err := c.Profile.listen()
	if err != nil {
		return err
	}
	supervisor := newSupervisor(log)
	account := func() ledger.Exporter { return in.account(out, losses) }
	if in.subscription == nil {
		_ = out.SendMetadataEvent() // no Tetragon will say who it is; ErrClosed: Run will say it
	}
	err = pump(ctx, in, in.give(ctx, out), out, func(ctx context.Context) {
		var beside sync.WaitGroup
		beside.Go(func() { _ = losses.Run(ctx) }) // until ctx ends
		beside.Go(func() { supervisor.watch(ctx, out.Alive) })
		beside.Go(func() { serveProfiles(ctx, profiles) })
		beside.Go(func() {
			onReload(ctx, c.Reload, supervisor, func(ctx context.Context, next *Reloaded[ExportConfig]) ([]string, error) {
				return c.reload(ctx, next, out, in, level, log)
			}, log)
		})
		if serving != nil {
			serving.alive, serving.ready = out.Alive, in.ready
			beside.Go(func() { serving.run(ctx) })
		}
		beside.Go(func() { in.watch(ctx) })
		accountOnSignal(ctx, c.AccountFile, account, log)
		beside.Wait()
	})
	return errors.Join(finishExport(account(), c.AccountFile, streams), explainSource(err), in.save())
}

// pump runs source and exporter, and stops them in the order of the data: the
// source, then the exporter when it has sent what it holds. When the source ended by
// itself that may take as long as it takes; a signal bounds it, before or after.
func pump(ctx context.Context, in source.Source, give source.Take, out *exporter.UDPExporter, beside func(context.Context)) error {
	exporting, stopExporting := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = out.Run(exporting) }) // nil: it runs once
	running.Go(func() { beside(exporting) })
	err := in.Run(ctx, give)
	if ctx.Err() == nil {
		_ = out.Finish(ctx) // its error: a signal came
	}
	stopExporting()
	running.Wait()
	if errors.Is(err, context.Canceled) {
		return nil // a signal asked for the end
	}
	return err
}

// exportAccount joins what the exporter counts and what was lost before it.
func exportAccount(out *exporter.UDPExporter, before exporter.Upstream) ledger.Exporter {
	account := out.Account()
	account.SubscriptionBreaks, account.Overlap = before.Breaks, before.Overlap
	if blind := uint64(before.BlindTime.Milliseconds()); !before.BlindUnknown {
		account.BlindMS = &blind
	}
	for stage, n := range before.Losses {
		account.Upstream[stage] = n
	}
	_ = account.Close() // the verdict is in the account
	return account
}

// findMetrics says where Tetragon's metrics are; nil: they are not wanted.
func (c *ExportConfig) findMetrics() func() string {
	switch c.MetricsAddress {
	case "":
		return nil
	case "auto":
		return func() string { return source.MetricsAddress(c.InfoFile) }
	}
	return func() string { return c.MetricsAddress }
}

// finishExport writes the last account. One that does not close is an error.
func finishExport(account ledger.Exporter, path string, streams Streams) error {
	_, _ = streams.Err.Write(account.AppendText(nil))
	err := account.Check()
	if path != "" {
		err = errors.Join(err, writeAccount(path, account))
	}
	return err
}

func explainSource(err error) error {
	if errors.Is(err, source.ErrNotFound) {
		return Failed(err, "is Tetragon running? --server-address names another place; without --fail-fast and --reconnect=false it is tried until it answers")
	}
	return err
}

func (c *ExportConfig) exporterConfig(log *slog.Logger, self *exporter.Self) (exporter.Config, error) {
	config := exporter.Config{
		QueueBytes:          c.QueueBytes,
		TranscodeCacheBytes: c.TranscodeCache,
		Self:                self,
		Logger:              log,
	}
	if c.TranscodeCache == 0 {
		config.TranscodeCacheBytes = -1 // in the library zero means the default
	}
	switch {
	case c.StatsInterval == 0:
		config.StatsInterval = -1 // in the library zero means what the format wants
	case c.StatsInterval > 0:
		config.StatsInterval = c.StatsInterval
	}
	config.FlushInterval = c.FlushInterval
	if c.StateDir != "" {
		config.CountersFile = filepath.Join(c.StateDir, "export.counters")
	}
	if err := c.setMetadata(&config, log); err != nil {
		return config, err
	}
	var err error
	config.Destinations, err = c.Destination.destinations(log)
	return config, err
}

func decodeYAML(text []byte) (values map[string]any, err error) {
	return values, yaml.Unmarshal(text, &values)
}

func (c *ExportConfig) sourceConfig(log *slog.Logger) (source.Config, error) {
	config := source.Config{
		ServerAddress:     c.ServerAddress,
		ServerAddressFrom: "--server-address or TETRACAST_SERVER_ADDRESS",
		Places:            source.Places{InfoFile: c.InfoFile},
		AutoFilters:       c.Filters == "auto",
		TetragonConfigDir: c.TetragonConfigDir,
		DecodeYAML:        decodeYAML,
		MaxReceiveBytes:   c.MaxReceiveBytes,
		GRPCClient:        source.GRPCClient(c.GRPCClient),
		Guard:             c.StallCheck,
		Remedies:          c.Remedies == "auto",
		Reconnect:         c.Reconnect,
		FailFast:          c.FailFast,
		Logger:            log,
	}
	if c.Remedies != "auto" && c.Remedies != "none" {
		return config, Usage(fmt.Errorf("app: --remedies %q, want auto or none", c.Remedies), "auto is the default")
	}
	if c.Filters != "auto" && c.Filters != "none" {
		return config, Usage(fmt.Errorf("app: --filters %q, want auto or none", c.Filters), "auto is the default: the filters of Tetragon's own export")
	}
	var err error
	if config.Filters, err = source.ParseFilters(c.AllowList, c.DenyList, c.FieldFilters); err != nil {
		return config, Usage(err, `a filter is a JSON object, such as {"event_set":["PROCESS_EXEC"]}`)
	}
	selected, err := c.Selection.Filter()
	if err != nil {
		return config, Usage(err, "the types are those of Tetragon's API, EventType")
	}
	if selected != nil && c.AllowList != "" {
		return config, Usage(errors.New("app: --allow-list and flags such as --namespace or --process both say which events to ask for"),
			"an event passes an allow list if any of its filters lets it through: put all of it into --allow-list")
	}
	if selected != nil {
		config.Filters.Allow = append(config.Filters.Allow, selected)
	}
	if c.TLS.wanted() {
		config.TLS = c.TLS.load // at each attempt: what was renewed is read
		if _, err := c.TLS.load(); err != nil {
			return config, Usage(err, "the --tls flags have the meaning of tetra's; without any of them the connection is plain text")
		}
	}
	return config, nil
}
