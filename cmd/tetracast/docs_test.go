package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

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
		"standard error. `--config FILE` names a YAML file with a section for each command; the environment wins over it, and the\n" +
		"command line over both.\n")
	for _, cmd := range newRoot().Commands() {
		fmt.Fprintf(&page, "\n## %s\n\n%s\n", cmd.Name(), strings.ReplaceAll(first(cmd.Long, cmd.Short+"."), "\n", " "))
		flags := cmd.LocalNonPersistentFlags()
		if !flags.HasFlags() {
			continue
		}
		page.WriteString("\n| flag | environment | default | what |\n|---|---|---|---|\n")
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			value := f.DefValue
			if value == "" || value == "[]" {
				value = "-"
			}
			fmt.Fprintf(&page, "| `--%s` | `TETRACAST_%s` | %s | %s |\n", f.Name,
				strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), value, strings.ReplaceAll(f.Usage, "|", `\|`))
		})
	}
	return page.String()
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
