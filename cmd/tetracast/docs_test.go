package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestCommandsPage holds docs/commands.md to the flags and their defaults in
// the code, of which it is made.
func TestCommandsPage(t *testing.T) {
	const path = "../../docs/commands.md"
	page := commandsPage()
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != page {
		t.Errorf("%s is not what the commands say; go test ./cmd/tetracast -update writes it anew", path)
	}
}

func commandsPage() string {
	var page strings.Builder
	page.WriteString("# Commands\n\nMade from the commands themselves; a test keeps it so.\n\n" +
		"Exit codes: 0 done, 1 failed, 2 wrong usage. Standard output carries data only; logs, accounts and errors go to\n" +
		"standard error. `--config FILE` names a YAML file with a section for each command, else `/etc/tetracast/tetracast.yaml` is\n" +
		"read if it is there; then the files `*.yaml` in the folder of its name and `.d`, in order. The environment wins over the files, and the\n" +
		"command line over both. `config print COMMAND` shows each value and where it comes from.\n")
	describe(&page, "##", newRoot())
	return page.String()
}

// describe writes the commands under parent, and those under them.
func describe(page *strings.Builder, heading string, parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		if cmd.Hidden || parent.Name() == "print" { // whose flags are those of the commands themselves
			continue
		}
		name := strings.TrimPrefix(cmd.CommandPath(), "tetracast ")
		fmt.Fprintf(page, "\n%s %s\n\n%s\n", heading, name, strings.ReplaceAll(first(cmd.Long, cmd.Short+"."), "\n", " "))
		describeFlags(page, cmd)
		describe(page, heading+"#", cmd)
	}
}

// describeFlags writes the table of a command's flags. Only the commands that
// have a section in the configuration file are layered over the environment.
func describeFlags(page *strings.Builder, cmd *cobra.Command) {
	flags := cmd.LocalNonPersistentFlags()
	if !flags.HasFlags() {
		return
	}
	layered := cmd.PreRunE != nil
	if layered {
		page.WriteString("\n| flag | environment | default | what |\n|---|---|---|---|\n")
	} else {
		page.WriteString("\n| flag | default | what |\n|---|---|---|\n")
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		value := f.DefValue
		if value == "" || value == "[]" {
			value = "-"
		}
		fmt.Fprintf(page, "| `--%s` ", f.Name)
		if layered {
			fmt.Fprintf(page, "| `TETRACAST_%s` ", strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
		}
		fmt.Fprintf(page, "| %s | %s |\n", value, strings.ReplaceAll(f.Usage, "|", `\|`))
	})
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
