package sink

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a process that was killed left at the end of the file is never read as an
// event, nor is it joined with one.
func TestEndOfTheFile(t *testing.T) {
	f := func(name, before, after string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "events.jsonl")
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			out, err := OpenFile(FileConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			write(t, out, "{}")
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			after += "{}\n"
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != after {
			t.Errorf("%s: %d bytes %.60q, %v; want %d bytes %.60q", name, len(got), got, err, len(after), after)
		}
	}
	long := strings.Repeat("x", 200<<10) // more than is read at once
	f("empty", "", "")
	f("whole", "{}\n", "{}\n")
	f("half", "{\"whole\":1}\n{\"half", "{\"whole\":1}\n")
	f("half only", "{\"half", "")
	f("first byte", "{}\n{", "{}\n")
	f("but for its newline", "{}\n{\"whole\":1}", "{}\n{\"whole\":1}\n")
	f("long half", "{}\n{\"half\":\""+long, "{}\n")
	f("long and whole", "{}\n{\"whole\":\""+long+"\"}", "{}\n{\"whole\":\""+long+"\"}\n")
	f("long before", "{\"whole\":\""+long+"\"}\n{\"h", "{\"whole\":\""+long+"\"}\n")
	f("zeros", "{}\n"+strings.Repeat("\x00", 100<<10), "{}\n")
	f("half and zeros", "{}\n{\"half\x00\x00\x00", "{}\n")
	f("not ours", "a letter", "a letter\n")
	f("not ours either", "{}\n{"+strings.Repeat("x", maxTornBytes), "{}\n{"+strings.Repeat("x", maxTornBytes)+"\n")
}
