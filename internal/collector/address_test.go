package collector

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// TestAnAgentWithManyPorts: an agent of plain JSON that changes its port is one stream, with
// exact figures at its goodbye, as long as one of what it says of itself at each port
// arrives; where that leaves doubt, what is missing is unknown and never a number.
func TestAnAgentWithManyPorts(t *testing.T) {
	const id = "00000000000000aa"
	port := func(i int) netip.AddrPort { return netip.AddrPortFrom(agentA.Addr(), uint16(40000+i)) }
	record := agentInit("node-1", 7, "2026-01-01T00:00:00Z")
	tests := []struct {
		name       string
		lostRecord func(port int) bool
		lostEvents int
		stats      bool // one at each port
		exact      bool
	}{
		{"record at each port", func(int) bool { return false }, 0, false, true},
		{"record and account at each port", func(int) bool { return false }, 3, true, true},
		{"records lost, but not the accounts", func(p int) bool { return p > 0 }, 2, true, true},
		{"the first record lost", func(p int) bool { return p == 0 }, 0, false, false},
		{"a record in the middle lost, and its account", func(p int) bool { return p == 2 }, 0, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, socket, end := start(t, Config{Sink: new(memory)})
				sent, lost := 0, 0
				for p := range 5 {
					if !test.lostRecord(p) {
						socket.send(port(p), record)
					}
					for range 20 {
						if sent++; lost < test.lostEvents && sent%7 == 0 {
							lost++
							continue
						}
						socket.send(port(p), event)
					}
					if test.stats {
						socket.send(port(p), agentStats(id, uint64(sent), 0, false, ""))
					}
				}
				socket.send(port(4), agentStats(id, uint64(sent), 0, true, ""))
				a := end()
				if a.Received != uint64(sent-lost) {
					t.Errorf("received %d of %d", a.Received, sent-lost)
				}
				node := agentOf(a, "node-1")
				switch {
				case test.exact:
					if len(a.Agents) != 1 || len(node.Streams) != 1 || node.Restarts != 0 {
						t.Fatalf("agents %+v", a.Agents)
					}
					s := node.Streams[0]
					if s.Missing == nil || *s.Missing != uint64(lost) || *s.Announced != uint64(sent) || s.Ended != ledger.EndedGoodbye {
						t.Errorf("%+v", s)
					}
				default:
					for _, s := range node.Streams {
						if s.Missing != nil {
							t.Errorf("%d missing of %s, and nothing was lost", *s.Missing, s.Stream)
						}
					}
				}
			})
		})
	}
}

// TestAnAgentInAFlood: a new agent that sends its first datagrams while somebody invents
// thousands of streams is known after them, and no event that it sent is called missing.
func TestAnAgentInAFlood(t *testing.T) {
	a, _ := framed(t, Config{MaxNewStreams: 64}, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 1 << 60})
		stranger := uint64(0)
		for range 5 {
			s.send(agentA, f.next(), f.next(), f.next())
			for range 200 {
				stranger++
				s.send(agentB, newFramer(t, datagram.FrameConfig{Stream: stranger}).next())
			}
		}
		synctest.Wait()
	})
	received := uint64(0)
	for _, agent := range a.Agents {
		for _, s := range agent.Streams {
			if s.Stream == fmt.Sprintf("%016x", uint64(1<<60)) {
				received = s.Received
			}
			if s.Missing != nil && *s.Missing > 0 {
				t.Errorf("stream %s: %d missing, and nothing was lost", s.Stream, *s.Missing)
			}
		}
	}
	if received != 15 {
		t.Errorf("received %d of the agent, want 15", received)
	}
}

// TestCrowded: that a limit comes near is said once, and names the option.
func TestCrowded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		key := datagram.NewKey([datagram.KeyBytes]byte{1})
		config := Config{Sink: new(memory), Keys: []*datagram.Key{key}, NewTranscoder: transcoder, MaxStreams: 20, Log: slog.New(slog.NewTextHandler(&text, nil))}
		_, socket, end := start(t, config)
		send := func(from, to int) {
			for i := from; i < to; i++ {
				socket.send(agentA, newFramer(t, datagram.FrameConfig{Stream: uint64(i), Key: key}).next())
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		send(0, 15)
		if text.Len() > 0 {
			t.Errorf("at 15 of 20: %s", text.String())
		}
		send(15, 30)
		end()
		if got := text.String(); strings.Count(got, "option=max-streams limit=20") != 1 {
			t.Errorf("log %s", got)
		}
	})
}
