package app

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// PrintConfig writes a command's flags with their values as a section of a
// configuration file, and behind each where it comes from. Secrets are not written.
func PrintConfig(command string, flags *pflag.FlagSet, origins Origins, streams Streams) error {
	section := &yaml.Node{Kind: yaml.MappingNode}
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Name == "help" {
			return
		}
		value := nodeOf(flag)
		value.LineComment = origins[flag.Name]
		if value.LineComment == "" {
			value.LineComment = "default"
		}
		section.Content = append(section.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: flag.Name}, value)
	})
	encoder := yaml.NewEncoder(streams.Out)
	encoder.SetIndent(2)
	err := encoder.Encode(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: command}, section}})
	if err == nil {
		err = encoder.Close()
	}
	if err != nil {
		return fmt.Errorf("app: writing the configuration: %w", err)
	}
	return nil
}

// nodeOf returns the value of a flag as it would stand in a file.
func nodeOf(flag *pflag.Flag) *yaml.Node {
	if slice, ok := flag.Value.(pflag.SliceValue); ok {
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, text := range slice.GetSlice() {
			list.Content = append(list.Content, textNode(flag.Name, text))
		}
		return list
	}
	if strings.HasPrefix(flag.Value.Type(), "string") {
		return textNode(flag.Name, flag.Value.String())
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: flag.Value.String()}
}

func textNode(name, text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: withoutSecret(name, text)}
}

// withoutSecret hides a value that is a secret by its flag's name, and the password in
// an address. A flag that names a file with a secret is none.
func withoutSecret(name, text string) string {
	for _, end := range []string{"-password", "-secret", "-token"} {
		if strings.HasSuffix(name, end) && text != "" {
			return "(secret)"
		}
	}
	return withoutPasswords(text)
}

// hidden stands for a secret.
const hidden = "xxxxx"

// withoutPasswords hides the passwords, and the tokens, of addresses: what stands after the
// scheme up to the last @ before white space, a quote or the next address. That is more
// than RFC 3986, section 3.2.1, allows there, for a mistyped address holds a password
// too. A name alone, as NATS has it, is a token.
func withoutPasswords(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	for from := 0; ; {
		at := strings.Index(text[from:], "://")
		if at < 0 {
			return text
		}
		begin := from + at + len("://")
		end := begin + strings.IndexFunc(text[begin:], func(r rune) bool { return unicode.IsSpace(r) || r == '"' })
		if end < begin {
			end = len(text)
		}
		if next := strings.Index(text[begin:end], "://"); next >= 0 {
			end = begin + next // the next address of a list
		}
		host := strings.LastIndexByte(text[begin:end], '@')
		if host < 0 {
			from = begin
			continue
		}
		shown := hidden
		if name, _, ok := strings.Cut(text[begin:begin+host], ":"); ok {
			shown = name + ":" + hidden
		}
		text = text[:begin] + shown + text[begin+host:]
		from = begin + len(shown)
	}
}
