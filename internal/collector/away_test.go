package collector

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// speak sends agent_init and enough frames to be believed.
func speak(s *fakeSocket, a agent) {
	s.send(agentA, a.init())
	for range probationFrames {
		s.send(agentA, a.next())
	}
}

// TestAway: a host had no stream from the last that came of one run, goodbye or not,
// to the first of the next. A stream beside another, or one that nobody can trust yet,
// changes nothing. The figures outlive a restart of the collector.
func TestAway(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	want := ledger.Away{}
	for run := range 2 {
		account, _ := framed(t, Config{StateFile: file}, func(c *Collector, s *fakeSocket) {
			base := uint64(100 * run)
			step := func(d time.Duration, a agent, away time.Duration) {
				t.Helper()
				time.Sleep(d)
				speak(s, a)
				synctest.Wait()
				if away > 0 {
					want.Times++
					want.MS += uint64(away.Milliseconds())
				}
				if got := c.Stats(true); got.Away != want || got.PerAgent[0].Away != want {
					t.Errorf("run %d, after %v: away %+v and %+v, want %+v", run, d, got.Away, got.PerAgent[0].Away, want)
				}
			}
			first := newAgent(t, base+1, "node-1", int(base)+11)
			if run == 0 {
				step(0, first, 0)
			} else {
				// The test's clock begins anew with each bubble: what was heard last lies ahead.
				step(time.Hour, first, time.Hour-7*time.Second)
			}
			step(2*time.Second, newAgent(t, base+2, "node-1", int(base)+12), 2*time.Second)
			step(0, newAgent(t, base+3, "node-1", int(base)+13), 0) // beside it
			time.Sleep(time.Second)
			stranger := newAgent(t, base+4, "node-1", int(base)+14)
			s.send(agentB, stranger.init(), stranger.next())
			time.Sleep(time.Second)
			step(3*time.Second, newAgent(t, base+5, "node-1", int(base)+15), 5*time.Second)
		})
		if a := account.Agents[0]; a.Away != want {
			t.Errorf("run %d: the account says %+v, want %+v", run, a.Away, want)
		}
		if text := string(account.AppendText(nil)); !strings.Contains(text, want.String()) || !strings.Contains(text, "away") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestAwayOfPlainJSON: without numbers a stream is an address. The same process from
// another port was not away.
func TestAwayOfPlainJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, socket, end := start(t, Config{Sink: new(memory)})
		first, second := agentInit("node-1", 7, "2026-01-01T00:00:00Z"), agentInit("node-1", 8, "2026-01-01T00:05:00Z")
		socket.send(agentA, first, event)
		time.Sleep(time.Minute)
		socket.send(agentB, first, event)
		time.Sleep(2 * time.Second)
		socket.send(agentB, agentStats("00000000000000aa", 1, 0, true, ""))
		time.Sleep(3 * time.Second)
		socket.send(netip.AddrPortFrom(agentB.Addr(), 40001), second, event)
		if a := end(); len(a.Agents) != 1 || a.Agents[0].Away != (ledger.Away{Times: 1, MS: 3000}) {
			t.Errorf("%+v", a.Agents)
		}
	})
}

// TestReportOfAKill: what a successor tells of a killed process is written once, knows
// nothing better than what was told before, and settles what the kernel was being
// given by what came. A stream of which nothing ever came is one of the host's, too.
func TestReportOfAKill(t *testing.T) {
	stats := func(s ledger.AgentStats) []byte {
		s.Event, s.Hostname, s.StartedAt = ledger.EventAgentStats, "node-1", time.Unix(1, 0).UTC()
		return s.AppendJSON(nil)
	}
	pack := func(a agent, s ledger.AgentStats) string {
		var b datagram.Batch
		a.packer.PackStats(&b, stats(s), s.Goodbye && s.ReportedBy == "")
		return string(b.Datagrams[0])
	}
	blind, ring := uint64(68324), uint64(5)
	account, lines := framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		killed, next := newAgent(t, 1, "node-1", 11), newAgent(t, 2, "node-1", 12)
		speak(s, killed) // 1 to 8
		s.send(agentA, pack(killed, ledger.AgentStats{Stream: streamID(1), Seen: 8, LastNumber: 8, Sent: 8, SubscriptionBreaks: 2, BlindMS: &blind,
			Upstream: map[string]*uint64{"ring_buffer": &ring}}))
		lost := killed.next() // 9: it was given to the kernel, and is lost
		_ = lost
		s.send(agentA, killed.next()) // 10
		speak(s, next)
		report := ledger.AgentStats{Stream: streamID(1), Seen: 20, LastNumber: 14, Sent: 8, Refused: 6, Dropped: map[string]uint64{"killed": 12}, Goodbye: true,
			ReportedBy: streamID(2), Offered: &ledger.Offered{First: 9, Last: 12, Events: 4}}
		unheard := ledger.AgentStats{Stream: streamID(3), Seen: 7, Dropped: map[string]uint64{"killed": 7}, Goodbye: true, ReportedBy: streamID(2)}
		sum := ledger.AgentStats{Seen: 9, Dropped: map[string]uint64{"killed": 9}, Goodbye: true, ReportedBy: streamID(2), Streams: 4}
		for _, r := range []ledger.AgentStats{report, unheard, sum} {
			for range 3 {
				s.send(agentA, pack(next, r))
			}
		}
	})
	if n := strings.Count(strings.Join(lines, ""), `"reported_by"`); n != 3 {
		t.Errorf("%d reports were written, want one of each", n)
	}
	if len(account.Agents) != 1 || len(account.Agents[0].Streams) != 3 {
		t.Fatalf("agents %+v", account.Agents)
	}
	s := account.Agents[0].Streams[0]
	if s.Received != 9 || *s.Missing != 1 || *s.RefusedBySender != 4 || *s.Announced != 14 || s.Ended != ledger.EndedGoodbye {
		t.Errorf("announced %d, received %d, missing %d, refused %d", *s.Announced, s.Received, *s.Missing, *s.RefusedBySender)
	}
	if s.Sender["sent"] != 10 || s.SenderDropped["killed"] != 10 || s.Sender["sent"] != s.Received+*s.Missing || s.Sender["seen"] != s.Sender["sent"]+s.SenderDropped["killed"] {
		t.Errorf("sender %v, dropped %v", s.Sender, s.SenderDropped)
	}
	if s.Sender["subscription_breaks"] != 2 || s.Sender["blind_ms"] != blind || s.Upstream["ring_buffer"] == nil || *s.Upstream["ring_buffer"] != ring {
		t.Errorf("what was known is not any more: %v, %v", s.Sender, s.Upstream)
	}
	if u := account.Agents[0].Streams[2]; u.Sender["seen"] != 7 || u.SenderDropped["killed"] != 7 || u.Received != 0 {
		t.Errorf("the stream that was never heard: %+v", u)
	}
	// Two collectors of which one heard the end: the union settles it anew.
	text, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	var a, b ledger.Collector
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	audit := ledger.Audit{}
	audit.Announce(11, ledger.Sums{})
	audit.Receive(11, 1)
	b = ledger.Collector{Side: "collector", Received: 1, Delivered: 1, Agents: []ledger.Agent{{Hostname: "node-1", Streams: []ledger.AgentStream{audit.Stream(streamID(1))}}}}
	before := a.Agents[0].Streams[0].SenderDropped["killed"]
	both, err := ledger.Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	s = both.Agents[0].Streams[0]
	if s.Received != 10 || *s.Missing != 1 || s.Sender["sent"] != 11 || s.SenderDropped["killed"] != 9 || !reflect.DeepEqual(before, uint64(10)) {
		t.Errorf("received %d, missing %d, sender %v, dropped %v", s.Received, *s.Missing, s.Sender, s.SenderDropped)
	}
}

// TestStreamZero: the id 0 is one like any other, also when others make room.
func TestStreamZero(t *testing.T) {
	a := newAgents(2, 1, 2)
	now := time.Unix(1, 0)
	for _, id := range []uint64{5, 0, 6, 7} {
		for range probationFrames {
			a.consistent(a.numberedStream(datagram.StreamName{ID: id}, false, now), now)
		}
		now = now.Add(2 * quietTime)
	}
	for range 2 {
		a.numberedStream(datagram.StreamName{}, true, now)
	}
	if n := len(a.frames.byKey); n != a.frames.recent.Len() || n > 2 {
		t.Errorf("%d streams by name, %d in the list", n, a.frames.recent.Len())
	}
}
