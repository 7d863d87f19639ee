package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"tetracast/internal/bench"
	"tetracast/internal/bench/rival"
)

// BenchPipelineConfig is the configuration of the bench pipeline command.
type BenchPipelineConfig struct {
	bench.PipelineOptions
}

// AddFlags declares the command's flags.
func (c *BenchPipelineConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rounds, "rounds", 5, "interleaved rounds of every row")
	flags.DurationVar(&c.Window, "window", 2*time.Second, "how long each process is watched in a round, after it has warmed up")
	flags.StringVar(&c.Peers, "peers", "", "folder of other programs to compare with, as test/interop/peers.sh makes it")
	flags.StringVar(&c.Program, "program", "", "the program that exports, such as tetracast-agent; empty: this one")
	flags.StringArrayVar(&c.Exports, "export-flag", nil, "one more argument for export, such as --grpc-client=grpc-go; may be repeated")
	flags.StringVar(&c.Only, "only", "", "tables to make, by the beginning of their names: rivals-a, rivals-b, tail, slow, rates, latency; empty: all")
	flags.StringVar(&c.Profiles, "profiles", "", "folder for a CPU profile of each export; empty: none")
	flags.BoolVar(&c.JSON, "json", false, "write the tables as JSON")
}

// BenchPipeline measures export as a process.
func BenchPipeline(ctx context.Context, c BenchPipelineConfig, streams Streams) error {
	if c.Rounds < 1 || c.Window <= 0 {
		return Usage(fmt.Errorf("app: %d rounds of %v: want positive numbers", c.Rounds, c.Window), "the defaults are in --help")
	}
	err := bench.Pipeline(ctx, streams.Out, c.PipelineOptions)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// BenchRivalConfig is the configuration of the bench rival command.
type BenchRivalConfig struct {
	rival.Config
}

// AddFlags declares the command's flags, which are export's.
func (c *BenchRivalConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Server, "server-address", "", "Tetragon's gRPC address, unix:///path")
	flags.StringVar(&c.Destination, "udp-destination", "", "host:port")
	flags.StringVar(&c.Account, "account", "", "file for the number of events, on SIGUSR1")
}

// BenchRival does what the rival of that kind does.
func BenchRival(ctx context.Context, kind string, c BenchRivalConfig) error {
	c.Kind = kind
	return rival.Run(ctx, c.Config)
}
