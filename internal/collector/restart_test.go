package collector

import (
	"encoding/json"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/metadata"
)

// TestWhatIsARestart: another process on the host is one, whatever its record looks
// like otherwise; a fact that changed and another destination are none.
func TestWhatIsARestart(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record := func(pid int, started, made time.Time, version, to string) string {
		r, err := metadata.NewRecord(metadata.Facts{Time: made, Started: started, Hostname: "node-1", PID: pid,
			TetragonVersion: version, UDPDestination: to}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(r.JSON())
	}
	type from struct {
		source netip.AddrPort
		record string
	}
	tests := []struct {
		name string
		sent []from
		want uint64
	}{
		{"a fact changed", []from{
			{agentA, record(7, began, began, "v1.7.0", "a:1")}, {agentA, record(7, began, began.Add(time.Hour), "v1.8.0", "a:1")}}, 0},
		{"two destinations", []from{
			{agentA, record(7, began, began.Add(1), "v1.7.0", "a:1")}, {agentB, record(7, began, began.Add(2), "v1.7.0", "a:2")}}, 0},
		{"a new process", []from{
			{agentA, record(7, began, began, "v1.7.0", "a:1")}, {agentB, record(8, began.Add(time.Hour), began.Add(time.Hour), "v1.7.0", "a:1")}}, 1},
		{"a new process of the same id, as in a container", []from{
			{agentA, record(1, began, began, "v1.7.0", "a:1")}, {agentB, record(1, began.Add(time.Hour), began.Add(time.Hour), "v1.7.0", "a:1")}}, 1},
		{"two processes side by side, one of which changes", []from{
			{agentA, record(7, began, began, "v1.7.0", "a:1")}, {agentB, record(8, began, began, "v1.7.0", "a:1")},
			{agentA, record(7, began, began.Add(time.Hour), "v1.8.0", "a:1")}, {agentB, record(8, began, began.Add(time.Hour), "v1.8.0", "a:1")}}, 1},
		{"of a release before: a fact changed", []from{
			{agentA, agentInit("node-1", 7, "2026-01-01T00:00:00Z")}, {agentA, agentInit("node-1", 7, "2026-01-01T01:00:00Z")}}, 0},
		{"of a release before: two destinations", []from{
			{agentA, agentInit("node-1", 7, "2026-01-01T00:00:00.001Z")}, {agentB, agentInit("node-1", 7, "2026-01-01T00:00:00.002Z")}}, 0},
		{"of a release before: a new process", []from{
			{agentA, agentInit("node-1", 7, "2026-01-01T00:00:00Z")}, {agentB, agentInit("node-1", 8, "2026-01-01T01:00:00Z")}}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, socket, end := start(t, Config{Sink: new(memory)})
				for _, d := range test.sent {
					if !json.Valid([]byte(d.record)) {
						t.Fatal(d.record)
					}
					socket.send(d.source, d.record, event)
				}
				if a := end(); a.Agents[0].Hostname != "node-1" || a.Agents[0].Restarts != test.want {
					t.Errorf("%d restarts of %s, want %d", a.Agents[0].Restarts, a.Agents[0].Hostname, test.want)
				}
			})
		})
	}
}
