package tetracast_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestThreats holds docs/threat-model.md to its tests: each that a line names is in the tree,
// and every line of what is kept names one, or what stands in its place.
func TestThreats(t *testing.T) {
	page, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, lines := testsOfTree(t), 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "who" {
			continue
		}
		lines++
		named := regexp.MustCompile(`(?:Test|Fuzz)[A-Z]\w+`).FindAllString(line, -1)
		for _, name := range named {
			if !tests[name] {
				t.Errorf("the page names %s, which is not in the tree", name)
			}
		}
		if kept := strings.TrimSpace(cells[2]); kept != "" && len(named) == 0 && !strings.Contains(kept, ".ci/") {
			t.Errorf("no test holds %q", kept)
		}
	}
	if lines < 10 {
		t.Errorf("%d lines", lines)
	}
}
