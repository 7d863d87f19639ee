package command

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

// NewVersion returns the command of that name.
func NewVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Args:  NoArguments,
		RunE:  func(*cobra.Command, []string) error { return app.Version(Streams()) },
	}
}
