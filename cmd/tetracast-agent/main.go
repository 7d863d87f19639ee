// Command tetracast-agent is tetracast as it runs beside Tetragon on every node: it
// exports, and examines the host for that. What only a collector needs, a NATS server
// above all, is not in it.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"tetracast/internal/command"
)

func main() { os.Exit(command.Main(newRoot)) }

// newRoot returns the command tree.
func newRoot() *cobra.Command {
	return command.NewRoot("tetracast-agent", "Tetragon's events over UDP, every loss counted",
		"tetracast-agent sends the events of Tetragon and the metadata of the agent over\n"+
			"UDP, at next to no CPU. It is tetracast without the commands of a collector.",
		func() []*cobra.Command { return []*cobra.Command{command.NewExport(), command.NewDoctor()} }, command.NewVersion())
}
