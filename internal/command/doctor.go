package command

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

// NewDoctor returns the command of that name.
func NewDoctor() *cobra.Command {
	var config app.ExportConfig
	var asJSON bool
	cmd := &cobra.Command{
		Use:         "doctor",
		Short:       "Examine this host as export would find it",
		Long:        "doctor takes the flags and the configuration of export, looks whether Tetragon is\nfound and what it lost by its own count, at the way to each destination, socket\nbuffers and the folder for state, and says what to do about what is not as it\nshould be. It sends nothing. The exit code is 1 if export would not work.",
		Annotations: map[string]string{sectionKey: "export"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.Doctor(cmd.Context(), config, asJSON, Streams())
		},
	}
	config.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the findings as JSON")
	return cmd
}
