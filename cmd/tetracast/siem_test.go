package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tetracast/datagram"
)

// TestSIEMAudit runs the SQL of docs/siem-audit.md over what json with a sequence
// writes, with events missing, repeated and out of order.
func TestSIEMAudit(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: there is no python3 here")
	}
	lines, _ := sampleOracle(t)
	var recorded []string
	for _, stream := range []uint64{1, 2} {
		p := datagram.NewJSON(datagram.JSONConfig{Stream: stream, Sequence: true})
		p.SetDropped(3 * stream)
		var b datagram.Batch
		for i, line := range lines[:100] {
			if err := p.Pack(&b, &datagram.Event{Number: uint64(i + 1), Line: []byte(line)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range b.Datagrams {
			recorded = append(recorded, string(d))
		}
	}
	recorded = slices.Delete(recorded, 149, 150) // 50 of the second stream
	recorded = slices.Delete(recorded, 9, 12)    // 10 to 12 of the first
	recorded = slices.Delete(recorded, 0, 1)     // and its first
	recorded = append(recorded, recorded[5])     // one of the first again
	slices.Reverse(recorded)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(recorded, "")+"no JSON\n{\"a\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, "../../examples/siem-audit.py", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first, second := fmt.Sprintf("%016x", 1), fmt.Sprintf("%016x", 2)
	want := first + ": arrived 96, missing 4, lost before 3, twice 1\n" +
		second + ": arrived 99, missing 1, lost before 6, twice 0\n" +
		first + ": missing 1 to 1\n" + first + ": missing 10 to 12\n" + second + ": missing 50 to 50\n"
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}
