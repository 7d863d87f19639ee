package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newDecode() *cobra.Command {
	var config app.DecodeConfig
	cmd := &cobra.Command{
		Use:   "decode",
		Short: "Turn a recording into JSON lines on standard output",
		Long:  "decode runs the transcoder over a recording, without a network.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.Decode(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
