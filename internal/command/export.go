package command

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

// NewExport returns the command of that name.
func NewExport() *cobra.Command {
	var config app.ExportConfig
	cmd := &cobra.Command{
		Use:         "export",
		Short:       "Send Tetragon's events to UDP destinations",
		Long:        "export subscribes to Tetragon's events and sends each of them to every destination,\nafter an agent_init that says who sends. It finds Tetragon by itself where no\naddress is given. At the end it prints the account to standard error.",
		Annotations: Reloads,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Reload = Reloader(cmd, (*app.ExportConfig).AddFlags)
			return app.Export(cmd.Context(), config, Streams())
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}
