// Command tetracast takes the events of Tetragon and the metadata of the agent
// and sends them over UDP; it also collects, replays, decodes and demonstrates.
//
// Each command is a file here, which declares its flags; what it does is in
// internal/app. Standard output carries data only; logs, accounts and errors
// go to standard error. The exit code is 0 for done, 1 for failed and 2 for
// wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tetracast/internal/app"
)

func main() {
	// The first signal ends the command in good order. After it the default
	// action is back, so a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := newRoot().ExecuteContext(ctx)
	os.Exit(app.Report(os.Stderr, err))
}

// newRoot returns the command tree.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tetracast",
		Short: "Tetragon's events over UDP, every loss counted",
		Long: "tetracast sends the events of Tetragon and the metadata of the agent over UDP, at\n" +
			"next to no CPU, and counts every event that got lost.\n\n" +
			"A flag can also be set by an environment variable, --udp-destination by\n" +
			"TETRACAST_UDP_DESTINATION, or in a YAML file, in a section named for the command:\n" +
			"the one given with --config, or /etc/tetracast/tetracast.yaml. Files in the folder\n" +
			"of its name and .d win over it. The command line wins over the environment, and the\n" +
			"environment over the files. config print shows what comes from where.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.PersistentFlags().String("config", "", "YAML file with a section for each command; empty: "+app.DefaultConfig+", if it is there")
	root.SetFlagErrorFunc(flagError)
	commands := layered()
	for _, c := range commands {
		c.Args = noArguments
		c.PreRunE = func(cmd *cobra.Command, _ []string) error {
			_, err := layer(cmd, commands)
			return err
		}
	}
	root.AddCommand(commands...)
	root.AddCommand(newAccount(), newBench(), newConfig(layered), newDictionary(), newKey(), newVersion())
	return root
}

// layered returns the commands that have a section in the configuration files.
func layered() []*cobra.Command {
	return []*cobra.Command{newExport(), newCollect(), newReplay(), newDecode(), newDemo()}
}

// layer fills the flags that the command line did not set.
func layer(cmd *cobra.Command, commands []*cobra.Command) (app.Origins, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	if fromEnv, ok := os.LookupEnv("TETRACAST_CONFIG"); ok && path == "" {
		path = fromEnv
	}
	sections := map[string]*pflag.FlagSet{}
	for _, c := range commands {
		sections[c.Name()] = c.LocalNonPersistentFlags()
	}
	file, err := app.ReadFiles(path, sections)
	if err != nil {
		return nil, err
	}
	return app.Layer(cmd.LocalNonPersistentFlags(), os.LookupEnv, file[cmd.Name()])
}

// flagError adds the nearest flag, or the way to the help, to what pflag says.
func flagError(cmd *cobra.Command, err error) error {
	hint := fmt.Sprintf("%s --help lists the flags", cmd.CommandPath())
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		hint = app.DidYouMean(cmd.Flags(), unknown.GetSpecifiedName()) + hint
	}
	return app.Usage(err, hint)
}

// noArguments refuses what is no flag, and names the command that may have been
// meant.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("%s --help says what it takes", cmd.CommandPath())
	if suggestions := cmd.SuggestionsFor(args[0]); len(suggestions) > 0 {
		hint = "did you mean " + strings.Join(suggestions, " or ") + "?"
	}
	return app.Usage(fmt.Errorf("unknown command or argument %q for %s", args[0], cmd.CommandPath()), hint)
}

// streams returns the process's own.
func streams() app.Streams { return app.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }
