package command

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

// newConfig has a command for each of those that the configuration files have a
// section for.
func newConfig(layered func() []*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration",
		Args:  NoArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	show := &cobra.Command{
		Use:   "print",
		Short: "Print each value of a command, and where it comes from",
		Long: "print shows what a command would do its work with: each flag's value, and whether the\n" +
			"command line, the environment, a file or nobody set it. The output is a configuration\n" +
			"file. Secrets are not printed.",
		Args: NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range layered() {
		name := c.Name()
		if sectionOf(c) != name {
			continue // its values are the other's
		}
		c.Short, c.Long, c.Args = "Print the values of "+name, "", NoArguments
		c.PreRunE = nil
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			origins, err := layer(cmd, layered())
			if err != nil {
				return err
			}
			return app.PrintConfig(name, cmd.LocalNonPersistentFlags(), origins, Streams())
		}
		show.AddCommand(c)
	}
	cmd.AddCommand(show)
	return cmd
}
