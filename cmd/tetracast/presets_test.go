package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"tetracast/exporter"
)

// TestPresetsPage holds the table of docs/collectors.md to the code.
func TestPresetsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/collectors.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, p := range exporter.Presets() {
		tested, longest := "untested", fmt.Sprint(p.MaxDatagram)
		if p.Tested {
			tested = "tested"
		}
		if p.MaxDatagram == 0 {
			longest = "by the path"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %d | %s | %s | %s |\n", p.Name, p.Format, p.Port, longest, p.Limit, tested)
	}
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/collectors.md has another table than the code:\n%s", want.String())
	}
}
