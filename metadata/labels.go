package metadata

import (
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of labels. With all of them, an agent_init is still shorter than
// [MaxRecord].
const (
	MaxLabels    = 32
	MaxLabelName = 63 // bytes
)

// ParseLabels reads labels, name=value each. The later of two with one name wins.
// The error is that of [CheckLabels].
func ParseLabels(texts []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("metadata: label %.40q: want name=value", text)
		}
		labels[name] = value
	}
	return labels, CheckLabels(labels)
}

// CheckLabels says what is wrong with labels: there are at most [MaxLabels]; a name
// is a letter and then letters, digits and any of . - / _, at most [MaxLabelName]
// bytes; a value is UTF-8 without control characters, of at most [MaxFact] bytes, and
// may be empty.
func CheckLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("metadata: %d labels, more than %d", len(labels), MaxLabels)
	}
	for name, value := range labels {
		switch {
		case !isLabelName(name):
			return fmt.Errorf("metadata: label %.80q: a name is a letter and then letters, digits and . - / _, at most %d bytes", name, MaxLabelName)
		case len(value) > MaxFact:
			return fmt.Errorf("metadata: label %s: a value of %d bytes, more than %d", name, len(value), MaxFact)
		case !utf8.ValidString(value):
			return fmt.Errorf("metadata: label %s: %.40q is not UTF-8", name, value)
		case strings.ContainsFunc(value, unicode.IsControl):
			return fmt.Errorf("metadata: label %s: %.40q has a control character", name, value)
		}
	}
	return nil
}

func isLabelName(name string) bool {
	for i, c := range []byte(name) {
		isLetter := c|0x20 >= 'a' && c|0x20 <= 'z'
		isOther := c >= '-' && c <= '9' || c == '_' // - . / and the digits stand together
		if !isLetter && (i == 0 || !isOther) {
			return false
		}
	}
	return name != "" && len(name) <= MaxLabelName
}

// JoinLabels returns all of both; where they have a name in common, the user's
// value. It may return one of the two as it is.
func JoinLabels(read, user map[string]string) map[string]string {
	switch {
	case len(user) == 0:
		return read
	case len(read) == 0:
		return user
	}
	all := maps.Clone(read)
	maps.Copy(all, user)
	return all
}
