package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newBench() *cobra.Command {
	bench := &cobra.Command{
		Use:   "bench",
		Short: "Measure a room beside its rivals and its floor",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	bench.AddCommand(newBenchCollect(), newBenchFormats(), newBenchFrame(), newBenchMetadata(), newBenchPipeline(), newBenchRival(), newBenchTranscode(), newBenchUDP())
	return bench
}

func newBenchUDP() *cobra.Command {
	var config app.BenchUDPConfig
	cmd := &cobra.Command{
		Use:   "udp",
		Short: "The batching sockets beside a Write for each datagram, and beside C",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchUDP(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newBenchFrame() *cobra.Command {
	var config app.BenchFrameConfig
	cmd := &cobra.Command{
		Use:   "frame",
		Short: "Frames beside a copy of each event, and their bytes beside JSON's",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchFrame(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newBenchMetadata() *cobra.Command {
	var config app.BenchMetadataConfig
	cmd := &cobra.Command{
		Use:   "metadata",
		Short: "The cached agent_init beside the way it replaces, each idea alone, and the bare send",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchMetadata(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newBenchCollect() *cobra.Command {
	var config app.BenchCollectConfig
	cmd := &cobra.Command{
		Use:   "collect",
		Short: "A collector beside the sum of its work, and its account of many events",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchCollect(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newBenchTranscode() *cobra.Command {
	var config app.BenchTranscodeConfig
	cmd := &cobra.Command{
		Use:   "transcode",
		Short: "The transcoder beside protojson, code written by hand, and its floors",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchTranscode(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newBenchFormats() *cobra.Command {
	var config app.BenchFormatsConfig
	cmd := &cobra.Command{
		Use:   "formats",
		Short: "Each format beside the transcoding, and our collector beside others",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchFormats(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

func newBenchPipeline() *cobra.Command {
	var config app.BenchPipelineConfig
	cmd := &cobra.Command{
		Use:   "pipeline",
		Short: "The whole export as a process beside its rivals and floors, and as it grows",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.BenchPipeline(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

// newBenchRival is for bench pipeline, which starts it.
func newBenchRival() *cobra.Command {
	var config app.BenchRivalConfig
	cmd := &cobra.Command{
		Use:    "rival KIND",
		Short:  "What bench pipeline measures export against",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.BenchRival(cmd.Context(), args[0], config)
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
