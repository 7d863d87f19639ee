package collector_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"

	"tetracast/exporter"
	"tetracast/internal/udp/impair"
	"tetracast/internal/udp/netns"
	"tetracast/ledger"
)

// TestLossOfJSON: events that carry no numbers are audited net, by agent_stats and
// the goodbye: what the account says is missing is what the network dropped.
func TestLossOfJSON(t *testing.T) {
	events := sampleEvents(t)
	for i, share := range []float64{0.001, 0.01, 0.1, 0.5} {
		t.Run(fmt.Sprint(share), netns.Twice(func(t *testing.T) (lost string) {
			var dropped, goodbyes atomic.Uint64
			watch := func(d []byte, times int, _ bool) {
				about := bytes.HasPrefix(d, []byte(`{"@timestamp"`))
				switch {
				case !about && times == 0:
					dropped.Add(1)
				case about && times > 0 && bytes.Contains(d, []byte(`"goodbye":true`)):
					goodbyes.Add(1)
				}
			}
			r, passed := newRigBehind(t, exporter.Destination{Format: "json"}, impair.Config{Drop: share, Seed: uint64(20 + i), Watch: watch})
			r.send(events, 2)
			truth := passed()
			e, c := r.end()
			if truth.Missed > 0 || c.Observed.SocketDropped > 0 {
				return "a socket of the test itself lost datagrams"
			}
			if goodbyes.Load() == 0 {
				t.Skip("SKIPPED, NOT TESTED: the network took all three goodbyes")
			}
			s := c.Agents[0].Streams[0]
			if s.Missing == nil || *s.Missing != dropped.Load() || s.Received != e.Streams[0].Sent-dropped.Load() || s.Ended != ledger.EndedGoodbye {
				t.Errorf("sent %d, of which the network dropped %d; the account says %+v", e.Streams[0].Sent, dropped.Load(), s)
			}
			return ""
		}))
	}
}
