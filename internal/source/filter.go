package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/readfile"
)

// Filters is what a subscription asks Tetragon to leave out or to put in, in
// Tetragon's own terms. The zero value asks for everything.
type Filters struct {
	Allow  []*tetragon.Filter
	Deny   []*tetragon.Filter
	Fields []*tetragon.FieldFilter
}

// empty says whether everything is asked for.
func (f Filters) empty() bool { return len(f.Allow)+len(f.Deny)+len(f.Fields) == 0 }

// ParseFilters reads filter lists in Tetragon's syntax: JSON objects one after
// the other, usually one a line, as --export-allowlist has them. A text that
// begins with @ names a file that holds them. The error names the list, the line
// and what is wrong there.
func ParseFilters(allow, deny, fields string) (Filters, error) {
	var f Filters
	return f, errors.Join(
		parseList("allow list", allow, func() proto.Message {
			f.Allow = append(f.Allow, new(tetragon.Filter))
			return f.Allow[len(f.Allow)-1]
		}),
		parseList("deny list", deny, func() proto.Message {
			f.Deny = append(f.Deny, new(tetragon.Filter))
			return f.Deny[len(f.Deny)-1]
		}),
		parseList("field filters", fields, func() proto.Message {
			f.Fields = append(f.Fields, new(tetragon.FieldFilter))
			return f.Fields[len(f.Fields)-1]
		}))
}

// maxFilterFile is the longest a file with filters may be, in bytes.
const maxFilterFile = 1 << 20

// parseList reads each object of a list into the message that next returns.
func parseList(list, text string, next func() proto.Message) error {
	if path, ok := strings.CutPrefix(text, "@"); ok {
		content, err := readfile.Max(path, maxFilterFile)
		if err != nil {
			return fmt.Errorf("source: %s: %w", list, err)
		}
		list, text = list+" "+path, string(content)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		start := decoder.InputOffset()
		var object json.RawMessage
		err := decoder.Decode(&object)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			start = decoder.InputOffset() - int64(len(object))
			err = unmarshalFilter(object, next())
		} else if rest := text[start:]; err != nil {
			start += int64(len(rest) - len(strings.TrimLeft(rest, " \t\r\n")))
		}
		if err != nil {
			return fmt.Errorf("source: %s, line %d: %w", list, 1+strings.Count(text[:start], "\n"), err)
		}
	}
}

// unmarshalFilter reads one filter. Tetragon writes the paths of a field filter
// as the fields are named in proto files, process.exec_id; protobuf's JSON wants
// them as process.execId (https://protobuf.dev/programming-guides/json).
func unmarshalFilter(object []byte, into proto.Message) error {
	if _, ok := into.(*tetragon.FieldFilter); ok {
		var members map[string]json.RawMessage
		var paths string
		if json.Unmarshal(object, &members) == nil && json.Unmarshal(members["fields"], &paths) == nil {
			members["fields"], _ = json.Marshal(camelCase(paths)) // a string always marshals
			object, _ = json.Marshal(members)
		}
	}
	return protojson.Unmarshal(object, into)
}

// camelCase drops each underscore and raises the letter behind it.
func camelCase(name string) string {
	var out strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '_' && i+1 < len(name) {
			i++
			out.WriteString(strings.ToUpper(name[i : i+1]))
			continue
		}
		out.WriteByte(name[i])
	}
	return out.String()
}

// The keys under which Tetragon keeps the filters of its own JSON export, in
// GetInfo (since 1.7) and as files of its configuration folder.
const (
	allowKey  = "export-allowlist"
	denyKey   = "export-denylist"
	fieldsKey = "field-filters"
)

// filtersFromConfig reads Tetragon's own filters from what GetInfo told.
func filtersFromConfig(conf map[string]string) (Filters, error) {
	return ParseFilters(plain(conf[allowKey]), plain(conf[denyKey]), plain(conf[fieldsKey]))
}

// plain keeps a value from being taken for a file's name.
func plain(value string) string { return strings.TrimLeft(value, "@") }
