package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

func TestParseFilters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deny")
	if err := os.WriteFile(path, []byte("\n{\"namespace\":[\"kube-system\"]}\n\n{\"binary_regex\":[\"^/usr/bin/\"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ParseFilters(`{"event_set":["PROCESS_EXEC","PROCESS_EXIT"]} {"health_check":true}`, "@"+path,
		`{"event_set":["PROCESS_EXEC"],"fields":"process.exec_id,process.parent_exec_id","action":"INCLUDE"}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Allow) != 2 || len(f.Allow[0].EventSet) != 2 || !f.Allow[1].HealthCheck.GetValue() {
		t.Errorf("allow %v", f.Allow)
	}
	if len(f.Deny) != 2 || f.Deny[0].Namespace[0] != "kube-system" || f.Deny[1].BinaryRegex[0] != "^/usr/bin/" {
		t.Errorf("deny %v", f.Deny)
	}
	if len(f.Fields) != 1 || len(f.Fields[0].Fields.GetPaths()) != 2 || f.Fields[0].Action != tetragon.FieldFilterAction_INCLUDE {
		t.Errorf("fields %v", f.Fields)
	}
	if f, err := ParseFilters("", " \n", ""); err != nil || !f.empty() {
		t.Errorf("nothing: %v, %v", f, err)
	}
}

func TestBadFilters(t *testing.T) {
	f := func(allow string, want ...string) {
		t.Helper()
		_, err := ParseFilters(allow, "", "")
		for _, w := range append(want, "allow list") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%q: error %v, want it to say %q", allow, err, w)
			}
		}
	}
	f(`{"event_set":["PROCESS_EXEC"]}`+"\n"+`{"event_sets":[]}`, "line 2", "event_sets")
	f("{}\n\n{\"event_set\":[\"NO_SUCH\"]}", "line 3", "NO_SUCH")
	f("{}\n{\"namespace\":", "line 2")
	f("[]", "line 1")
	f("kube-system", "line 1")
	f("@/no/such/file", "/no/such/file")
}
