package deploy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPage: what docs/kubernetes.md calls a value is one, and what it calls a flag
// is a flag of export or collect.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	values, named := load(t).Values, 0
	for _, match := range regexp.MustCompile("(?:`|--set(?:-string|-file)? )((?:export|collect|key|image|podMonitor)\\.[A-Za-z.]+)").FindAllStringSubmatch(string(text), -1) {
		named++
		var value any = values
		for _, key := range strings.Split(match[1], ".") {
			table, _ := value.(map[string]any)
			if value = table[key]; value == nil {
				t.Errorf("%s is no value of the chart", match[1])
				break
			}
		}
	}
	for _, match := range regexp.MustCompile("`(--[a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
		named++
		if unknownFlags([]string{"export", match[1]}) != nil && unknownFlags([]string{"collect", match[1]}) != nil {
			t.Errorf("%s is no flag", match[1])
		}
	}
	if named < 20 {
		t.Errorf("the page names %d values and flags: does this test still find them?", named)
	}
}
