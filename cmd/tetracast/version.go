package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Args:  noArguments,
		RunE:  func(*cobra.Command, []string) error { return app.Version(streams()) },
	}
}
