package main

import (
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"tetracast/internal/app"
)

func newDictionary() *cobra.Command {
	dictionary := &cobra.Command{
		Use:   "dictionary",
		Short: "Make dictionaries that frames are compressed with",
		Long: "dictionary train RECORDING... makes a dictionary of recorded events. Events that are like them take fewer bytes " +
			"in frames that are compressed with it. Give it to the collectors first, then to the agents.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var config app.TrainConfig
	train := &cobra.Command{
		Use:   "train RECORDING...",
		Short: "Make a dictionary of recorded events",
		Args:  arguments(1, math.MaxInt, "RECORDING"),
		RunE: func(_ *cobra.Command, args []string) error {
			config.Recordings = args
			return app.Train(config, streams())
		},
	}
	config.AddFlags(train.Flags())
	dictionary.AddCommand(train)
	return dictionary
}

// arguments wants some arguments of that name.
func arguments(least, most int, name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return app.Usage(fmt.Errorf("%d arguments for %s", len(args), cmd.CommandPath()), fmt.Sprintf("usage: %s, where %s is a file", cmd.UseLine(), name))
		}
		return nil
	}
}
