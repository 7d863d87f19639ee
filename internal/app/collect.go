package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/internal/sink/compact"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/transcode"
)

// DefaultListen is where collect listens.
const DefaultListen = "127.0.0.1:7514"

// CollectConfig is the configuration of the collect command.
type CollectConfig struct {
	// Reload reads the configuration again, on SIGHUP. Nil: it is not read again.
	Reload func() (Reloaded[CollectConfig], error)

	Log         LogConfig
	Listen      string // host:port
	Format      string
	Other       string // drop or pass
	Output      string // json, compact, or empty: json, and nothing beside Write
	Write       WriteConfig
	ExitIdle    time.Duration
	AccountFile string
	StateDir    string // empty: none

	KeyFile      string   // empty: none
	Dictionaries []string // files
	AllowSources []string // CIDRs, or any

	ReceiveBufferBytes int
	QueueBytes         int
	Sockets            int
	MaxStreams         int // 0: the default, as of those below
	MaxAddresses       int
	MaxNewStreams      int
	GRO                string // auto, on or off

	Metadata SharingConfig
	Profile  ProfileConfig
	Metrics  MetricsConfig
	Agents   AgentsConfig
}

// AddFlags declares the command's flags.
func (c *CollectConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", DefaultListen, "UDP address to receive on, host:port")
	flags.StringVar(&c.Format, "format", "auto", "format of the datagrams: auto, json, ndjson, gelf, syslog or frame")
	flags.StringVar(&c.Other, "other", collector.OtherDrop, "what becomes of messages that are no events of Tetragon: drop counts them, pass writes them to the output")
	flags.StringVar(&c.KeyFile, "key-file", "", "take only frames sealed with a key in this file")
	flags.StringArrayVar(&c.Dictionaries, "dictionary", nil, "a dictionary for compressed frames beside the built-in ones; can be repeated")
	flags.StringArrayVar(&c.AllowSources, "allow-source", nil, "take datagrams from this network (CIDR or address), or from any; can be repeated; --listen on more than loopback wants this or --key-file")
	flags.StringVar(&c.Output, "output", "", "what goes to standard output: json or compact; json if --write is not given, else nothing")
	c.Write.addFlags(flags)
	flags.DurationVar(&c.ExitIdle, "exit-idle", 0, "exit when nothing came for so long, after the first datagram; 0: never")
	flags.StringVar(&c.AccountFile, "account", "", "write the account as JSON to this file at the end and on SIGUSR1")
	flags.StringVar(&c.StateDir, "state-dir", "", "folder for what is known of the senders, saved every second, so that a restart goes on from there, made if it is missing; empty: none")
	flags.IntVar(&c.ReceiveBufferBytes, "receive-buffer-size", collector.DefaultReceiveBufferBytes, "socket receive buffer to ask for, in bytes")
	flags.IntVar(&c.QueueBytes, "queue-bytes", collector.DefaultQueueBytes, "the most bytes of events that wait for the output; what does not fit is dropped as sink_full")
	flags.IntVar(&c.Sockets, "sockets", 1, "sockets that share the address, each read by a goroutine of its own")
	flags.IntVar(&c.MaxStreams, "max-streams", 8192, "streams with numbers to know at once, two a host for a while after a rollout; each takes 2 KiB, and up to 20 KiB more if much is lost")
	flags.IntVar(&c.MaxAddresses, "max-addresses", 8192, "addresses to know at once that send formats without numbers; each takes 1 KiB")
	flags.IntVar(&c.MaxNewStreams, "max-new-streams", 1024, "streams and addresses to know at once, of each, that are not sealed and sent too little to be trusted")
	flags.StringVar(&c.GRO, "gro", "auto", "take datagrams joined where the kernel can: auto, on or off")
	c.Metadata.addFlags(flags)
	c.Profile.addFlags(flags)
	c.Metrics.addFlags(flags, DefaultCollectMetrics)
	c.Agents.addFlags(flags)
	c.Log.addFlags(flags)
}

// Collect receives datagrams and writes their events until ctx ends, or nothing
// comes for Config.ExitIdle.
func Collect(ctx context.Context, c CollectConfig, streams Streams) error {
	log, level, err := streams.levelled(c.Log)
	if err != nil {
		return err
	}
	release, err := holdStateDir(c.StateDir, "collect")
	if err != nil {
		return err
	}
	defer release()
	tuneRuntime(0, int64(c.QueueBytes)+collectMemory, log)
	if limit, file := memoryLimit("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 && uint64(c.QueueBytes) > limit {
		log.Warn("The queue may grow beyond the memory of the control group, and the kernel would then end this process",
			"queue_bytes", c.QueueBytes, "memory_limit_bytes", limit, "memory_limit_from", file, "hint", "a smaller --queue-bytes, or more memory")
	}
	out, file, err := c.sink(streams, log)
	if err != nil {
		return err
	}
	config, err := c.collectorConfig(out, log)
	if err != nil {
		_ = out.Close()
		return err
	}
	var share func(context.Context)
	c.Metadata.StateDir = c.StateDir
	if config.Directory, share, err = c.Metadata.directory(log); err != nil {
		_ = out.Close()
		return err
	}
	serving, err := c.Metrics.open(log)
	if err != nil {
		_ = out.Close()
		return err
	}
	defer serving.close()
	var in *collector.Collector
	if serving != nil {
		config.Measure = c.collectMetrics(serving, &in, file)
	}
	in, err = collector.New(config)
	for _, file := range config.Inherited {
		_ = file.Close() // the collector has its own descriptors
	}
	if err != nil {
		_ = out.Close()
		return Failed(err, "is another collector running? --listen takes another address, and port 0 a free port")
	}
	profiles, err := c.Profile.listen()
	if err != nil {
		_ = out.Close()
		return err
	}
	account := func() ledger.Collector {
		account := in.Account()
		_ = account.Close() // the verdict is in the account
		return account
	}
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { accountOnSignal(beside, c.AccountFile, account, log) })
	if share != nil {
		running.Go(func() { share(beside) })
	}
	running.Go(func() { file.run(beside) })
	supervisor, alive := newSupervisor(log), answers(in.Alive)
	running.Go(func() { supervisor.watch(beside, alive) })
	running.Go(func() { serveProfiles(beside, profiles) })
	running.Go(func() {
		onReload(beside, c.Reload, supervisor, func(_ context.Context, next *Reloaded[CollectConfig]) ([]string, error) {
			return applyCollect(next, in, level)
		}, log)
	})
	if serving != nil {
		serving.alive = alive
		running.Go(func() { serving.run(beside) })
	}
	err = in.Run(ctx)
	stop()
	running.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(finishCollect(account(), c.AccountFile, streams), err)
}

// finishCollect writes the last account. One that does not close is an error.
func finishCollect(account ledger.Collector, path string, streams Streams) error {
	_, _ = streams.Err.Write(account.AppendText(nil))
	err := account.Check()
	if path != "" {
		err = errors.Join(err, writeAccount(path, account))
	}
	return err
}

func (c *CollectConfig) collectorConfig(out sink.Sink, log *slog.Logger) (collector.Config, error) {
	config := collector.Config{
		Listen: c.Listen, Format: c.Format, Other: c.Other, Sink: out, ExitIdle: c.ExitIdle, Sockets: c.Sockets,
		MaxStreams: c.MaxStreams, MaxAddresses: c.MaxAddresses, MaxNewStreams: c.MaxNewStreams,
		ReceiveBufferBytes: c.ReceiveBufferBytes, QueueBytes: c.QueueBytes, Log: log,
	}
	var err error
	if config.Inherited, err = udp.Inherited(); err != nil {
		return config, Failed(err, "systemd sets LISTEN_FDS; without it --listen is used")
	}
	if err = c.whoMaySpeak(&config); err != nil {
		return config, err
	}
	switch {
	case config.Keys == nil:
	case c.Format != "" && c.Format != "auto" && c.Format != "frame":
		return config, Usage(fmt.Errorf("app: --key-file takes only sealed frames, but --format is %s", c.Format), "who wants both has two collectors: docs/frame.md, Sealing")
	case config.AllowSources != nil:
		log.Warn("With --key-file only sealed frames are taken, and with --allow-source only those from there: other formats need a collector of their own, without a key")
	}
	for _, path := range c.Dictionaries {
		d, err := readDictionary(path)
		if err != nil {
			return config, err
		}
		config.Dictionaries = append(config.Dictionaries, d)
	}
	config.NewTranscoder = newTranscoder
	config.SilentAfter = c.Agents.SilentAfter
	if config.Expected, err = c.Agents.expected(); err != nil {
		return config, err
	}
	if c.StateDir != "" {
		config.StateFile = filepath.Join(c.StateDir, "collect.state")
	}
	switch c.GRO {
	case "", "auto":
	case "on":
		config.GRO = udp.On
	case "off":
		config.GRO = udp.Off
	default:
		return config, Usage(fmt.Errorf("app: --gro %q, want auto, on or off", c.GRO), "auto is the default: on where the kernel can")
	}
	return config, nil
}

// newTranscoder makes what turns protobuf in frames into JSON.
func newTranscoder() (*transcode.Transcoder, error) {
	return exporter.NewTranscoder(exporter.DefaultTranscodeCacheBytes)
}

// whoMaySpeak reads who may send. Nobody shall be able to put events into the
// output because nobody thought of it.
func (c *CollectConfig) whoMaySpeak(config *collector.Config) (err error) {
	if c.KeyFile != "" {
		if config.Keys, err = readMasterKeys(c.KeyFile); err != nil {
			return err
		}
	}
	for _, text := range c.AllowSources {
		if text == "any" {
			config.AllowSources = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
			break
		}
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return Usage(fmt.Errorf("app: --allow-source %q, want a network such as 10.0.0.0/8, or any", text), "it can be given more than once")
		}
		config.AllowSources = append(config.AllowSources, prefix.Masked())
	}
	if config.Keys != nil || config.AllowSources != nil {
		return nil
	}
	address, err := c.exposed(config.Inherited)
	if address != "" {
		return Usage(fmt.Errorf("app: %s is reachable by others, who could send forged events", address),
			"--key-file FILE takes only sealed frames, --allow-source CIDR only those from a network; --allow-source any says that it shall be so")
	}
	return err
}

// exposed returns the address to receive on that others than this host's
// processes can reach; empty: none.
func (c *CollectConfig) exposed(inherited []*os.File) (address string, err error) {
	if len(inherited) == 0 && !isLoopback(c.Listen) {
		return "--listen " + c.Listen, nil
	}
	for _, file := range inherited {
		bound, err := udp.BoundTo(file)
		if err != nil {
			return "", Failed(err, "the socket unit must have one ListenDatagram= with an address and a port")
		}
		if !bound.Addr().Unmap().IsLoopback() {
			return "the socket that systemd gave, " + bound.String() + ",", nil
		}
	}
	return "", nil
}

// sink opens what the flags ask for: standard output, a file, or both.
func (c *CollectConfig) sink(streams Streams, log *slog.Logger) (sink.Sink, *outputFile, error) {
	var sinks []sink.Sink
	output := c.Output
	if output == "" && c.Write.Path == "" {
		output = "json"
	}
	switch output {
	case "":
	case "json":
		sinks = append(sinks, sink.NewLines(streams.Out))
	case "compact":
		sinks = append(sinks, compact.New(sink.NewLines(streams.Out), compact.Options{Color: isTerminal(streams.Out)}))
	default:
		return nil, nil, Usage(fmt.Errorf("app: --output %q, want json or compact", c.Output), "json is for programs, compact for people")
	}
	file, err := c.Write.open(log)
	if err != nil {
		return nil, nil, err
	}
	if file != nil {
		sinks = append(sinks, file)
	}
	if len(sinks) == 1 {
		return sinks[0], file, nil
	}
	return sink.Tee(sinks...), file, nil
}
