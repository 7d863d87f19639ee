package transcode_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"tetracast/transcode"
)

// keptPaths are what AppendMax keeps of every event, below its kind.
var keptPaths = []string{"process.exec_id", "process.pid", "process.binary", "policy_name", "action",
	"function_name", "subsys", "event", "symbol", "provider", "name", "type"}

// checkReduced compares the shortened form with the whole one.
func checkReduced(t *testing.T, whole, got []byte, info transcode.Info, limit int) {
	t.Helper()
	if len(got) > limit || !json.Valid(got) || !utf8.Valid(got) {
		t.Fatalf("limit %d: %d bytes, valid %v: %s", limit, len(got), json.Valid(got), got)
	}
	if len(whole) <= limit {
		if !bytes.Equal(whole, got) || info.Truncated != 0 {
			t.Fatalf("limit %d: an event of %d bytes was changed, %d fields", limit, len(whole), info.Truncated)
		}
		return
	}
	var before, after map[string]any
	if json.Unmarshal(whole, &before) != nil || json.Unmarshal(got, &after) != nil {
		t.Fatalf("limit %d: not objects", limit)
	}
	note, ok := after["tetracast_truncated"].(map[string]any)
	if !ok || info.Truncated == 0 || note["fields"] != float64(info.Truncated) {
		t.Fatalf("limit %d: %d fields, note %v", limit, info.Truncated, note)
	}
	if lost := int(note["bytes"].(float64)); lost < len(whole)-limit || lost >= len(whole) {
		t.Fatalf("limit %d: of %d bytes %d are said to be lost", limit, len(whole), lost)
	}
	for kind, member := range before {
		if text, ok := member.(string); ok && kind != "cluster_name" {
			if !strings.HasPrefix(text, fmt.Sprint(after[kind])) {
				t.Fatalf("limit %d: %s %q became %v", limit, kind, text, after[kind])
			}
			continue
		}
		if !strings.HasPrefix(kind, "process_") {
			continue
		}
		for _, path := range keptPaths {
			want, got := at(member, path), at(after[kind], path)
			if text, ok := want.(string); ok && path != "process.exec_id" {
				if !strings.HasPrefix(text, fmt.Sprint(got)) {
					t.Fatalf("limit %d: %s %q became %v", limit, path, text, got)
				}
			} else if want != got {
				t.Fatalf("limit %d: %s %v became %v", limit, path, want, got)
			}
		}
	}
}

// at returns what the path leads to, nil if nothing is there.
func at(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v
}

func TestAppendMaxRecordings(t *testing.T) {
	limits := []int{1024, 1232, 1472, 2048, 4096, 8192, 16384, 65507}
	f := func(name string) {
		t.Run(name, func(t *testing.T) {
			tc := newTranscoder(t, eventType)
			var whole, got []byte
			for i, wire := range recording(t, name) {
				var err error
				if whole, _, err = tc.Append(whole[:0], wire); err != nil {
					t.Fatal(err)
				}
				for _, limit := range limits {
					if len(whole) <= limit {
						break // the larger ones say the same
					}
					var info transcode.Info
					if got, info, err = tc.AppendMax(got[:0], wire, limit); err != nil {
						t.Fatalf("event %d of %d bytes: %v", i, len(whole), err)
					}
					if i%4 == 0 || limit == 1024 && i%2 == 0 { // the whole comparison is slow
						checkReduced(t, whole, got, info, limit)
					} else if len(got) > limit || info.Truncated == 0 || !json.Valid(got) {
						t.Fatalf("event %d: %d bytes at most %d, %+v: %s", i, len(got), limit, info, got)
					}
				}
			}
		})
	}
	f("sample.binpb.gz")
	f("k8s.binpb")
	if !testing.Short() {
		f("events.binpb.zst")
	}
}

// TestAppendMaxEveryLimit takes a few events through all limits: no jump goes
// wrong, and what fails leaves dst as it was.
func TestAppendMaxEveryLimit(t *testing.T) {
	tc := newTranscoder(t, eventType)
	largest := map[transcode.Kind][]byte{}
	for _, wire := range recording(t, "sample.binpb.gz") {
		if s, _ := transcode.Scan(wire); len(wire) < 8000 && len(wire) > len(largest[s.Kind]) {
			largest[s.Kind] = wire
		}
	}
	for kind, wire := range largest {
		whole, _, err := tc.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for limit := 0; limit <= len(whole)+1; limit += 1 + limit/97 {
			got, info, err := tc.AppendMax([]byte("kept"), wire, limit)
			if err != nil {
				if !errors.Is(err, transcode.ErrBudget) || string(got) != "kept" || info != (transcode.Info{}) || limit >= 1024 {
					t.Fatalf("%s at %d: %v, %q, %+v", kind, limit, err, got, info)
				}
				failed++
				continue
			}
			checkReduced(t, whole, got[4:], info, limit)
			line, lineInfo, err := tc.AppendLineMax(nil, whole, limit)
			if err != nil || lineInfo != info || !bytes.Equal(line, got[4:]) {
				t.Fatalf("%s at %d: from the line %v, %+v\n got %s\nwant %s", kind, limit, err, lineInfo, line, got[4:])
			}
		}
		if failed == 0 {
			t.Errorf("%s: no limit was too small", kind)
		}
	}
}

// TestAppendLineMaxOrder shows what goes first.
func TestAppendLineMaxOrder(t *testing.T) {
	process := func(name string) string {
		return `{"exec_id":"` + name + `","pid":1,"binary":"/bin/` + name + `","arguments":"` + strings.Repeat("x", 300) +
			`","pod":{"name":"p","pod_labels":{"app":"` + strings.Repeat("l", 50) + `"}},"cap":{"permitted":["CAP_CHOWN","DAC_OVERRIDE","CAP_SETGID",63]},"ns":{"uts":{"inum":1}},` +
			`"environment_variables":[{"Key":"A","Value":"` + strings.Repeat("v", 50) + `"}]}`
	}
	line := []byte(`{"process_kprobe": {"process":` + process("self") + `, "parent":` + process("parent") + `,"function_name":"f","args":[{"string_arg":"` + strings.Repeat(`\n\ud83d\ude00ü`, 50) +
		`"}],"kernel_stack_trace":[{"symbol":"s"}],"policy_name":"p","ancestors":[` + process("young") + "," + process("old") + `]},"node_name":"n","time":"2026-01-01T00:00:00Z"}`)
	tc := newTranscoder(t, eventType)
	var lost []string
	for limit := len(line) - 1; ; limit-- {
		got, _, err := tc.AppendLineMax(nil, line, limit)
		if err != nil {
			if !errors.Is(err, transcode.ErrBudget) {
				t.Fatal(err)
			}
			break
		}
		if !json.Valid(got) || len(got) > limit {
			t.Fatalf("limit %d: %d bytes, %s", limit, len(got), got)
		}
		now := lostParts(got)
		for _, part := range now {
			if !slices.Contains(lost, part) {
				lost = append(lost, part)
			}
		}
		for _, part := range lost {
			if !slices.Contains(now, part) {
				t.Errorf("limit %d: %s is back", limit, part)
			}
		}
	}
	want := []string{"capability names", "environment", "stack", "old", "young", "namespaces", "parent", "labels", "long strings", "process.arguments", "args"}
	if !slices.Equal(lost, want) {
		t.Errorf("lost in the order %q, want %q", lost, want)
	}
}

// lostParts says which parts of the line of TestAppendLineMaxOrder are missing.
func lostParts(got []byte) []string {
	var lost []string
	for _, part := range []struct{ name, text string }{
		{"capability names", "CAP_CHOWN"}, {"environment", `"environment_variables":`}, {"stack", `"kernel_stack_trace":`},
		{"old", `"exec_id":"old"`}, {"young", `"exec_id":"young"`}, {"namespaces", `"ns":`}, {"parent", `"parent":{`},
		{"labels", `"pod_labels":`}, {"long strings", strings.Repeat("x", 290)}, {"process.arguments", `"arguments":"x`}, {"args", `"args":`},
	} {
		if !bytes.Contains(got, []byte(part.text)) {
			lost = append(lost, part.name)
		}
	}
	return lost
}

func TestAppendLineMaxRefuses(t *testing.T) {
	tc := newTranscoder(t, eventType)
	for _, line := range []string{`[1,2,3]`, `{"a":1`, `{"a"`, `{"a":`, `{"a":"b`, `{"a":[1,`, `{"a":1}}`, `{a:1}`, `{"":{"":`, strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)} {
		got, _, err := tc.AppendLineMax([]byte("kept"), []byte(line), 2)
		if !errors.Is(err, transcode.ErrBudget) || string(got) != "kept" {
			t.Errorf("%.20s: %q, %v", line, got, err)
		}
	}
}

// TestAppendMaxRepairs cuts a text that is all repairs.
func TestAppendMaxRepairs(t *testing.T) {
	tc := newTranscoder(t, eventType)
	process := protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), strings.Repeat("a\xff\"\x01", 1000))
	exec := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), process)
	wire := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), exec)
	for limit := 300; limit < 1000; limit++ {
		got, info, err := tc.AppendMax(nil, wire, limit)
		if err != nil || info.Truncated != 1 || info.Repaired != 1000 || !json.Valid(got) || !utf8.Valid(got) || len(got) > limit || len(got) < limit-200 {
			t.Fatalf("limit %d: %d bytes, %+v, %v: %s", limit, len(got), info, err, got)
		}
	}
}

func TestAppendMaxDoesNotAllocate(t *testing.T) {
	events := recording(t, "sample.binpb.gz")
	tc := newTranscoder(t, eventType)
	dst := make([]byte, 0, 1<<20)
	all := func() {
		for _, wire := range events {
			if _, _, err := tc.AppendMax(dst, wire, 1232); err != nil {
				t.Fatal(err)
			}
		}
	}
	all()
	if allocs := testing.AllocsPerRun(3, all); allocs != 0 {
		t.Errorf("%v allocations for %d events, want 0", allocs, len(events))
	}
}
