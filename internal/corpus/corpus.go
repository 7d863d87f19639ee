// Package corpus holds recorded events of a real Tetragon, on which the demo
// and the tests run.
//
// The sample is built into the binary: 683 events of Tetragon v1.7.0, chosen so
// that every kind, hook, size class and odd content is there, each preceded by
// its length as a varint, compressed with gzip. Beside it stand the answers
// that the same Tetragon gave to GetVersion, GetInfo, GetHealth and
// ListTracingPolicies. Larger recordings are not part of the repository; [Path]
// finds them where they are.
package corpus

import (
	_ "embed" // for the files below
	"os"
	"path/filepath"
)

// The answers of the recorded Tetragon, as protojson writes them.
var (
	//go:embed version.json
	Version []byte // GetVersionResponse
	//go:embed info.json
	Info []byte // GetInfoResponse
	//go:embed health.json
	Health []byte // GetHealthStatusResponse
	//go:embed tracingpolicies-b.json
	TracingPolicies []byte // ListTracingPoliciesResponse
)

//go:embed sample.binpb.gz
var sample []byte

// SampleEvents is the number of events in [Sample].
const SampleEvents = 683

// Sample returns the built-in recording. The caller must not change it.
func Sample() []byte { return sample }

// Path returns where the file of that name of the large corpus is: in the
// folder that TETRACAST_CORPUS names, or else in shared/corpus beside the
// module that the working directory is in. It returns false if there is none.
func Path(name string) (string, bool) {
	folder := os.Getenv("TETRACAST_CORPUS")
	if folder == "" {
		folder = filepath.Join(moduleRoot(), "..", "shared", "corpus")
	}
	path := filepath.Join(folder, name)
	if _, err := os.Stat(path); err != nil {
		return "", false
	}
	return path, true
}

// moduleRoot returns the nearest folder upwards that has a go.mod.
func moduleRoot() string {
	folder, err := os.Getwd()
	if err != nil {
		return "."
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "."
		}
		folder = parent
	}
}
