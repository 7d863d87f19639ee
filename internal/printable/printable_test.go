package printable

import (
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	f := func(in, line, name string) {
		t.Helper()
		if got := Line(in); got != line {
			t.Errorf("Line(%q) = %s, want %s", in, got, line)
		}
		if got := Name(in); got != name {
			t.Errorf("Name(%q) = %s, want %s", in, got, name)
		}
	}
	f("node-1.example", "node-1.example", "node-1.example")
	f("knötchen", "knötchen", "knötchen")
	f("", "", `""`)
	f("in all", "in all", `"in all"`)
	f("a\"b", `a"b`, `"a\"b"`)
	f("a\x1b[2Jb", `a\x1b[2Jb`, `"a\x1b[2Jb"`)
	f("a\n  in all  0", `a\n  in all  0`, `"a\n  in all  0"`)
	f("a\xff\u202eb\u009b", `a\xff\u202eb\u009b`, `"a\xff\u202eb\u009b"`)
}

func FuzzLine(f *testing.F) {
	f.Add("node-1")
	f.Add("a\x1b\n\xff\u202e")
	f.Fuzz(func(t *testing.T, in string) {
		for _, out := range []string{Line(in), Name(in), Quoted(in)} {
			if !isLine(out) {
				t.Errorf("%q became %q", in, out)
			}
		}
		if strings.Contains(Name(in), " ") && !strings.HasPrefix(Name(in), `"`) {
			t.Errorf("%q passes for several words", in)
		}
	})
}
