package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newKey() *cobra.Command {
	key := &cobra.Command{
		Use:   "key",
		Short: "Make keys that frames are sealed with",
		Long:  "key new FILE makes a file with a random key, which export and collect take with --key-file. Only its owner may read it, and it is never overwritten. key derive makes the key of one host from a master key that only collectors have: its holder can speak for this host alone.",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	key.AddCommand(&cobra.Command{
		Use:   "new FILE",
		Short: "Write a random key to a new file of mode 600",
		Args:  arguments(1, 1, "FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return app.NewKey(args[0], streams()) },
	})
	derive := &cobra.Command{
		Use:   "derive --host NAME MASTER FILE",
		Short: "Write the key of a host, derived from a master key, to a new file of mode 600",
		Args:  arguments(2, 2, "--host NAME MASTER FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := cmd.Flags().GetString("host")
			if err != nil {
				return err
			}
			return app.DeriveKey(args[0], host, args[1], streams())
		},
	}
	derive.Flags().String("host", "", "name of the host, as its agent_init states it: NODE_NAME, or its own name")
	key.AddCommand(derive)
	return key
}
