package collector

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// keyOf returns the key of a host, or the master itself.
func keyOf(t *testing.T, master *datagram.Key, host string) *datagram.Key {
	t.Helper()
	if host == "" {
		return master
	}
	key, err := master.ForHost(host)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// own returns a frame with what an agent says of itself.
func (f *framer) own(record string) string {
	f.t.Helper()
	var b datagram.Batch
	if strings.Contains(record, "agent_init") {
		f.packer.PackRecord(&b, []byte(record+"\n"))
	} else {
		f.packer.PackStats(&b, []byte(record), false)
	}
	return string(b.Datagrams[0])
}

func agentOf(a ledger.Collector, hostname string) ledger.Agent {
	for _, agent := range a.Agents {
		if agent.Hostname == hostname {
			return agent
		}
	}
	return ledger.Agent{}
}

// TestKeysOfHosts: the holder of a host's key speaks for this host and for no other: not by
// what it says of itself, not under another's stream id, and not by the fleet's key.
func TestKeysOfHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		master, fleet := datagram.NewKey([datagram.KeyBytes]byte{1}), datagram.NewKey([datagram.KeyBytes]byte{2})
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out, Keys: []*datagram.Key{master, fleet}, NewTranscoder: transcoder})
		const id = 0xabcdef
		a := newFramer(t, datagram.FrameConfig{Stream: id, Key: keyOf(t, master, "node-a")})
		b := newFramer(t, datagram.FrameConfig{Stream: id, Key: keyOf(t, master, "node-b")}) // it can read a's id
		c := newFramer(t, datagram.FrameConfig{Stream: 7, Key: fleet})
		socket.send(agentA, a.own(agentInit("node-a", 1, "2026-01-01T00:00:00Z")), a.next(), a.next())
		synctest.Wait()
		for range 20 {
			b.number += 1000
			socket.send(agentA, b.next()) // far ahead
		}
		socket.send(agentB,
			b.own(agentInit("node-a", 2, "2026-01-01T00:00:00Z")), c.own(agentInit("node-a", 3, "2026-01-01T00:00:00Z")),
			b.own(`{"@timestamp":"","event":"agent_stats","hostname":"node-a","last_number":99,"goodbye":true}`),
			c.own(`{"@timestamp":"","event":"agent_stats","hostname":"node-a","last_number":99}`),
			fmt.Sprintf(`{"@timestamp":"","event":"agent_stats","stream":"%016x","hostname":"node-a","goodbye":true}`, id), c.next())
		socket.send(agentA, a.next())
		account := end()
		got := agentOf(account, "node-a")
		if len(got.Streams) != 1 || got.Restarts != 0 || got.Streams[0].Received != 3 || *got.Streams[0].Missing != 0 || *got.Streams[0].Announced != 3 ||
			got.Streams[0].Ended != ledger.EndedUnknown || got.Streams[0].KeyHost != "node-a" {
			t.Errorf("node-a: %+v", got)
		}
		if other := agentOf(account, "node-b"); len(other.Streams) != 1 || other.Streams[0].Received != 20 {
			t.Errorf("node-b, whose agent_init never named it: %+v", other)
		}
		if nobody := agentOf(account, ""); len(nobody.Streams) != 1 || nobody.Streams[0].Received != 1 {
			t.Errorf("the stream of the fleet's key: %+v", nobody)
		}
		if account.Undecodable[ledger.FaultHost] != 4 || account.Undecodable[ledger.FaultUnsealed] != 1 {
			t.Errorf("undecodable: %s", account.Undecodable.String())
		}
		if text := strings.Join(out.got(), ""); strings.Count(text, `"agent_init"`) != 1 || strings.Contains(text, `"last_number":99`) {
			t.Errorf("what was refused is written:\n%s", text)
		}
	})
}

// TestAKeyTakesAName: streams that said that they were of a host are not any more when it
// comes with its key, and its figures begin with its own.
func TestAKeyTakesAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		master, fleet := datagram.NewKey([datagram.KeyBytes]byte{1}), datagram.NewKey([datagram.KeyBytes]byte{2})
		_, socket, end := start(t, Config{Sink: new(memory), Keys: []*datagram.Key{fleet, master}, NewTranscoder: transcoder})
		c := newFramer(t, datagram.FrameConfig{Stream: 7, Key: fleet})
		a := newFramer(t, datagram.FrameConfig{Stream: 8, Key: keyOf(t, master, "node-a")})
		socket.send(agentB, c.own(agentInit("node-a", 3, "2026-01-01T00:00:00Z")), c.next())
		synctest.Wait()
		socket.send(agentA, a.next())
		account := end()
		if got := agentOf(account, "node-a"); len(got.Streams) != 1 || got.Streams[0].KeyHost != "node-a" {
			t.Errorf("node-a: %+v", got)
		}
		if nobody := agentOf(account, ""); len(nobody.Streams) != 1 || nobody.Streams[0].Received != 1 {
			t.Errorf("the other: %+v", nobody)
		}
	})
}

// TestUnsealedTouchesNothing: with a key, --allow-source or not, whatever is not sealed
// changes nothing, in any format and under the id of a sealed stream, and says so.
func TestUnsealedTouchesNothing(t *testing.T) {
	for _, allowed := range [][]netip.Prefix{nil, {netip.MustParsePrefix("0.0.0.0/0")}} {
		synctest.Test(t, func(t *testing.T) {
			key := datagram.NewKey([datagram.KeyBytes]byte{1})
			c, socket, end := start(t, Config{Sink: new(memory), Keys: []*datagram.Key{key}, AllowSources: allowed, NewTranscoder: transcoder})
			const id = 0xabcdef
			sealed := newFramer(t, datagram.FrameConfig{Stream: id, Key: key})
			open := newFramer(t, datagram.FrameConfig{Stream: id})
			socket.send(agentA, sealed.own(agentInit("node-a", 1, "2026-01-01T00:00:00Z")), sealed.next())
			synctest.Wait()
			before := fmt.Sprintf("%+v", c.Account().Agents)
			forged := []string{
				open.next(), open.own(agentInit("node-a", 9, "2026-01-01T00:00:00Z")),
				agentInit("node-a", 9, "2026-01-01T00:00:00Z"),
				fmt.Sprintf(`{"@timestamp":"","event":"agent_stats","stream":"%016x","hostname":"node-a","last_number":9,"goodbye":true}`, id),
				fmt.Sprintf(`{"process_exec":{},"time":"","tetracast":{"stream":"%016x","seq":18446744073709551000,"dropped":0}}`, id),
				fmt.Sprintf(`<13>1 - h a - - [tetracast@1 stream="%016x" seq="70000" dropped="0"] {"process_exec":{},"time":""}`, id),
				fmt.Sprintf(`{"version":"1.1","short_message":"x","_event_type":"process_exec","_tetracast_stream":"%016x","_tetracast_seq":5}`, id),
				event, "text",
			}
			socket.send(agentA, forged...)
			synctest.Wait()
			if after := fmt.Sprintf("%+v", c.Account().Agents); len(after) != len(before) {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
			socket.send(agentA, sealed.next())
			a := end()
			if a.Undecodable[ledger.FaultUnsealed] != uint64(len(forged)) || a.Received != 2 || len(a.Agents) != 1 || a.Agents[0].Restarts != 0 || *a.Agents[0].Streams[0].Missing != 0 {
				t.Errorf("undecodable %s; agents %+v", a.Undecodable.String(), a.Agents)
			}
		})
	}
}

// TestAHostEvictsOnlyItself: however many streams the holder of a host's key begins, no
// other host's makes room for them.
func TestAHostEvictsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		master := datagram.NewKey([datagram.KeyBytes]byte{1})
		c, socket, end := start(t, Config{Sink: new(memory), Keys: []*datagram.Key{master}, NewTranscoder: transcoder})
		c.agents = newAgents(maxHostStreams+8, 8, 8)
		honest := newFramer(t, datagram.FrameConfig{Stream: 1, Key: keyOf(t, master, "node-a")})
		socket.send(agentA, honest.next())
		time.Sleep(time.Hour)
		stolen := keyOf(t, master, "node-b")
		for i := range 3 * maxHostStreams {
			socket.send(agentB, newFramer(t, datagram.FrameConfig{Stream: uint64(i), Key: stolen}).next())
		}
		synctest.Wait()
		socket.send(agentA, honest.next())
		a := end()
		if got := agentOf(a, "node-a"); len(got.Streams) != 1 || got.Streams[0].Received != 2 || *got.Streams[0].Missing != 0 {
			t.Errorf("node-a: %+v", got)
		}
		if got := agentOf(a, "node-b"); len(got.Streams) != maxHostStreams {
			t.Errorf("node-b has %d streams, want %d", len(got.Streams), maxHostStreams)
		}
	})
}

// TestKeysOfHostsOutlastARestart: what is known of a host's key is known to the process
// after.
func TestKeysOfHostsOutlastARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := t.TempDir() + "/state"
		master, fleet := datagram.NewKey([datagram.KeyBytes]byte{1}), datagram.NewKey([datagram.KeyBytes]byte{2})
		config := Config{Sink: new(memory), Keys: []*datagram.Key{master, fleet}, NewTranscoder: transcoder, StateFile: file}
		a := newFramer(t, datagram.FrameConfig{Stream: 8, Key: keyOf(t, master, "node-a")})
		c := newFramer(t, datagram.FrameConfig{Stream: 7, Key: fleet})
		_, socket, end := start(t, config)
		socket.send(agentA, a.own(agentInit("node-a", 1, "2026-01-01T00:00:00Z")), a.next())
		end()
		config.Sink = new(memory)
		_, socket, end = start(t, config)
		socket.send(agentB, c.own(agentInit("node-a", 3, "2026-01-01T00:00:00Z")))
		socket.send(agentA, a.next())
		account := end()
		if got := agentOf(account, "node-a"); len(got.Streams) != 1 || got.Streams[0].Received != 2 || got.Restarts != 0 || *got.Streams[0].Missing != 0 {
			t.Errorf("node-a: %+v", got)
		}
		if account.Undecodable[ledger.FaultHost] != 1 {
			t.Errorf("undecodable %s", account.Undecodable.String())
		}
	})
}
