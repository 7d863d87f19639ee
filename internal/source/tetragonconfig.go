package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"tetracast/internal/readfile"
)

// The places inside of Tetragon's configuration folder, cmd/tetragon/conf.go of v1.7.0:
// a file of YAML, and a folder with a file for each flag. The folder that Tetragon gets
// with --config-dir has such files itself.
const (
	configFile   = "tetragon.yaml"
	configDropIn = "tetragon.conf.d"
)

// errNoConfig: the folder is not one of Tetragon's.
var errNoConfig = errors.New("neither " + configFile + " nor files that are named for flags of Tetragon are there")

// known are flags that Tetragon's configurations have, by which one is recognised that
// sets no filter.
var known = []string{allowKey, denyKey, fieldsKey, "server-address", "export-filename", "metrics-server", "bpf-lib", "procfs", "log-level", "enable-k8s-api"}

// readTetragonConfig reads the filters among Tetragon's flags from its configuration
// folder, in Tetragon's order: what comes later wins. The YAML is decoded by the caller's
// function; nil: there is none to decode it.
func readTetragonConfig(folder string, decodeYAML func([]byte) (map[string]any, error)) (map[string]string, error) {
	conf, found := map[string]string{}, false
	text, err := readfile.Max(filepath.Join(folder, configFile), maxFilterFile)
	switch {
	case err == nil && decodeYAML != nil:
		found = true
		all, err := decodeYAML(text)
		if err != nil {
			return nil, fmt.Errorf("source: Tetragon's configuration %s: %w", filepath.Join(folder, configFile), err)
		}
		for _, key := range []string{allowKey, denyKey, fieldsKey} {
			switch value := all[key].(type) {
			case nil: // not set, or to nothing
			case string:
				conf[key] = value
			default:
				return nil, fmt.Errorf("source: Tetragon's configuration %s: %s is a %T, want a text", filepath.Join(folder, configFile), key, value)
			}
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("source: reading Tetragon's configuration: %w", err)
	}
	for _, files := range []string{filepath.Join(folder, configDropIn), folder} {
		for _, key := range known {
			text, err := readfile.Max(filepath.Join(files, key), maxFilterFile)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("source: reading Tetragon's configuration: %w", err)
			}
			found = true
			conf[key] = string(text)
		}
	}
	if !found {
		return nil, fmt.Errorf("source: Tetragon's configuration folder %s: %w", folder, errNoConfig)
	}
	return conf, nil
}
