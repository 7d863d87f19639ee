package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"tetracast/internal/replay"
	"tetracast/internal/source"
	"tetracast/internal/upstream"
)

// ReplayConfig is the configuration of the replay command.
type ReplayConfig struct {
	Log           LogConfig
	ServerAddress string
	Recording     string
	Rate          int
	Loop          bool
	As            string

	MetricsAddress string
	Losses         map[string]int64
	InfoFile       string
}

// AddFlags declares the command's flags.
func (c *ReplayConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.ServerAddress, "server-address", "", "where to serve, unix:///path or host:port; empty: where the version that is played does, unix:///var/run/tetragon/tetragon.sock since 1.7 and localhost:54321 before")
	flags.StringVar(&c.Recording, "recording", "", "recording to serve, .binpb, plain or compressed with gzip or zstd; empty: the built-in sample")
	flags.IntVar(&c.Rate, "rate", 0, "events a second; 0: as fast as the client reads")
	flags.BoolVar(&c.Loop, "loop", false, "play the recording again and again, to any number of clients")
	flags.StringVar(&c.As, "as", "", "version to answer as, such as 1.6; empty: that of the recording")
	flags.StringVar(&c.MetricsAddress, "metrics-address", "", "serve the counters of Tetragon's own losses there, host:port, under the names of the version that is played; empty: do not")
	flags.StringToInt64Var(&c.Losses, "loss", nil, "STAGE=N: each look at the metrics finds N more lost at this stage, one of bpf_missed, ring_buffer, event_queue, listener_overflow_all_clients")
	flags.StringVar(&c.InfoFile, "info-file", "", "write this file as Tetragon writes tetragon-info.json; empty: do not")
	c.Log.addFlags(flags)
}

// Replay serves a recording until its one client has read it, or ctx ends.
func Replay(ctx context.Context, c ReplayConfig, streams Streams) error {
	log, err := streams.logger(c.Log)
	if err != nil {
		return err
	}
	version := c.As
	if version != "" && version[0] != 'v' {
		version = "v" + version
	}
	config := replay.Config{
		Recording: c.Recording, EventsPerSecond: c.Rate, Loop: c.Loop, Version: version, Logger: log,
		InfoFile: c.InfoFile, Losses: map[string]uint64{},
	}
	for stage, n := range c.Losses {
		if !slices.Contains(upstream.Stages(), stage) || n < 0 {
			return Usage(fmt.Errorf("app: --loss %s=%d, want one of %s and a positive number", stage, n, strings.Join(upstream.Stages(), ", ")),
				"such as --loss ring_buffer=5")
		}
		config.Losses[stage] = uint64(n)
	}
	if c.MetricsAddress != "" {
		if config.Metrics, err = net.Listen("tcp", c.MetricsAddress); err != nil {
			return Failed(fmt.Errorf("app: --metrics-address: %w", err), "port 0 takes a free port")
		}
		defer func() { _ = config.Metrics.Close() }()
		log.Info("Serving metrics", "address", config.Metrics.Addr())
	}
	server, err := replay.New(config)
	if err != nil {
		return explainRecording(err)
	}
	if c.ServerAddress == "" {
		c.ServerAddress = replay.DefaultAddress(version)
	}
	listener, err := replay.Listen(c.ServerAddress)
	if err != nil {
		return Failed(err, "--server-address takes another place, such as unix:///tmp/tetragon.sock")
	}
	log.Info("Serving", "address", c.ServerAddress)
	if err := server.Serve(ctx, listener); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return server.Damage()
}

func explainRecording(err error) error {
	if errors.Is(err, source.ErrNoRecording) || errors.Is(err, source.ErrCutOff) {
		return Failed(err, "a recording is a sequence of GetEventsResponse messages, each behind its length as a varint, plain, .gz or .zst")
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return Failed(err, "--recording names a file; without it the built-in sample is taken")
	}
	return err
}
