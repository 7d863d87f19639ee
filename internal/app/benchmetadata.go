package app

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"tetracast/internal/bench"
)

// BenchMetadataConfig is the configuration of the bench metadata command.
type BenchMetadataConfig struct {
	bench.MetadataOptions
}

// AddFlags declares the command's flags.
func (c *BenchMetadataConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rounds, "rounds", 9, "interleaved rounds of every row, and runs of each start")
	flags.IntVar(&c.Exports, "exports", 20_000, "exports of a round; with --only, all of them")
	flags.BoolVar(&c.Valgrind, "valgrind", false, "count instructions by valgrind where the machine has no counter for them, which takes minutes")
	flags.BoolVar(&c.JSON, "json", false, "write the report as JSON")
	flags.StringVar(&c.Page, "page", "", "write the report to this file as a page too; empty: do not")
	flags.StringVar(&c.Only, "only", "", "run one row, such as export/all or export/old-way, measure nothing, and write what the exporter counted: for strace, valgrind and profilers; empty: measure all")
	flags.IntVar(&c.Goroutines, "goroutines", 1, "goroutines that export at the same time, with --only")
	flags.StringVar(&c.HeapProfile, "heap-profile", "", "write the heap profile of the exports to this file, with --only, each allocation in it; empty: do not")
}

// BenchMetadata measures the ways to export agent_init.
func BenchMetadata(ctx context.Context, c BenchMetadataConfig, streams Streams) error {
	if c.Rounds < 1 || c.Exports < 1 || c.Goroutines < 1 {
		return Usage(fmt.Errorf("app: %d rounds, %d exports, %d goroutines: want positive numbers", c.Rounds, c.Exports, c.Goroutines), "the defaults are in --help")
	}
	if c.HeapProfile != "" && c.Only == "" {
		return Usage(errors.New("app: --heap-profile without --only: want the row to profile"), "such as --only export/all")
	}
	var err error
	if c.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("app: looking for this program, to run it as a child: %w", err)
	}
	exportFlags := pflag.NewFlagSet("export", pflag.ContinueOnError)
	new(ExportConfig).AddFlags(exportFlags)
	c.ExportHas = func(flag string) bool { return exportFlags.Lookup(flag) != nil }
	err = bench.Metadata(ctx, streams.Out, c.MetadataOptions)
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, bench.ErrNoRow):
		return Usage(err, "--only takes block/row, such as export/all")
	}
	return err
}
