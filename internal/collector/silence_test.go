package collector

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// silences returns what is said of silence in lines, without the times.
func silences(t *testing.T, lines []string) string {
	t.Helper()
	var all []string
	for _, line := range lines {
		if !strings.HasPrefix(line, `{"@timestamp"`) {
			continue
		}
		var s ledger.AgentSilence
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		if s.Event != ledger.EventAgentSilent && s.Event != ledger.EventAgentBack {
			continue
		}
		text := s.Event + " " + s.Hostname + " " + s.Stream
		if s.LastHeard == nil {
			text += " never"
		}
		if s.Goodbye {
			text += " goodbye"
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

const silentAfter = time.Minute

// TestSilence: an agent that was heard is missed once, and is back with its next
// event; none of that is an event of Tetragon. One that only repeats what it said
// before is not back.
func TestSilence(t *testing.T) {
	var said []string
	a, lines := framed(t, Config{SilentAfter: silentAfter}, func(c *Collector, s *fakeSocket) {
		f := newAgent(t, 7, "node-1", 1)
		s.send(agentA, f.init())
		recorded := f.next()
		s.send(agentA, recorded)
		for range probationFrames {
			s.send(agentA, f.next())
		}
		time.Sleep(silentAfter - 2*time.Second)
		s.send(agentA, f.next()) // just in time
		time.Sleep(3 * silentAfter)
		if n := c.Stats(true); n.Silent != 1 || n.Agents != 1 || len(n.PerAgent) != 1 || !n.PerAgent[0].Silent || n.PerAgent[0].Hostname != "node-1" {
			t.Errorf("%+v", n)
		}
		s.send(agentA, recorded)
		time.Sleep(time.Second)
		if n := c.Stats(false); n.Silent != 1 || n.Duplicates != 1 || n.PerAgent != nil {
			t.Errorf("after a repeat: %+v", n)
		}
		s.send(agentA, f.next())
		synctest.Wait()
		if n := c.Stats(false); n.Silent != 0 {
			t.Errorf("after news: %+v", n)
		}
	})
	if a.Received != 3+probationFrames || a.Received != a.Delivered {
		t.Errorf("received %d, delivered %d", a.Received, a.Delivered)
	}
	want := "agent_silent node-1 0000000000000007\nagent_back node-1 0000000000000007"
	if got := silences(t, lines); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for _, line := range lines {
		if strings.Contains(line, ledger.EventAgentBack) {
			said = append(said, line)
		}
	}
	var back ledger.AgentSilence
	if len(said) != 1 || json.Unmarshal([]byte(said[0]), &back) != nil || back.LastHeard == nil ||
		back.Timestamp.Sub(*back.LastHeard) != 3*silentAfter+time.Second || back.SilentSeconds != 181 {
		t.Errorf("agent_back: %q", said)
	}
	if i := len(lines) - 2; !strings.Contains(lines[i], ledger.EventAgentBack) {
		t.Errorf("agent_back does not stand before what came then: %q", lines[i:])
	}
}

// TestSilenceOfARestart: a host is not silent while one of its streams is heard.
func TestSilenceOfARestart(t *testing.T) {
	_, lines := framed(t, Config{SilentAfter: silentAfter}, func(_ *Collector, s *fakeSocket) {
		for i := range uint64(4) {
			f := newAgent(t, 7+i, "node-1", int(i)) // the one before was killed
			s.send(agentA, f.init())
			for range probationFrames {
				s.send(agentA, f.next())
			}
			time.Sleep(silentAfter - 10*time.Second)
		}
	})
	if got := silences(t, lines); got != "" {
		t.Errorf("%s", got)
	}
}

// TestSilenceIsNotForProbation: whoever invents hosts does not fill the output.
func TestSilenceIsNotForProbation(t *testing.T) {
	_, lines := framed(t, Config{SilentAfter: silentAfter}, func(_ *Collector, s *fakeSocket) {
		f := newAgent(t, 7, "invented", 1)
		s.send(agentA, f.init(), f.next())
		time.Sleep(3 * silentAfter)
	})
	if got := silences(t, lines); got != "" {
		t.Errorf("%s", got)
	}
}

// TestSilenceAfterGoodbye: who ended in order is missed only if it is expected, and
// who is expected also if it never came.
func TestSilenceAfterGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		c, socket, end := start(t, Config{Sink: out, SilentAfter: silentAfter, Expected: []string{"node-1", "node-3"}})
		bye := func(source netip.AddrPort, host string) {
			stats := ledger.AgentStats{Event: ledger.EventAgentStats, Hostname: host, Goodbye: true}
			socket.send(source, agentInit(host, 1, "2026-01-01T00:00:00Z"), string(stats.AppendJSON(nil)))
		}
		bye(agentA, "node-1")
		bye(agentB, "node-2")
		time.Sleep(3 * silentAfter)
		if n := c.Stats(false); n.Expected != 2 || n.Unseen != 1 || n.Silent != 1 {
			t.Errorf("%+v", n)
		}
		socket.send(netip.MustParseAddrPort("192.0.2.3:1"), agentInit("node-3", 1, "2026-01-01T00:00:00Z"))
		time.Sleep(time.Second)
		if n := c.Stats(false); n.Unseen != 0 {
			t.Errorf("%+v", n)
		}
		end()
		want := "agent_silent node-1 192.0.2.1:40000 goodbye\nagent_silent node-3  never\nagent_back node-3 192.0.2.3:1 never"
		got := silences(t, out.got())
		if got != want && got != strings.Join([]string{strings.Split(want, "\n")[1], strings.Split(want, "\n")[0], strings.Split(want, "\n")[2]}, "\n") {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}

// TestSilenceOverARestart: a host that was heard before the collector was restarted,
// and not since, is missed when the new one has listened long enough.
func TestSilenceOverARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	for i, want := range []string{"", "agent_silent node-1 "} {
		synctest.Test(t, func(t *testing.T) {
			out := new(memory)
			_, socket, end := start(t, Config{Sink: out, SilentAfter: silentAfter, StateFile: file})
			if i == 0 {
				socket.send(agentA, agentInit("node-1", 1, "2026-01-01T00:00:00Z"), event)
			} else {
				time.Sleep(silentAfter + 10*time.Second)
			}
			end()
			if got := silences(t, out.got()); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// TestStatsOfFaults: what cannot be decoded is counted by format, in the sum of the
// account; a number out of order is counted.
func TestStatsOfFaults(t *testing.T) {
	framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 7})
		first, second, third := f.next(), f.next(), f.next()
		s.send(agentA, first, third, second, "junk", `{"version":"1.1",`, "<13>junk", "\xd7\x54\xff")
		synctest.Wait()
		n := c.Stats(false)
		if n.Reordered != 1 || n.Missing != 0 || n.Announced != 3 || n.Streams != 1 {
			t.Errorf("%+v", n)
		}
		var sum ledger.Faults
		for format := range n.Undecodable {
			var of uint64
			for fault, count := range n.Undecodable[format] {
				sum[fault] += count
				of += count
			}
			if of != 1 {
				t.Errorf("%s: %d faults, want 1", Formats[format], of)
			}
		}
		if sum != n.Account.Undecodable {
			t.Errorf("%v, the account has %v", sum, n.Account.Undecodable)
		}
	})
}
