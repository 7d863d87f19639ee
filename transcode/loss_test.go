package transcode_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/transcode.md anew")

// losses are what an event can lose to fit, in the order in which it goes.
var losses = []string{"names of capabilities", "environment", "stack traces", "ancestors", "namespaces and credentials", "parent", "labels", "parts of strings", "more"}

// lossOf returns which of losses the value at path belongs to.
func lossOf(path []string) int {
	for _, name := range path {
		switch name {
		case "environment_variables":
			return 1
		case "kernel_stack_trace", "user_stack_trace":
			return 2
		case "ancestors":
			return 3
		case "parent":
			return 5
		case "cap", "ns", "process_credentials":
			return 4
		case "pod_labels", "pod_annotations", "node_labels":
			return 6
		}
	}
	return 8
}

// compare notes what got has not of want.
func compare(want, got any, path []string, lost *[9]bool) {
	if reflect.DeepEqual(want, got) {
		return
	}
	object, isObject := want.(map[string]any)
	other, ok := got.(map[string]any)
	if isObject && ok {
		for key, value := range object {
			if inner, there := other[key]; there {
				compare(value, inner, append(path, key), lost)
			} else {
				lost[lossOf(append(path, key))] = true
			}
		}
		return
	}
	switch value := want.(type) {
	case []any:
		if list, ok := got.([]any); ok {
			for i := range min(len(list), len(value)) {
				compare(value[i], list[i], path, lost)
			}
			if len(list) < len(value) {
				lost[lossOf(path)] = true
			}
			return
		}
		lost[0] = true
	case string:
		lost[7] = true
	default:
		lost[lossOf(path)] = true
	}
}

// TestLossTable makes the table of docs/transcode.md over the large corpus, and
// holds the page to it.
func TestLossTable(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: it takes all events of the large corpus, which -short leaves out")
	}
	events := recording(t, "events.binpb.zst")
	tc := newTranscoder(t, eventType)
	var table bytes.Buffer
	limits := []int{1232, 2048, 8192, 65507}
	counts := make([][9]int, len(limits))
	over, looked, kept, of := make([]int, len(limits)), make([]int, len(limits)), make([]int, len(limits)), make([]int, len(limits))
	for i, wire := range events {
		whole, _, err := tc.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]any
		for l, limit := range limits {
			if len(whole) <= limit {
				break
			}
			got, _, err := tc.AppendMax(nil, wire, limit)
			if err != nil {
				t.Fatalf("event %d, limit %d: %v", i, limit, err)
			}
			over[l]++
			kept[l] += len(got)
			of[l] += len(whole)
			if i%8 != 0 && limit < 65507 { // comparing takes long
				continue
			}
			looked[l]++
			var have map[string]any
			if want == nil {
				if err := json.Unmarshal(whole, &want); err != nil {
					t.Fatal(err)
				}
			}
			if err := json.Unmarshal(got, &have); err != nil {
				t.Fatal(err)
			}
			var lost [9]bool
			compare(want, have, nil, &lost)
			for c, is := range lost {
				if is {
					counts[l][c]++
				}
			}
		}
	}
	fmt.Fprintf(&table, "| of %d recorded events | %s |\n|---|%s\n", len(events), limitsText(limits), strings.Repeat("---:|", len(limits)))
	row := func(name string, f func(l int) string) {
		fmt.Fprintf(&table, "| %s |", name)
		for l := range limits {
			fmt.Fprintf(&table, " %s |", f(l))
		}
		table.WriteByte('\n')
	}
	row("longer than the limit", func(l int) string { return fmt.Sprint(over[l]) })
	row("of their bytes kept", func(l int) string { return fmt.Sprintf("%.0f %%", 100*float64(kept[l])/float64(of[l])) })
	for c, name := range losses {
		row("of them lost: "+name, func(l int) string { return fmt.Sprintf("%.0f %%", 100*float64(counts[l][c])/float64(looked[l])) })
	}
	page := filepath.Join("..", "docs", "transcode.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- table: begin -->\n", "<!-- table: end -->"
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	want := head + begin + table.String() + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Errorf("%s is not what the transcoder does; go test ./transcode -run LossTable -update writes it anew:\n%s", page, table.String())
	}
}

func limitsText(limits []int) string {
	texts := make([]string, len(limits))
	for i, l := range limits {
		texts[i] = fmt.Sprintf("%d bytes", l)
	}
	return strings.Join(texts, " | ")
}
