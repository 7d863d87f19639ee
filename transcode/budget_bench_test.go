package transcode_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"tetracast/transcode"
)

// lossClasses sorts the names in tetracast_truncated by what the reader misses.
// The first that matches counts.
var lossClasses = []struct {
	name string
	is   func(name string) bool
}{
	{"capability-names", func(n string) bool { return last(n) == "cap" || last(n) == "caps" || last(n) == "cred_arg" }},
	{"environment", func(n string) bool { return last(n) == "environment_variables" }},
	{"stacks", func(n string) bool { return strings.HasSuffix(n, "_stack_trace") }},
	{"ancestors", func(n string) bool { return strings.HasPrefix(n, "ancestors") }},
	{"credentials", func(n string) bool { return last(n) == "ns" || last(n) == "process_credentials" }},
	{"parent", func(n string) bool { return strings.HasPrefix(n, "parent") }},
	{"labels", func(n string) bool { return last(n) == "pod_labels" || last(n) == "node_labels" }},
	{"arguments", func(n string) bool { return n == "process.arguments" }},
	{"process", func(n string) bool { return strings.HasPrefix(n, "process") }},
	{"event", func(string) bool { return true }},
}

func last(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// BenchmarkAppendMax gives, for each limit, the time of the events that do not
// fit, and in how many of each hundred of all events what is lost: the table of
// docs/transcode.md.
func BenchmarkAppendMax(b *testing.B) {
	events := recording(b, "events.binpb.zst")
	program, err := transcode.Compile(eventType)
	if err != nil {
		b.Fatal(err)
	}
	tc := program.NewTranscoder(transcode.Options{})
	dst := make([]byte, 0, 1<<20)
	for _, limit := range []int{1232, 2048, 8192, 65507} {
		var large [][]byte
		lost := map[string]int{}
		for _, wire := range events {
			got, info, err := tc.AppendMax(dst, wire, limit)
			if err != nil {
				b.Fatal(err)
			}
			if info.Truncated == 0 {
				continue
			}
			large = append(large, wire)
			var event struct {
				Note struct{ Names []string } `json:"tetracast_truncated"`
			}
			if err := json.Unmarshal(got, &event); err != nil {
				b.Fatal(err)
			}
			hit := map[string]bool{}
			for _, name := range event.Note.Names {
				for _, class := range lossClasses {
					if class.is(name) {
						hit[class.name] = true
						break
					}
				}
			}
			for name := range hit {
				lost[name]++
			}
		}
		b.Run(fmt.Sprint(limit), func(b *testing.B) {
			for b.Loop() {
				for _, wire := range large {
					if _, _, err := tc.AppendMax(dst, wire, limit); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(large)), "ns/event")
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(100*float64(len(large))/float64(len(events)), "%shortened")
			for _, class := range lossClasses {
				b.ReportMetric(100*float64(lost[class.name])/float64(len(events)), "%"+class.name)
			}
		})
	}
}
