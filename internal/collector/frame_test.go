package collector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/transcode"
)

// transcoder is that of GetEventsResponse.
func transcoder() (*transcode.Transcoder, error) {
	p, err := transcode.Compile((*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	return p.NewTranscoder(transcode.Options{}), nil
}

// wireEvent is an event whose JSON is {"node_name":"node-N"}.
func wireEvent(n int) []byte {
	wire, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: fmt.Sprintf("node-%d", n)})
	if err != nil {
		panic(err)
	}
	return wire
}

// framer makes frames of one event each.
type framer struct {
	t      *testing.T
	packer *datagram.Frame
	number uint64
}

func newFramer(t *testing.T, c datagram.FrameConfig) *framer {
	t.Helper()
	p, err := datagram.NewFrame(c)
	if err != nil {
		t.Fatal(err)
	}
	return &framer{t: t, packer: p}
}

func (f *framer) next() string {
	f.t.Helper()
	f.number++
	var b datagram.Batch
	if err := f.packer.Pack(&b, &datagram.Event{Number: f.number, Wire: wireEvent(int(f.number))}); err != nil {
		f.t.Fatal(err)
	}
	f.packer.Flush(&b)
	if len(b.Datagrams) != 1 {
		f.t.Fatalf("%d frames", len(b.Datagrams))
	}
	return string(b.Datagrams[0])
}

func (f *framer) stats(s *ledger.AgentStats) string {
	var b datagram.Batch
	f.packer.PackStats(&b, s.AppendJSON(nil), s.Goodbye)
	return string(b.Datagrams[0])
}

// framed runs f with a collector that reads protobuf, and returns its final
// account and lines.
func framed(t *testing.T, config Config, f func(c *Collector, s *fakeSocket)) (ledger.Collector, []string) {
	t.Helper()
	out := new(memory)
	var account ledger.Collector
	synctest.Test(t, func(t *testing.T) {
		config.Sink, config.NewTranscoder = out, transcoder
		c, socket, end := start(t, config)
		for _, in := range c.intakes {
			var err error
			if in.transcoder, err = transcoder(); err != nil {
				t.Fatal(err)
			}
		}
		f(c, socket)
		synctest.Wait()
		account = end()
	})
	return account, out.got()
}

func one(t *testing.T, a ledger.Collector) ledger.AgentStream {
	t.Helper()
	if len(a.Agents) != 1 || len(a.Agents[0].Streams) != 1 {
		t.Fatalf("agents %+v", a.Agents)
	}
	return a.Agents[0].Streams[0]
}

// TestFrames: events come out as JSON, whatever order, and once.
func TestFrames(t *testing.T) {
	a, lines := framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 7})
		first, second, third := f.next(), f.next(), f.next()
		s.send(agentA, third, first, first)
		s.send(agentB, second, third) // from another address: it is the same stream
		s.send(agentB, f.stats(&ledger.AgentStats{Event: ledger.EventAgentStats, Stream: streamID(7), Hostname: "node-1", LastNumber: 5, Goodbye: true}))
	})
	got := one(t, a)
	if *got.Announced != 5 || got.Received != 3 || *got.Missing != 2 || *got.Duplicate != 2 || got.Ended != ledger.EndedGoodbye || a.Agents[0].Hostname != "node-1" {
		t.Errorf("%+v", got)
	}
	if want := []string{`{"node_name":"node-3"}`, `{"node_name":"node-1"}`, `{"node_name":"node-2"}`}; strings.Join(lines[:3], "") != strings.Join(want, "\n")+"\n" {
		t.Errorf("lines %q", lines)
	}
	if a.Closes == nil || !*a.Closes {
		t.Errorf("closes %v", a.Closes)
	}
}

func newKeys(t *testing.T, n int) (keys []*datagram.Key) {
	t.Helper()
	for i := range n {
		keys = append(keys, datagram.NewKey([datagram.KeyBytes]byte{1: byte(i + 1)}))
	}
	return keys
}

// TestSealedOnly: with keys nothing that anybody could have sent creates state;
// either key opens, a replay is a duplicate, and a forged number moves nothing.
func TestSealedOnly(t *testing.T) {
	keys := newKeys(t, 3)
	a, lines := framed(t, Config{Keys: keys[:2]}, func(c *Collector, s *fakeSocket) {
		plain, old, current, foreign := newFramer(t, datagram.FrameConfig{Stream: 1}), newFramer(t, datagram.FrameConfig{Stream: 2, Key: keys[0]}),
			newFramer(t, datagram.FrameConfig{Stream: 3, Key: keys[1]}), newFramer(t, datagram.FrameConfig{Stream: 4, Key: keys[2]})
		s.send(agentA, plain.next(), event, old.next(), foreign.next())
		recorded := current.next()
		s.send(agentA, recorded, current.next())
		s.send(agentB, recorded) // replayed from elsewhere
		forged := []byte(current.next())
		forged[len(forged)-1] ^= 1
		s.send(agentB, string(forged))
	})
	if a.Received != 3 || len(lines) != 3 || len(a.Agents) != 1 || len(a.Agents[0].Streams) != 2 {
		t.Errorf("received %d, lines %d, agents %+v", a.Received, len(lines), a.Agents)
	}
	u := a.Undecodable
	if u[ledger.FaultUnsealed] != 2 || u[ledger.FaultUnknownKey] != 1 || u[ledger.FaultCheck] != 1 || u.Total() != 4 {
		t.Errorf("undecodable: %s", u.String())
	}
	if s := a.Agents[0].Streams[1]; *s.Duplicate != 1 {
		t.Errorf("%+v", s)
	}
}

func TestAllowedSources(t *testing.T) {
	config := Config{AllowSources: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	a, _ := framed(t, config, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 1})
		s.send(agentA, f.next(), event)
		s.send(agentB, f.next(), event)
		s.send(netip.MustParseAddrPort("[::ffff:192.0.2.1]:9"), event)
	})
	if a.Received != 3 || a.Undecodable[ledger.FaultSource] != 2 {
		t.Errorf("received %d, undecodable: %s", a.Received, a.Undecodable.String())
	}
}

// TestForeignersPushNobodyOut: however many streams someone invents, established
// ones stay, memory is bounded, and all events are in the account.
func TestForeignersPushNobodyOut(t *testing.T) {
	const invented = 3 * maxProbation
	a, _ := framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 1 << 60})
		for range probationFrames {
			s.send(agentA, f.next())
		}
		for i := range invented {
			s.send(agentB, newFramer(t, datagram.FrameConfig{Stream: uint64(i + 1)}).next())
		}
		s.send(agentA, f.next())
		synctest.Wait()
		if n := len(c.agents.probation.byKey); n != maxProbation {
			t.Errorf("%d streams on probation", n)
		}
		if s := c.agents.frames.byKey[streamKey{StreamName: datagram.StreamName{ID: 1 << 60}}]; s == nil || len(c.agents.frames.byKey) != 1 {
			t.Error("the established stream was pushed out, or another one established")
		}
	})
	if a.Received != probationFrames+1+invented {
		t.Errorf("received %d", a.Received)
	}
	last := a.Agents[len(a.Agents)-1]
	if last.Hostname != evictedName || last.Streams[0].Received != invented-maxProbation || last.Streams[0].Missing != nil {
		t.Errorf("evicted: %+v", last)
	}
}

// TestJump: one frame far ahead is not believed alone; with a second one it is,
// and nothing of it is lost.
func TestJump(t *testing.T) {
	a, lines := framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 7})
		s.send(agentA, f.next())
		for range ledger.JumpNumbers + 5 {
			f.next()
		}
		far := f.next()
		s.send(agentA, far)
		synctest.Wait()
		if got := c.Account(); got.Received != 1 {
			t.Errorf("received %d while only one frame says so", got.Received)
		}
		s.send(agentA, f.next())
	})
	if s := one(t, a); s.Received != 3 || *s.Missing != ledger.JumpNumbers+5 || len(lines) != 3 {
		t.Errorf("%+v, %d lines", s, len(lines))
	}
	a, _ = framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 7})
		s.send(agentA, f.next())
		g := newFramer(t, datagram.FrameConfig{Stream: 7})
		for range ledger.JumpNumbers + 5 {
			g.next()
		}
		s.send(agentB, g.next()) // forged
		s.send(agentA, f.next())
	})
	if s := one(t, a); s.Received != 2 || *s.Announced != 2 || a.Undecodable[ledger.FaultJump] != 1 {
		t.Errorf("%+v, undecodable %s", s, a.Undecodable.String())
	}
}

// TestUnusableContent: the events of a frame that can be trusted, but not be
// used, are received and dropped; one that is no message is written as it came.
func TestUnusableContent(t *testing.T) {
	a, lines := framed(t, Config{}, func(c *Collector, s *fakeSocket) {
		unknown, err := datagram.NewDictionary(bytes.Repeat([]byte("node-1node_name"), 20))
		if err != nil {
			t.Fatal(err)
		}
		p, err := datagram.NewFrame(datagram.FrameConfig{Stream: 1, Compression: datagram.CompressionS2, Dictionary: unknown})
		if err != nil {
			t.Fatal(err)
		}
		var b datagram.Batch
		for n := range uint64(20) {
			if err := p.Pack(&b, &datagram.Event{Number: n + 1, Wire: wireEvent(1)}); err != nil {
				t.Fatal(err)
			}
		}
		p.Flush(&b)
		s.send(agentA, string(b.Datagrams[0]))
		q, err := datagram.NewFrame(datagram.FrameConfig{Stream: 2})
		if err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if err := q.Pack(&b, &datagram.Event{Number: 1, Wire: []byte{0xff, 0xff}}); err != nil {
			t.Fatal(err)
		}
		q.Flush(&b)
		s.send(agentA, string(b.Datagrams[0]))
	})
	if a.Received != 21 || a.Dropped[ledger.UnknownDictionary] != 20 || a.Delivered != 1 {
		t.Errorf("received %d, delivered %d, dropped %s", a.Received, a.Delivered, a.Dropped.String())
	}
	if want := `{"tetracast_undecoded":"//8=","stream":"0000000000000002","number":1}` + "\n"; len(lines) != 1 || lines[0] != want {
		t.Errorf("lines %q", lines)
	}
	if len(lines) == 1 && !json.Valid([]byte(lines[0])) {
		t.Errorf("no JSON: %q", lines[0])
	}
}

// TestRestart: a collector goes on from its state; after an end in order what was
// lost meanwhile is missing, after a kill it is unknown.
func TestRestart(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed_%v", killed), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state")
			f := newFramer(t, datagram.FrameConfig{Stream: 7})
			saved := filepath.Join(t.TempDir(), "saved")
			_, _ = framed(t, Config{StateFile: file}, func(c *Collector, s *fakeSocket) {
				for range 10 {
					s.send(agentA, f.next())
				}
				s.send(agentA, agentInit("node-1", 1, "2026-01-01T00:00:00Z"), event, event)
				time.Sleep(3 * time.Second) // it was saved
				if err := writeCopy(file, saved); err != nil {
					t.Fatal(err)
				}
				for range 5 {
					s.send(agentA, f.next())
				}
			})
			if killed { // what a kill leaves is what was saved last
				file = saved
			}
			f.next() // lost while it was down
			a, _ := framed(t, Config{StateFile: file}, func(c *Collector, s *fakeSocket) {
				s.send(agentA, f.next(), f.next())
			})
			var numbered ledger.AgentStream
			for _, agent := range a.Agents {
				for _, s := range agent.Streams {
					if s.Numbers != nil {
						numbered = s
					}
				}
			}
			received, missing, unknown := uint64(17), uint64(1), uint64(0)
			if killed {
				received, missing, unknown = 12, 0, 6
			}
			if numbered.Received != received || *numbered.Missing != missing || *numbered.Unknown != unknown || *numbered.Announced != 18 {
				t.Errorf("received %d, missing %d, unknown %d of %d; want %d, %d, %d of 18",
					numbered.Received, *numbered.Missing, *numbered.Unknown, *numbered.Announced, received, missing, unknown)
			}
			if a.Received != received+2 || a.Delivered != received+2 {
				t.Errorf("received %d, delivered %d: the totals go on", a.Received, a.Delivered)
			}
		})
	}
}

// TestUnreadableState is put aside.
func TestUnreadableState(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":99}`, `{"version":1,"totals":{"received":5}}`} {
		file := filepath.Join(t.TempDir(), "state")
		if err := writeText(file, text); err != nil {
			t.Fatal(err)
		}
		a, _ := framed(t, Config{StateFile: file}, func(c *Collector, s *fakeSocket) {
			s.send(agentA, event)
		})
		if a.Received != 1 {
			t.Errorf("%q: received %d", text, a.Received)
		}
		if got, err := readText(file + ".unreadable"); err != nil || got != text {
			t.Errorf("%q is not put aside: %q, %v", text, got, err)
		}
	}
}

func writeText(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func readText(path string) (string, error) {
	text, err := os.ReadFile(path)
	return string(text), err
}

func writeCopy(from, to string) error {
	text, err := readText(from)
	if err != nil {
		return err
	}
	return writeText(to, text)
}
