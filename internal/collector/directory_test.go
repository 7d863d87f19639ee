package collector

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/metadata"
)

// agent is a framer with the agent_init that its frames name.
type agent struct {
	*framer
	record *metadata.Record
}

func newAgent(t *testing.T, stream uint64, hostname string, pid int) agent {
	t.Helper()
	record, err := metadata.NewRecord(metadata.Facts{Hostname: hostname, PID: pid, Time: time.Unix(int64(pid), 0)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := agent{newFramer(t, datagram.FrameConfig{Stream: stream}), record}
	a.packer.SetRecord(record.Digest())
	return a
}

// init returns the datagram that says who sends.
func (a agent) init() string {
	var b datagram.Batch
	a.packer.PackRecord(&b, a.record.JSON())
	return string(b.Datagrams[0])
}

// sharer is a collector with a directory.
type sharer struct {
	*Collector
	*fakeSocket
	t   *testing.T
	out *memory
	end func() ledger.Collector
}

// share starts one. Its test runs in a bubble of synctest.
func share(t *testing.T, store metadata.Store, stateFile string) *sharer {
	t.Helper()
	s := &sharer{t: t, out: new(memory)}
	s.Collector, s.fakeSocket, s.end = start(t, Config{Sink: s.out, StateFile: stateFile, Directory: metadata.NewDirectory(store, 24*time.Hour)})
	for _, in := range s.intakes {
		in.transcoder, _ = transcoder()
	}
	return s
}

// want holds the names of the agents, each with a + for each of its streams.
func (s *sharer) want(names string) {
	s.t.Helper()
	time.Sleep(3 * time.Second) // in which a store that fails is tried again
	synctest.Wait()
	var got []string
	for _, a := range s.Account().Agents {
		got = append(got, a.Hostname+strings.Repeat("+", len(a.Streams)))
	}
	if strings.Join(got, " ") != names {
		s.t.Errorf("the agents are %q, want %q", got, names)
	}
}

// wantRecords holds how often the output says who the agent is.
func (s *sharer) wantRecords(a agent, n int) {
	s.t.Helper()
	if got := strings.Count(strings.Join(s.out.got(), ""), string(a.record.JSON())); got != n {
		s.t.Errorf("the output says %d times who %s is, want %d", got, a.record.Event().Hostname, n)
	}
}

// TestFoundOut: a collector that never heard who sends finds it out, whether the
// agent said it before or says it later, and writes it like one that heard it.
func TestFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metadata.NewMemoryStore(100, 0)
		a, b := share(t, store, ""), share(t, store, "")
		before, later := newAgent(t, 1, "node-1", 11), newAgent(t, 2, "node-2", 12)
		a.send(agentA, before.init(), before.next())
		a.want("node-1+")
		b.send(agentB, before.next(), later.next())
		b.want("+ node-1+")
		a.send(agentA, later.init())
		b.want("node-1+ node-2+")
		b.wantRecords(before, 1)
		b.wantRecords(later, 1)

		// The agent repeats itself, to the other one.
		b.send(agentB, before.init(), later.init(), before.next())
		b.want("node-1+ node-2+")
		b.wantRecords(before, 1)
		for _, account := range []ledger.Collector{a.end(), b.end()} {
			for _, agent := range account.Agents {
				if agent.Restarts != 0 {
					t.Errorf("%s: %d restarts", agent.Hostname, agent.Restarts)
				}
			}
		}
	})
}

// TestFoundByDigest: the record of another start names the host; it is not written,
// for this start has another time and pid. What its frames name next is asked for
// anew.
func TestFoundByDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metadata.NewMemoryStore(100, 0)
		a, b := share(t, store, ""), share(t, store, "")
		first, again := newAgent(t, 1, "node-1", 11), newAgent(t, 2, "node-1", 12)
		a.send(agentA, first.init())
		a.want("node-1+")
		b.send(agentB, again.next())
		b.want("node-1+")
		b.wantRecords(first, 0)
		a.send(agentA, again.init()) // at last
		b.want("node-1+")
		b.wantRecords(again, 1)

		again.record = newAgent(t, 2, "node-9", 12).record
		again.packer.SetRecord(again.record.Digest())
		time.Sleep(askInterval)
		b.send(agentB, again.next())
		b.want("node-1+") // as long as nobody knows better
		a.send(agentA, again.init())
		b.want("node-9+")
		b.wantRecords(again, 1)
		a.end()
		b.end()
	})
}

// TestStoreAway: with a store that is away a collector is what it was without one.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := share(t, nobody{}, "")
		one, two := newAgent(t, 1, "node-1", 11), newAgent(t, 2, "node-2", 12)
		begin := time.Now()
		for range 100 {
			s.send(agentA, one.next(), two.next())
		}
		s.send(agentA, one.init())
		synctest.Wait()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("receiving took %v", took)
		}
		s.want("+ node-1+")
		account := s.end()
		if account.Received != 200 || account.Delivered != 200 {
			t.Errorf("received %d, delivered %d", account.Received, account.Delivered)
		}
		if stats := s.config.Directory.Stats(); stats.Errors == 0 || stats.Puts != 0 {
			t.Errorf("stats %+v", stats)
		}
	})
}

type nobody struct{}

var errNobody = errors.New("away")

func (nobody) Get(context.Context, string) ([]byte, error)       { return nil, errNobody }
func (nobody) Put(context.Context, string, []byte) error         { return errNobody }
func (nobody) Watch(context.Context, func(string, []byte)) error { return errNobody }

// TestFoundAfterRestart: streams that were not found out before a restart are asked
// for at the start, though nothing more comes of them; those that were are not.
func TestFoundAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state")
		store := metadata.NewMemoryStore(100, 0)
		known, unknown := newAgent(t, 1, "node-1", 11), newAgent(t, 2, "node-2", 12)
		s := share(t, store, file)
		s.send(agentA, known.init(), known.next(), unknown.next())
		s.want("+ node-1+")
		s.end()
		other := share(t, store, "")
		other.send(agentB, unknown.init())
		other.want("node-2+")
		other.end()
		s = share(t, store, file)
		s.want("node-1+ node-2+")
		s.send(agentA, known.next(), unknown.next())
		s.want("node-1+ node-2+")
		if stats := s.config.Directory.Stats(); stats.Hits != 1 || stats.Misses != 0 {
			t.Errorf("stats %+v", stats)
		}
		s.end()
	})
}

// TestKeptAlive: an agent that says only once who it is does not expire while it is
// heard.
func TestKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metadata.NewMemoryStore(100, 24*time.Hour)
		a, b := share(t, store, ""), share(t, store, "")
		one, silent := newAgent(t, 1, "node-1", 11), newAgent(t, 2, "node-2", 12)
		a.send(agentA, one.init(), silent.init())
		for range 12 {
			time.Sleep(4 * time.Hour)
			a.send(agentA, one.next())
			synctest.Wait()
		}
		b.send(agentB, one.next(), silent.next())
		b.want("+ node-1+")
		a.end()
		b.end()
	})
}
