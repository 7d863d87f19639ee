package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"tetracast/internal/bench"
)

// BenchUDPConfig is the configuration of the bench udp command.
type BenchUDPConfig struct {
	bench.UDPOptions
}

// AddFlags declares the command's flags.
func (c *BenchUDPConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rounds, "rounds", 9, "interleaved rounds of every row")
	flags.IntVar(&c.Datagrams, "datagrams", 500_000, "datagrams of the run that must lose none; the goal is stated for 10000000")
	flags.IntVar(&c.Rate, "rate", 100_000, "datagrams a second of that run")
	flags.BoolVar(&c.JSON, "json", false, "write the tables as JSON, without the runs")
}

// BenchUDP measures the batching sockets.
func BenchUDP(ctx context.Context, c BenchUDPConfig, streams Streams) error {
	if c.Rounds < 1 || c.Datagrams < 0 || c.Rate < 1 {
		return Usage(fmt.Errorf("app: %d rounds, %d datagrams at %d a second: want positive numbers", c.Rounds, c.Datagrams, c.Rate), "the defaults are in --help")
	}
	err := bench.UDP(ctx, streams.Out, c.UDPOptions)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// BenchCollectConfig is the configuration of the bench collect command.
type BenchCollectConfig struct {
	bench.CollectOptions
}

// AddFlags declares the command's flags.
func (c *BenchCollectConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rounds, "rounds", 15, "interleaved rounds of every row")
	flags.IntVar(&c.Events, "events", 500_000, "events of the run in which each one is accounted for; the goal is stated for 10000000; 0: no such run")
	flags.IntVar(&c.Rate, "rate", 100_000, "events a second of that run")
	flags.BoolVar(&c.JSON, "json", false, "write the table as JSON, without the run")
}

// BenchCollect measures a collector.
func BenchCollect(ctx context.Context, c BenchCollectConfig, streams Streams) error {
	if c.Rounds < 1 || c.Events < 0 || c.Rate < 1 {
		return Usage(fmt.Errorf("app: %d rounds, %d events at %d a second: want positive numbers", c.Rounds, c.Events, c.Rate), "the defaults are in --help")
	}
	err := bench.Collect(ctx, streams.Out, c.CollectOptions)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// BenchTranscodeConfig is the configuration of the bench transcode command.
type BenchTranscodeConfig struct {
	bench.TranscodeOptions
}

// AddFlags declares the command's flags.
func (c *BenchTranscodeConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Recording, "recording", "", "recording to transcode; empty: the large corpus where it is, else the built-in sample")
	flags.IntVar(&c.Rounds, "rounds", 7, "interleaved rounds of every row")
	flags.BoolVar(&c.JSON, "json", false, "write the tables as JSON")
}

// BenchTranscode measures the transcoder.
func BenchTranscode(ctx context.Context, c BenchTranscodeConfig, streams Streams) error {
	if c.Rounds < 1 {
		return Usage(fmt.Errorf("app: %d rounds: want a positive number", c.Rounds), "the defaults are in --help")
	}
	err := bench.Transcode(ctx, streams.Out, c.TranscodeOptions)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return explainRecording(err)
}

// BenchFormatsConfig is the configuration of the bench formats command.
type BenchFormatsConfig struct {
	bench.FormatsOptions
}

// AddFlags declares the command's flags.
func (c *BenchFormatsConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rounds, "rounds", 9, "interleaved rounds of every row; of collectors at most 3")
	flags.StringVar(&c.Peers, "peers", "", "folder of other collectors to compare with, as test/interop/peers.sh makes it")
	flags.IntVar(&c.Events, "events", 40_000, "events that each collector receives in a round")
	flags.IntVar(&c.Rate, "rate", 10_000, "events a second to them")
	flags.BoolVar(&c.JSON, "json", false, "write the tables as JSON")
}

// BenchFormats measures the formats.
func BenchFormats(ctx context.Context, c BenchFormatsConfig, streams Streams) error {
	if c.Rounds < 1 || c.Events < 1 || c.Rate < 1 {
		return Usage(fmt.Errorf("app: %d rounds, %d events at %d a second: want positive numbers", c.Rounds, c.Events, c.Rate), "the defaults are in --help")
	}
	err := bench.Formats(ctx, streams.Out, c.FormatsOptions)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
