// Package command is what the programs of this module share of their command lines:
// how flags, environment and file are layered, how an error becomes a line and an
// exit code, and the commands that more than one program has. What a command does
// is in internal/app.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tetracast/internal/app"
)

// Main runs the program that newRoot makes and returns its exit code. The first signal
// ends the command in good order; another one, later, ends the process at once.
func Main(newRoot func() *cobra.Command) int {
	ctx, hangUp := catchSignals()
	root := newRoot()
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if cmd.Annotations[reloadsKey] == "" {
			hangUp()
		}
	}
	return app.Report(os.Stderr, root.ExecuteContext(ctx))
}

// whereFrom explains where a flag's value can come from.
const whereFrom = "A flag can also be set by an environment variable, --udp-destination by\n" +
	"TETRACAST_UDP_DESTINATION, or in a YAML file, in a section named for the command:\n" +
	"the one given with --config, or /etc/tetracast/tetracast.yaml. Files in the folder\n" +
	"of its name and .d win over it. The command line wins over the environment, and the\n" +
	"environment over the files. config print shows what comes from where."

// NewRoot returns a program with the commands: those that layered makes also take
// their flags from the environment and from files.
func NewRoot(name, short, long string, layered func() []*cobra.Command, others ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:           name,
		Short:         short,
		Long:          long + "\n\n" + whereFrom,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          NoArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.PersistentFlags().String("config", "", "YAML file with a section for each command; empty: "+app.DefaultConfig+", if it is there")
	root.SetFlagErrorFunc(flagError)
	commands := layered()
	for _, c := range commands {
		c.Args = NoArguments
		c.PreRunE = func(cmd *cobra.Command, _ []string) error {
			origins, err := layer(cmd, commands)
			cmd.SetContext(context.WithValue(cmd.Context(), layeredKey{}, layers{origins, commands}))
			return err
		}
	}
	root.AddCommand(commands...)
	root.AddCommand(newConfig(layered))
	root.AddCommand(others...)
	return root
}

// layer fills the flags that the command line did not set.
func layer(cmd *cobra.Command, commands []*cobra.Command) (app.Origins, error) {
	section, err := readSection(cmd, commands)
	if err != nil {
		return nil, err
	}
	return app.Layer(cmd.LocalNonPersistentFlags(), os.LookupEnv, section)
}

// programs are the sections that some program of this module has: several programs of
// a host may share a file.
var programs = []string{"export", "collect", "replay", "decode", "demo"}

// readSection reads the command's section of the configuration files.
func readSection(cmd *cobra.Command, commands []*cobra.Command) (app.Section, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	if fromEnv, ok := os.LookupEnv("TETRACAST_CONFIG"); ok && path == "" {
		path = fromEnv
	}
	known, flags := slices.Clone(programs), cmd.LocalNonPersistentFlags()
	for _, c := range commands {
		if sectionOf(c) != c.Name() {
			continue
		}
		if !slices.Contains(known, c.Name()) {
			known = append(known, c.Name())
		}
		if c.Name() == sectionOf(cmd) {
			flags = c.LocalNonPersistentFlags() // that of a command which reads another's section
		}
	}
	return app.ReadFiles(path, sectionOf(cmd), flags, known)
}

// sectionKey is the annotation of a command that reads another one's section.
const sectionKey = "section"

// sectionOf returns the name of the section that a command reads.
func sectionOf(cmd *cobra.Command) string {
	return cmp.Or(cmd.Annotations[sectionKey], cmd.Name())
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

// NoArguments refuses what is no flag, and names the command that may have been
// meant.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("%s --help says what it takes", cmd.CommandPath())
	if suggestions := cmd.SuggestionsFor(args[0]); len(suggestions) > 0 {
		hint = "did you mean " + strings.Join(suggestions, " or ") + "?"
	}
	return app.Usage(fmt.Errorf("unknown command or argument %q for %s", args[0], cmd.CommandPath()), hint)
}

// Streams returns the process's own.
func Streams() app.Streams { return app.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }
