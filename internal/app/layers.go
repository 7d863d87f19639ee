package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
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

// Section is what the configuration files say for one command: its flags by name.
//
//	export:
//	  udp-destination: [collector.example:7514]
//	  flush-interval: 5ms
type Section map[string]Setting

// Setting is the value of a flag in a configuration file.
type Setting struct {
	Value any
	Path  string // of the file that says so
}

// ReadFiles reads a command's section from the configuration file at path and its
// drop-in files, and holds its keys against the command's flags. An unknown key, or a
// section that none of the commands has, is an error that names the nearest known one.
//
// What is wrong in the section of another command is that command's to tell: services
// share the file, and one does not stop the other. An empty path is DefaultConfig,
// which need not be there.
func ReadFiles(path, command string, flags *pflag.FlagSet, commands []string) (Section, error) {
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
	section := Section{}
	for _, path := range append(paths, others...) {
		if err := section.read(path, command, flags, commands); err != nil {
			return nil, err
		}
	}
	return section, nil
}

// read adds what one file says.
func (s Section) read(path, command string, flags *pflag.FlagSet, commands []string) error {
	text, err := readfile.Max(path, maxConfigBytes)
	if err != nil {
		return Usage(fmt.Errorf("app: reading the configuration file: %w", err), "--config names a YAML file that can be read")
	}
	found, err := sectionsOf(text, command)
	if err != nil {
		return Usage(fmt.Errorf("app: reading the configuration file %s: %w", path, err),
			"the file has one section for each command, with its flags as keys: export: {udp-destination: [host:port]}")
	}
	own := 0 // the line of the command's section
	for name, value := range pairs(found) {
		near, ok := nearest(name.Value, commands)
		switch {
		case name.Value != command && (slices.Contains(commands, name.Value) || ok && near != command):
			continue // another command's, or meant to be
		case name.Value != command:
			return Usage(fmt.Errorf("app: configuration file %s, line %d: unknown section %q", path, name.Line, name.Value),
				didYouMean(name.Value, commands))
		case own != 0:
			return Usage(fmt.Errorf("app: configuration file %s, line %d: a second section %q, the first is in line %d", path, name.Line, command, own),
				"put the keys of both under one "+command+":")
		}
		own = name.Line
		if err := s.add(path, command, value, flags); err != nil {
			return err
		}
	}
	return nil
}

// add takes over the keys of the command's section in a file.
func (s Section) add(path, command string, section *yaml.Node, flags *pflag.FlagSet) error {
	if section.Tag == "!!null" {
		return nil // nothing is set
	}
	if section.Kind == yaml.AliasNode {
		section = section.Alias
	}
	var keys map[string]any
	if err := section.Decode(&keys); err != nil {
		return Usage(fmt.Errorf("app: configuration file %s: section %s: %w", path, command, err), "a section has the command's flags as keys, each once")
	}
	for key, value := range keys {
		if flags.Lookup(key) == nil {
			return Usage(fmt.Errorf("app: configuration file %s: section %s: unknown key %q", path, command, key),
				didYouMean(key, flagNames(flags)))
		}
		s[key] = Setting{value, path}
	}
	return nil
}

// sectionsOf returns the mapping of sections in a file. Where the file as a whole is no
// YAML, it is that of the command's own section, if that part of the text is.
func sectionsOf(text []byte, command string) (*yaml.Node, error) {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&document)
	switch {
	case err == io.EOF: // nothing but comments
	case err != nil:
		if yaml.Unmarshal(ownLines(text, command), &document) != nil {
			return nil, err
		}
	case decoder.Decode(&yaml.Node{}) != io.EOF:
		return nil, errors.New("a second document begins (---), of which nothing would be read")
	}
	if len(document.Content) == 0 {
		return new(yaml.Node), nil // an empty file
	}
	if root := document.Content[0]; root.Kind == yaml.MappingNode {
		return root, nil
	}
	return nil, fmt.Errorf("line %d: want sections, such as \"export: {}\"", document.Content[0].Line)
}

// ownLines blanks all lines but those of a command's section: from its name at the
// beginning of a line to the next line that begins with something else.
func ownLines(text []byte, command string) (own []byte) {
	inside := false
	for line := range bytes.Lines(text) {
		if c := line[0]; c != ' ' && c != '\t' && c != '#' && c != '\n' && c != '\r' {
			inside = bytes.HasPrefix(line, []byte(command+":"))
		}
		if !inside {
			line = []byte{'\n'} // so that the lines keep their numbers
		}
		own = append(own, line...)
	}
	return own
}

// pairs goes through the keys and values of a mapping in their order.
func pairs(mapping *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			if !yield(mapping.Content[i], mapping.Content[i+1]) {
				return
			}
		}
	}
}

// Origins says of flags that do not have their defaults where their values come
// from.
type Origins map[string]string

// FromCommandLine is the origin of a flag that was given.
const FromCommandLine = "command line"

// Layer gives each flag that the command line did not set its value from the
// environment or else from the files' section, if they have one.
func Layer(flags *pflag.FlagSet, lookupEnv func(string) (string, bool), section Section) (Origins, error) {
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
