package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestSections: what is wrong in the section of one command keeps only that one from
// starting, whatever it is: services share the file.
func TestSections(t *testing.T) {
	commands := []string{"collect", "demo", "export"}
	read := func(text, command string) (Section, error) {
		path := filepath.Join(t.TempDir(), "tetracast.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet(command, pflag.ContinueOnError)
		flags.String("listen", "", "")
		flags.String("udp-destination", "", "")
		return ReadFiles(path, command, flags, commands)
	}
	for _, file := range []struct {
		what, text string
		export     string // what its error says; empty: it reads all of it
		collect    string
	}{
		{"all is well", "export:\n  udp-destination: a\ncollect:\n  listen: b\n", "", ""},
		{"a section twice", "export:\n  udp-destination: a\ncollect:\n  listen: b\nexport:\n  listen: c\n", `line 5: a second section "export", the first is in line 1`, ""},
		{"a key twice", "collect:\n  listen: b\nexport:\n  udp-destination: a\n  udp-destination: c\n", `"udp-destination" already defined`, ""},
		{"an unknown key", "collect:\n  listen: b\nexport:\n  udp-destinatoin: a\n", "udp-destinatoin", ""},
		{"no keys but a text", "collect:\n  listen: b\nexport: off\n", "section export", ""},
		{"no YAML", "collect:\n  listen: b\nexport:\n  udp-destination: [a\n", "line", ""},
		{"no YAML, before the other", "export:\n  udp-destination: [a\n\n# of collect\ncollect:\n  listen: b\n", "line", ""},
		{"a tab", "export:\n\tudp-destination: a\ncollect:\n  listen: b\n", "line", ""},
		{"a name misspelt", "exprt:\n  udp-destination: a\ncollect:\n  listen: b\n", `unknown section "exprt"`, ""},
		{"nobody's section", "collect:\n  listen: b\nexport:\n  udp-destination: a\nfluffy: {}\n", "fluffy", "fluffy"},
		{"a list", "- collect\n", "want sections", "want sections"},
		{"shared keys", "collect: &all\n  listen: b\nexport: *all\n", "", ""},
	} {
		for command, want := range map[string]string{"export": file.export, "collect": file.collect} {
			section, err := read(file.text, command)
			switch {
			case want == "" && err != nil:
				t.Errorf("%s: %s fails: %v", file.what, command, err)
			case want == "" && len(section) != 1:
				t.Errorf("%s: %s reads %v", file.what, command, section)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: %s: %v, want %q", file.what, command, err, want)
			}
		}
	}
	for _, text := range []string{"", "# nothing\n", "export:\n", "collect:\n  listen: b\n"} {
		if section, err := read(text, "export"); err != nil || len(section) > 0 {
			t.Errorf("%q: %v, %v", text, section, err)
		}
	}
}
