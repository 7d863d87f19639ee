package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newKey() *cobra.Command {
	key := &cobra.Command{
		Use:   "key",
		Short: "Make keys that frames are sealed with",
		Long:  "key new FILE makes a file with a random key, which export and collect take with --key-file. Only its owner may read it, and it is never overwritten.",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	key.AddCommand(&cobra.Command{
		Use:   "new FILE",
		Short: "Write a random key to a new file of mode 600",
		Args:  arguments(1, 1, "FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return app.NewKey(args[0], streams()) },
	})
	return key
}
