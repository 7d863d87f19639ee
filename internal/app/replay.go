package app

import (
	"context"
	"errors"
	"io/fs"

	"github.com/spf13/pflag"

	"tetracast/internal/replay"
	"tetracast/internal/source"
)

// ReplayConfig is the configuration of the replay command.
type ReplayConfig struct {
	Log           LogConfig
	ServerAddress string
	Recording     string
	Rate          int
	Loop          bool
	As            string
}

// AddFlags declares the command's flags.
func (c *ReplayConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.ServerAddress, "server-address", "unix:///var/run/tetragon/tetragon.sock", "where to serve, unix:///path or host:port")
	flags.StringVar(&c.Recording, "recording", "", "recording to serve, .binpb, plain or compressed with gzip or zstd; empty: the built-in sample")
	flags.IntVar(&c.Rate, "rate", 0, "events a second; 0: as fast as the client reads")
	flags.BoolVar(&c.Loop, "loop", false, "play the recording again and again, to any number of clients")
	flags.StringVar(&c.As, "as", "", "version to answer as, such as 1.6; empty: that of the recording")
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
	server, err := replay.New(replay.Config{
		Recording: c.Recording, EventsPerSecond: c.Rate, Loop: c.Loop, Version: version, Logger: log,
	})
	if err != nil {
		return explainRecording(err)
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
