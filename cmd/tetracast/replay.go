package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newReplay() *cobra.Command {
	var config app.ReplayConfig
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Serve a recording as Tetragon does",
		Long:  "replay serves a recording over gRPC as Tetragon does, for trying and testing without\na Tetragon. Without --loop it serves one client to the end of the recording.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.Replay(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
