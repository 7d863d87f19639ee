package main

import (
	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newAccount() *cobra.Command {
	account := &cobra.Command{
		Use:   "account",
		Short: "Work with the accounts that export and collect write",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	account.AddCommand(&cobra.Command{
		Use:   "merge FILE...",
		Short: "Unite the accounts of several collectors",
		Long:  "merge unites the accounts of collectors that streams moved between, as with ECMP or\nDNS in front of them: an event is missing only if none of them received it. The\nunited account goes to standard output.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return app.MergeAccounts(args, streams())
		},
	})
	return account
}
