package ledger

import (
	"testing"
	"time"
)

// TestMergeAway: a host that sends to two collectors in turn was away only when none
// of them heard it. What one collector alone says of it stays.
func TestMergeAway(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	account := func(away Away, host string, streams ...AgentStream) Collector {
		return Collector{Side: "collector", Agents: []Agent{{Hostname: host, Streams: streams, Away: away}}}
	}
	stream := func(id string, from, to int) AgentStream {
		s := new(Audit).Stream(id)
		s.Heard = &Heard{First: at(from), Last: at(to)}
		return s
	}
	// The second run came to b, and the third to both.
	a := account(Away{1, 60_000}, "node-1", stream("01", 0, 100), stream("03", 160, 200))
	b := account(Away{1, 3000}, "node-1", stream("02", 102, 155), stream("03", 158, 210))
	c := account(Away{7, 9000}, "node-2", stream("04", 0, 1))
	whole, err := Merge(a, b, c)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := whole.Agents[0].Away, (Away{2, 5000}); got != want {
		t.Errorf("away %+v, want %+v", got, want)
	}
	if h := whole.Agents[0].Streams[2].Heard; h == nil || !h.First.Equal(at(158)) || !h.Last.Equal(at(210)) {
		t.Errorf("heard %+v", h)
	}
	if got, want := whole.Agents[1].Away, (Away{7, 9000}); got != want {
		t.Errorf("away %+v, want %+v", got, want)
	}
}
