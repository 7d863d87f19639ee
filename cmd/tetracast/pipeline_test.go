package main

import (
	"encoding/json"
	"testing"
	"time"

	"tetracast/internal/bench"
)

// TestBenchPipeline: each rival is a process that sees events and uses a processor,
// and so are the exports beside it.
func TestBenchPipeline(t *testing.T) {
	if testing.Short() {
		t.Skip("it watches six processes for a second each")
	}
	p := run(t, "bench", "pipeline", "--only", "rivals-a", "--rounds", "1", "--window", "300ms", "--json")
	if code := p.wait(time.Minute); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	var result struct {
		Machine bench.Machine
		Tables  []bench.PipelineTable
	}
	if err := json.Unmarshal(p.out.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	if len(result.Tables) != 1 || len(result.Tables[0].Rows) != 6 || result.Machine.Kernel == "" {
		t.Fatalf("%+v", result)
	}
	for _, row := range result.Tables[0].Rows {
		if row.EventsASec == 0 || row.CPUNS == 0 || row.RSSBytes == 0 {
			t.Errorf("%+v", row)
		}
	}
}
