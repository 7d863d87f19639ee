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

	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/internal/sink/compact"
	"tetracast/internal/udp"
	"tetracast/ledger"
)

// DefaultListen is where collect listens.
const DefaultListen = "127.0.0.1:7514"

// CollectConfig is the configuration of the collect command.
type CollectConfig struct {
	Log         LogConfig
	Listen      string // host:port
	Format      string
	Output      string // json, compact, or empty: json, and nothing beside Write
	Write       string // file
	ExitIdle    time.Duration
	AccountFile string
	StateDir    string // empty: none

	ReceiveBufferBytes int
	QueueBytes         int
	Sockets            int
	GRO                string // auto, on or off
}

// AddFlags declares the command's flags.
func (c *CollectConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", DefaultListen, "UDP address to receive on, host:port")
	flags.StringVar(&c.Format, "format", "auto", "format of the datagrams: auto or json")
	flags.StringVar(&c.Output, "output", "", "what goes to standard output: json or compact; json if --write is not given, else nothing")
	flags.StringVar(&c.Write, "write", "", "append the events to this file, a JSON object a line")
	flags.DurationVar(&c.ExitIdle, "exit-idle", 0, "exit when nothing came for so long, after the first datagram; 0: never")
	flags.StringVar(&c.AccountFile, "account", "", "write the account as JSON to this file at the end and on SIGUSR1")
	flags.StringVar(&c.StateDir, "state-dir", "", "folder for what is known of the senders, saved every second, so that a restart goes on from there; empty: none")
	flags.IntVar(&c.ReceiveBufferBytes, "receive-buffer-size", collector.DefaultReceiveBufferBytes, "socket receive buffer to ask for, in bytes")
	flags.IntVar(&c.QueueBytes, "queue-bytes", collector.DefaultQueueBytes, "the most bytes of events that wait for the output; what does not fit is dropped as sink_full")
	flags.IntVar(&c.Sockets, "sockets", 1, "sockets that share the address, each read by a goroutine of its own")
	flags.StringVar(&c.GRO, "gro", "auto", "take datagrams joined where the kernel can: auto, on or off")
	c.Log.addFlags(flags)
}

// Collect receives datagrams and writes their events until ctx ends, or nothing
// comes for Config.ExitIdle.
func Collect(ctx context.Context, c CollectConfig, streams Streams) error {
	log, err := streams.logger(c.Log)
	if err != nil {
		return err
	}
	out, err := c.sink(streams)
	if err != nil {
		return err
	}
	config, err := c.collectorConfig(out, log)
	if err != nil {
		_ = out.Close()
		return err
	}
	in, err := collector.New(config)
	for _, file := range config.Inherited {
		_ = file.Close() // the collector has its own descriptors
	}
	if err != nil {
		_ = out.Close()
		return Failed(err, "is another collector running? --listen takes another address, and port 0 a free port")
	}
	account := func() ledger.Collector {
		account := in.Account()
		_ = account.Close() // the verdict is in the account
		return account
	}
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { accountOnSignal(beside, c.AccountFile, account, log) })
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
		Listen: c.Listen, Format: c.Format, Sink: out, ExitIdle: c.ExitIdle, Sockets: c.Sockets,
		ReceiveBufferBytes: c.ReceiveBufferBytes, QueueBytes: c.QueueBytes, Log: log,
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
	var err error
	if config.Inherited, err = udp.Inherited(); err != nil {
		return config, Failed(err, "systemd sets LISTEN_FDS; without it --listen is used")
	}
	return config, nil
}

// sink opens what the flags ask for: standard output, a file, or both.
func (c *CollectConfig) sink(streams Streams) (sink.Sink, error) {
	var sinks []sink.Sink
	output := c.Output
	if output == "" && c.Write == "" {
		output = "json"
	}
	switch output {
	case "":
	case "json":
		sinks = append(sinks, sink.NewLines(streams.Out))
	case "compact":
		sinks = append(sinks, compact.New(sink.NewLines(streams.Out), compact.Options{Color: isTerminal(streams.Out)}))
	default:
		return nil, Usage(fmt.Errorf("app: --output %q, want json or compact", c.Output), "json is for programs, compact for people")
	}
	if c.Write != "" {
		file, err := sink.OpenFile(c.Write)
		if err != nil {
			return nil, Failed(err, "--write names a file in a folder that exists and can be written to")
		}
		sinks = append(sinks, file)
	}
	if len(sinks) == 1 {
		return sinks[0], nil
	}
	return sink.Tee(sinks...), nil
}
