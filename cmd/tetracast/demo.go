package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newDemo() *cobra.Command {
	var config app.DemoConfig
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole path on this machine, with nothing installed",
		Long:  "demo plays a real recording through gRPC, export, UDP on loopback and collect,\nshows what arrives, and ends with the account of both sides. It exits with 1 if\nthe account does not close.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.Demo(cmd.Context(), config, streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
