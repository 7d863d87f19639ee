// Package tetracast_test keeps what holds for the tree as a whole: which room
// may import which, and that every package says what it is.
package tetracast_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Groups of imports that are named in the table.
const (
	std         = "std" // the standard library
	unix        = "golang.org/x/sys/unix"
	tetragonAPI = "github.com/cilium/tetragon/api/v1/tetragon"
	grpc        = "google.golang.org/grpc/"     // and below
	protobuf    = "google.golang.org/protobuf/" // and below
	http2       = "golang.org/x/net/http2/"     // and below
	compression = "github.com/klauspost/compress/"
	nats        = "github.com/nats-io/" // and below
	everything  = "*"
)

// imports is the table of docs/architecture.md: what each folder may import,
// beside its own sub-packages. The folders stand in the order of an event's
// life, and none imports one that comes later.
var imports = []struct {
	folder string
	may    []string
}{
	{"internal/printable", []string{std}},
	{"internal/readfile", []string{std}},
	{"transcode", []string{std, protobuf + "reflect/"}},
	{"metadata", []string{std}},
	{"metadata/natsstore", []string{std, nats, "tetracast/metadata"}},
	{"datagram", []string{std, "tetracast/transcode", compression}},
	{"ledger", []string{std, "tetracast/internal/printable"}},
	{"internal/corpus", []string{std}},
	{"internal/udp", []string{std, unix}},
	{"internal/udp/netns", []string{std, unix}},
	{"internal/udp/impair", []string{std, "tetracast/internal/udp"}},
	{"exporter", []string{std, unix, tetragonAPI, grpc, protobuf, "tetracast/transcode", "tetracast/metadata", "tetracast/datagram", "tetracast/ledger", "tetracast/internal/udp"}},
	{"internal/source", []string{std, unix, tetragonAPI, grpc, protobuf, http2, compression, "tetracast/internal/corpus", "tetracast/internal/readfile"}},
	{"internal/source/line", []string{std}},
	{"internal/source/filetail", []string{std, unix, "tetracast/internal/source/line"}},
	{"internal/upstream", []string{std}},
	{"internal/replay", []string{std, unix, tetragonAPI, grpc, protobuf, "tetracast/internal/corpus", "tetracast/internal/source"}},
	{"internal/sink", []string{std, unix, compression}},
	{"internal/sink/compact", []string{std, tetragonAPI, protobuf, "tetracast/internal/printable", "tetracast/internal/sink", "tetracast/metadata"}},
	{"internal/collector", []string{std, "tetracast/transcode", "tetracast/metadata", "tetracast/datagram", "tetracast/ledger", "tetracast/internal/udp", "tetracast/internal/sink"}},
	{"internal/metrics", []string{std, "tetracast/internal/printable", "github.com/prometheus/client_golang/", "tetracast/exporter", "tetracast/ledger", "tetracast/metadata", "tetracast/internal/source", "tetracast/internal/udp", "tetracast/internal/collector", "tetracast/internal/sink"}},
	{"internal/bench", []string{everything}},
	{"internal/doctor", []string{std, "tetracast/internal/printable", "tetracast/exporter", "tetracast/internal/collector", "tetracast/internal/source", "tetracast/internal/source/filetail", "tetracast/internal/upstream"}},
	{"internal/app", []string{everything}},
	{"internal/command", []string{std, "tetracast/internal/app", "github.com/spf13/cobra", "github.com/spf13/pflag"}},
	{"cmd/tetracast", []string{std, "tetracast/internal/app", "tetracast/internal/app/share", "tetracast/internal/command", "github.com/spf13/cobra"}},
	{"cmd/tetracast-agent", []string{std, "tetracast/internal/command", "github.com/spf13/cobra"}},
}

// TestImports holds every file that is not a test to the table.
func TestImports(t *testing.T) {
	for folder, files := range packages(t) {
		may := allowed(folder)
		if may == nil {
			t.Errorf("%s: the folder is not in the table of imports", folder)
			continue
		}
		for _, file := range files {
			for _, spec := range file.Imports {
				name := strings.Trim(spec.Path.Value, `"`)
				if strings.HasPrefix(name, "tetracast/internal/app") && !strings.HasPrefix(folder, "cmd/") && folder != "internal/command" && folder != "internal/app/share" {
					t.Errorf("%s imports %s: only the commands may", folder, name)
				}
				if !permits(may, folder, name) {
					t.Errorf("%s imports %s, which the table does not allow", folder, name)
				}
			}
		}
	}
}

// TestPackageDocs wants a package comment of more than a line from every
// package.
func TestPackageDocs(t *testing.T) {
	for folder, files := range packages(t) {
		doc := ""
		for _, file := range files {
			if file.Doc != nil {
				doc += file.Doc.Text()
			}
		}
		want := "Package " + path.Base(folder) + " "
		if files[0].Name.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(strings.TrimSpace(doc), want) || len(doc) < 100 {
			t.Errorf("%s: the package comment has to begin with %q and teach something", folder, want)
		}
	}
}

// TestDependencies keeps the root module's direct dependencies few.
func TestDependencies(t *testing.T) {
	const limit = 13
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "\t") && !strings.Contains(line, "// indirect") {
			direct = append(direct, strings.TrimSpace(line))
		}
	}
	if len(direct) == 0 || len(direct) > limit {
		t.Errorf("%d direct dependencies, want 1 to %d:\n%s", len(direct), limit, strings.Join(direct, "\n"))
	}
}

// allowed returns the entry of the folder or of its nearest parent that has
// one.
func allowed(folder string) []string {
	for ; folder != "."; folder = path.Dir(folder) {
		for _, entry := range imports {
			if entry.folder == folder {
				return entry.may
			}
		}
	}
	return nil
}

func permits(may []string, folder, name string) bool {
	if slices.Contains(may, everything) || strings.HasPrefix(name, "tetracast/"+folder+"/") {
		return true
	}
	if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") && first != "tetracast" {
		return slices.Contains(may, std)
	}
	for _, m := range may {
		if name == m || strings.HasSuffix(m, "/") && strings.HasPrefix(name+"/", m) {
			return true
		}
	}
	return false
}

// packages parses the module's files that are not tests, by folder.
func packages(t *testing.T) map[string][]*ast.File {
	t.Helper()
	found := map[string][]*ast.File{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, moduleErr := os.Stat(filepath.Join(name, "go.mod"))
			hidden := name != "." && strings.HasPrefix(entry.Name(), ".")
			if hidden || entry.Name() == "testdata" || name != "." && moduleErr == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(filepath.Dir(name))
		found[folder] = append(found[folder], file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 5 {
		t.Fatalf("found %d packages: this test does not run at the module's root", len(found))
	}
	return found
}
