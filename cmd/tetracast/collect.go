package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
	"tetracast/internal/app/share"
	"tetracast/internal/command"
)

func newCollect() *cobra.Command {
	config := app.CollectConfig{Metadata: app.SharingConfig{Open: share.Open}}
	cmd := &cobra.Command{
		Use:         "collect",
		Short:       "Receive events over UDP and write them as JSON lines",
		Long:        "collect receives what export sends and writes one JSON object a line to standard\noutput or to a file. At the end it prints the account to standard error.",
		Annotations: command.Reloads,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Reload = command.Reloader(cmd, (*app.CollectConfig).AddFlags)
			return app.Collect(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
