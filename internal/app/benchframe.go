package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"tetracast/internal/bench"
)

// BenchFrameConfig is the configuration of the bench frame command.
type BenchFrameConfig struct {
	bench.FrameOptions
}

// AddFlags declares the command's flags.
func (c *BenchFrameConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rounds, "rounds", 9, "interleaved rounds of every row")
	flags.BoolVar(&c.JSON, "json", false, "write the tables as JSON, without the sizes")
}

// BenchFrame measures frames.
func BenchFrame(ctx context.Context, c BenchFrameConfig, streams Streams) error {
	if c.Rounds < 1 {
		return Usage(fmt.Errorf("app: %d rounds: want a positive number", c.Rounds), "the defaults are in --help")
	}
	err := bench.Frame(ctx, streams.Out, c.FrameOptions)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
