package source

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestTetragonConfig: the filters are read from wherever Tetragon reads its own flags,
// and what comes later there wins here.
func TestTetragonConfig(t *testing.T) {
	decode := func(text []byte) (values map[string]any, err error) { return values, yaml.Unmarshal(text, &values) }
	const exec, kprobe = `{"event_set":["PROCESS_EXEC"]}`, `{"event_set":["PROCESS_KPROBE"]}`
	// As a package of Tetragon has it, with a list of two filters in quotes.
	const packaged = "bpf-lib: /var/lib/tetragon/\nenable-export-aggregation: false\n" +
		"export-allowlist: '" + exec + "\n" + kprobe + "'\nexport-denylist:\nexport-filename: /var/log/tetragon/tetragon.log\n"
	f := func(files map[string]string, allow, deny int, wantError string) {
		t.Helper()
		folder := t.TempDir()
		for name, text := range files {
			path := filepath.Join(folder, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var filters Filters
		conf, err := readTetragonConfig(folder, decode)
		if err == nil {
			filters, err = filtersFromConfig(conf)
		}
		if wantError != "" {
			if err == nil || !strings.Contains(err.Error(), wantError) {
				t.Errorf("%v: %v, want %s", files, err, wantError)
			}
			return
		}
		if err != nil || len(filters.Allow) != allow || len(filters.Deny) != deny {
			t.Errorf("%v: %d allowed, %d denied, %v; want %d, %d", files, len(filters.Allow), len(filters.Deny), err, allow, deny)
		}
	}
	with := func(files map[string]string) map[string]string {
		all := map[string]string{"tetragon.yaml": packaged}
		maps.Copy(all, files)
		return all
	}
	f(with(nil), 2, 0, "")
	f(map[string]string{"tetragon.yaml": "export-denylist: |-\n  " + exec + "\n  " + kprobe + "\n"}, 0, 2, "")
	f(with(map[string]string{"tetragon.conf.d/export-allowlist": exec}), 1, 0, "")
	f(with(map[string]string{"tetragon.conf.d/export-allowlist": exec, "export-allowlist": exec + exec + exec}), 3, 0, "")
	f(with(map[string]string{"tetragon.conf.d/export-allowlist": ""}), 0, 0, "")
	f(map[string]string{"export-denylist": exec}, 0, 1, "")
	f(map[string]string{"server-address": "x"}, 0, 0, "")
	f(map[string]string{"tetragon.yaml": "server-address: x\n"}, 0, 0, "")
	f(nil, 0, 0, "neither tetragon.yaml")
	f(map[string]string{"notes.txt": "x"}, 0, 0, "neither tetragon.yaml")
	f(map[string]string{"tetragon.yaml": "export-allowlist: [" + exec + "]\n"}, 0, 0, "want a text")
	f(map[string]string{"tetragon.yaml": "a: [\n"}, 0, 0, "tetragon.yaml")
	f(map[string]string{"tetragon.yaml": "export-allowlist: '{\"no_such\":1}'\n"}, 0, 0, "no_such")
	if _, err := readTetragonConfig("/nonexistent", decode); err == nil {
		t.Error("no error for a folder that is not there")
	}
}
