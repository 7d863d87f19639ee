package tetracast_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFaults holds docs/faults.md to its rows: S1 to S25 and R1 to R20 each have
// one, and each test that a row names, or docs/collect.md, is in the tree.
func TestFaults(t *testing.T) {
	page, err := os.ReadFile("docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOfTree(t)
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 {
			rows[strings.TrimSpace(cells[1])] = cells[3] + cells[4]
		}
	}
	check := func(row string) {
		t.Helper()
		text, ok := rows[row]
		if !ok {
			t.Errorf("docs/faults.md has no row %s", row)
			return
		}
		named := regexp.MustCompile(`Test\w+`).FindAllString(text, -1)
		for _, name := range named {
			if !tests[name] {
				t.Errorf("row %s names %s, which is not in the tree", row, name)
			}
		}
		if len(named) == 0 {
			t.Errorf("row %s names no test", row)
		}
	}
	page, err = os.ReadFile("docs/collect.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(string(page), -1) {
		if !tests[name] {
			t.Errorf("docs/collect.md names %s, which is not in the tree", name)
		}
	}
	for i := range 25 {
		check(fmt.Sprintf("S%d", i+1))
	}
	for i := range 20 {
		check(fmt.Sprintf("R%d", i+1))
	}
}

// testsOfTree returns the names of all tests and fuzzers.
func testsOfTree(t *testing.T) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\([tf] \*testing\.[TF]\)`)
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
