package collector

import (
	"testing"
	"testing/synctest"
	"time"

	"tetracast/ledger"
)

func agentStats(stream string, last, refused uint64, goodbye bool, reportedBy string) string {
	s := ledger.AgentStats{Timestamp: time.Unix(0, 0), Event: ledger.EventAgentStats, Stream: stream, Hostname: "node-1",
		Seen: last, LastNumber: last, Refused: refused, Sent: last - refused, Dropped: map[string]uint64{"refused": refused},
		Goodbye: goodbye, ReportedBy: reportedBy}
	return string(s.AppendJSON(nil))
}

// TestNetAudit: a sender of plain JSON that says agent_stats is audited by them.
func TestNetAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, socket, end := start(t, Config{Sink: new(memory)})
		one := func() ledger.AgentStream {
			t.Helper()
			synctest.Wait()
			a := checked(t, c)
			if len(a.Agents) != 1 || a.Agents[0].Hostname != "node-1" {
				t.Fatalf("agents %+v", a.Agents)
			}
			return a.Agents[0].Streams[0]
		}
		for range 7 {
			socket.send(agentA, event)
		}
		socket.send(agentA, agentStats("00000000000000aa", 10, 1, false, "")) // its agent_init was lost
		if s := one(); s.Stream != "00000000000000aa" || *s.Announced != 10 || *s.Missing != 2 || *s.RefusedBySender != 1 || s.Ended != ledger.EndedUnknown {
			t.Errorf("%+v", s)
		}
		socket.send(agentA, event)
		socket.send(agentA, agentStats("00000000000000aa", 11, 1, true, ""))
		if s := one(); *s.Announced != 11 || *s.Missing != 2 || s.Ended != ledger.EndedGoodbye || s.Sender["seen"] != 11 {
			t.Errorf("%+v", s)
		}
		if a := end(); a.Closes == nil || !*a.Closes {
			t.Errorf("closes %v after the goodbye", a.Closes)
		}
	})
}

// TestReportedByTheSuccessor: the goodbye of a killed process comes from the one
// after it, if that runs on the same host.
func TestReportedByTheSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, socket, end := start(t, Config{Sink: new(memory)})
		socket.send(agentA, event, event, agentStats("00000000000000aa", 2, 0, false, ""), event)
		socket.send(agentB, event, agentStats("00000000000000bb", 1, 0, false, ""))
		socket.send(agentB, agentStats("00000000000000aa", 4, 0, true, "00000000000000bb"))
		socket.send(agentB, agentStats("00000000000000cc", 4, 0, true, "00000000000000bb")) // never heard of
		a := end()
		if len(a.Agents) != 1 || len(a.Agents[0].Streams) != 2 {
			t.Fatalf("agents %+v", a.Agents)
		}
		killed, successor := a.Agents[0].Streams[0], a.Agents[0].Streams[1]
		if *killed.Announced != 4 || *killed.Missing != 1 || killed.Ended != ledger.EndedGoodbye {
			t.Errorf("%+v", killed)
		}
		if successor.Ended != ledger.EndedUnknown || *successor.Announced != 1 {
			t.Errorf("%+v", successor)
		}
	})
}
