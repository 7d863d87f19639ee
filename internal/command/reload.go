package command

import (
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tetracast/internal/app"
)

// layers is what a layered command's context holds under layeredKey.
type layers struct {
	origins  app.Origins
	commands []*cobra.Command
}

type layeredKey struct{}

// Reloader returns what reads the configuration of a running command again: what the
// command line set stays; environment and files are layered under it anew.
func Reloader[C any](cmd *cobra.Command, declare func(*C, *pflag.FlagSet)) func() (app.Reloaded[C], error) {
	l, _ := cmd.Context().Value(layeredKey{}).(layers)
	now := map[string]string{} // the values in force
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { now[f.Name] = f.Value.String() })
	return func() (app.Reloaded[C], error) {
		var next app.Reloaded[C]
		flags := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
		declare(&next.Config, flags)
		var err error
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if l.origins[f.Name] == app.FromCommandLine && err == nil {
				err = copyFlag(flags, f)
			}
		})
		if err != nil {
			return next, err
		}
		section, err := readSection(cmd, l.commands)
		if err != nil {
			return next, err
		}
		if _, err := app.Layer(flags, os.LookupEnv, section); err != nil {
			return next, err
		}
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Value.String() != now[f.Name] {
				next.Changed = append(next.Changed, f.Name)
			}
		})
		next.Keep = func(names []string) {
			flags.VisitAll(func(f *pflag.Flag) {
				if slices.Contains(names, f.Name) {
					now[f.Name] = f.Value.String()
				}
			})
		}
		return next, nil
	}
}

// copyFlag gives the flag of the same name the same value.
func copyFlag(flags *pflag.FlagSet, from *pflag.Flag) error {
	to := flags.Lookup(from.Name)
	if list, ok := from.Value.(pflag.SliceValue); ok {
		to.Changed = true
		return to.Value.(pflag.SliceValue).Replace(list.GetSlice())
	}
	return flags.Set(from.Name, from.Value.String())
}
