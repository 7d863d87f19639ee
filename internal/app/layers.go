package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"tetracast/internal/readfile"
)

// envPrefix begins the name of every environment variable that sets a flag:
// --udp-destination is TETRACAST_UDP_DESTINATION.
const envPrefix = "TETRACAST_"

// DefaultConfig is the configuration file that is read where none is named, if it is
// there.
const DefaultConfig = "/etc/tetracast/tetracast.yaml"

// dropIns is what follows the name of the configuration file in the name of the
// folder whose files, *.yaml in the order of their names, win over it and over those
// before.
const dropIns = ".d"

// maxConfigBytes is the longest a configuration file may be.
const maxConfigBytes = 1 << 20

// File is what the configuration files say: for each command a section, in it its
// flags by name.
//
//	export:
//	  udp-destination: [collector.example:7514]
//	  flush-interval: 5ms
type File map[string]map[string]Setting

// Setting is the value of a flag in a configuration file.
type Setting struct {
	Value any
	Path  string // of the file that says so
}

// ReadFiles reads the configuration file at path and its drop-in files, and holds
// their sections and keys against the flags of the commands. An unknown section or
// key is an error that names the nearest known one; what a section has whose command
// has nil for flags, as it is another program's, is not looked at. An empty path is
// DefaultConfig, which need not be there.
func ReadFiles(path string, commands map[string]*pflag.FlagSet) (File, error) {
	paths := []string{path}
	if path == "" {
		path, paths = DefaultConfig, nil
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			paths = []string{path}
		}
	}
	others, err := filepath.Glob(filepath.Join(path+dropIns, "*.yaml"))
	if err != nil {
		return nil, Usage(fmt.Errorf("app: looking for files beside %s: %w", path, err), "--config names a YAML file that can be read")
	}
	all := File{}
	for _, path := range append(paths, others...) {
		if err := all.read(path, commands); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// read adds what one file says.
func (f File) read(path string, commands map[string]*pflag.FlagSet) error {
	text, err := readfile.Max(path, maxConfigBytes)
	if err != nil {
		return Usage(fmt.Errorf("app: reading the configuration file: %w", err), "--config names a YAML file that can be read")
	}
	var sections map[string]map[string]any
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err = decoder.Decode(&sections)
	if err == nil {
		if err = decoder.Decode(&yaml.Node{}); err == nil {
			err = errors.New("a second document begins (---), of which nothing would be read")
		}
	}
	if err != io.EOF {
		return Usage(fmt.Errorf("app: reading the configuration file %s: %w", path, err),
			"the file has one section for each command, with its flags as keys: export: {udp-destination: [host:port]}")
	}
	for section, keys := range sections {
		flags, ok := commands[section]
		if !ok {
			return Usage(fmt.Errorf("app: configuration file %s: unknown section %q", path, section),
				didYouMean(section, sortedKeys(commands)))
		}
		if flags == nil {
			continue
		}
		if f[section] == nil {
			f[section] = map[string]Setting{}
		}
		for key, value := range keys {
			if flags.Lookup(key) == nil {
				return Usage(fmt.Errorf("app: configuration file %s: section %s: unknown key %q", path, section, key),
					didYouMean(key, flagNames(flags)))
			}
			f[section][key] = Setting{value, path}
		}
	}
	return nil
}

// Origins says of flags that do not have their defaults where their values come
// from.
type Origins map[string]string

// FromCommandLine is the origin of a flag that was given.
const FromCommandLine = "command line"

// Layer gives each flag that the command line did not set its value from the
// environment or else from the files' section, if they have one.
func Layer(flags *pflag.FlagSet, lookupEnv func(string) (string, bool), section map[string]Setting) (Origins, error) {
	origins := Origins{}
	var firstErr error
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed {
			origins[flag.Name] = FromCommandLine
			return
		}
		if firstErr != nil {
			return
		}
		variable := envPrefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		if value, ok := lookupEnv(variable); ok {
			if err := flags.Set(flag.Name, value); err != nil {
				firstErr = Usage(fmt.Errorf("app: environment variable %s=%q: %w", variable, value, err), flag.Usage)
			}
			origins[flag.Name] = variable
			return
		}
		if s, ok := section[flag.Name]; ok {
			if err := setFromFile(flags, flag, s.Value); err != nil {
				firstErr = Usage(fmt.Errorf("app: configuration file %s: %s: %w", s.Path, flag.Name, err), flag.Usage)
			}
			origins[flag.Name] = s.Path
		}
	})
	return origins, firstErr
}

// setFromFile sets a flag from a YAML value: a scalar, or a list of them for a
// flag that can be repeated.
func setFromFile(flags *pflag.FlagSet, flag *pflag.Flag, value any) error {
	list, ok := value.([]any)
	if !ok {
		if _, nested := value.(map[string]any); nested || value == nil {
			return fmt.Errorf("want a plain value, not %v", value)
		}
		return flags.Set(flag.Name, fmt.Sprint(value))
	}
	slice, ok := flag.Value.(pflag.SliceValue)
	if !ok {
		return fmt.Errorf("want one value, not a list of %d", len(list))
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = fmt.Sprint(v)
	}
	flag.Changed = true
	return slice.Replace(texts)
}

func flagNames(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(flag *pflag.Flag) { names = append(names, flag.Name) })
	return names
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// didYouMean returns a hint that names the candidate nearest to name, or all of
// them if none is near.
func didYouMean(name string, candidates []string) string {
	if near, ok := nearest(name, candidates); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "known: " + strings.Join(candidates, ", ")
}

// nearest returns the candidate that a third of the name's bytes, or one, would
// have to change for.
func nearest(name string, candidates []string) (near string, ok bool) {
	distance := max(1, len(name)/3)
	for _, c := range candidates {
		if d := editDistance(name, c); d <= distance {
			near, distance, ok = c, d-1, true
		}
	}
	return near, ok
}

// DidYouMean returns a hint that names the flag nearest to name, and nothing if
// none is near.
func DidYouMean(flags *pflag.FlagSet, name string) string {
	if near, ok := nearest(name, flagNames(flags)); ok {
		return fmt.Sprintf("did you mean --%s? ", near)
	}
	return ""
}

// editDistance is the least number of bytes to insert, delete or replace
// (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
