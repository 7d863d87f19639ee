// Command tetracast takes the events of Tetragon and the metadata of the agent
// and sends them over UDP; it also collects, replays, decodes and demonstrates.
//
// Each command is a file here, which declares its flags; what it does is in
// internal/app. Standard output carries data only; logs, accounts and errors
// go to standard error. The exit code is 0 for done, 1 for failed and 2 for
// wrong usage.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"tetracast/internal/command"
)

func main() { os.Exit(command.Main(newRoot)) }

// What the commands here use of their common ground.
var (
	noArguments = command.NoArguments
	streams     = command.Streams
)

// newRoot returns the command tree.
func newRoot() *cobra.Command {
	return command.NewRoot("tetracast", "Tetragon's events over UDP, every loss counted",
		"tetracast sends the events of Tetragon and the metadata of the agent over UDP, at\n"+
			"next to no CPU, and counts every event that got lost.",
		func() []*cobra.Command {
			return []*cobra.Command{command.NewExport(), command.NewDoctor(), newCollect(), newReplay(), newDecode(), newDemo()}
		},
		newAccount(), newBench(), newDictionary(), newKey(), command.NewVersion())
}
