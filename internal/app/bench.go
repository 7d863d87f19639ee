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
