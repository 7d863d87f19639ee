package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/exporter"
	"tetracast/ledger"
)

// TestSharing: three collectors share who sends, through a cluster of their own
// servers. Two hundred agents, which say once who they are, move between them, and
// a part of them starts while one of the collectors is dead. Each collector knows
// the agent of each stream of which anything came to it, before any agent said it
// again; and not one event is lost in the account.
func TestSharing(t *testing.T) {
	first, later := 120, 80
	if testing.Short() {
		first, later = 30, 20
	}
	key := filepath.Join(t.TempDir(), "peers.key")
	if made := run(t, "key", "new", key); made.wait(20*time.Second) != 0 {
		t.Fatal(made.log.String())
	}
	var peers []string
	for range 3 {
		peers = append(peers, freeTCP(t))
	}
	f := newFleet(t, len(peers), func(i int) []string {
		return []string{"--metadata-listen", peers[i], "--metadata-peers", strings.Join(peers, ","), "--metadata-key-file", key}
	})
	f.loseNoAgentInit = true
	hosts := map[string]string{} // by stream
	start := func(n int) {
		for range n {
			hostname := fmt.Sprintf("node-%03d", len(f.agents))
			f.startAgent(exporter.Config{MetadataInterval: -1, StatsInterval: time.Hour}, hostname)
			hosts[f.agents[len(f.agents)-1].Account().Streams[0].Stream] = hostname
		}
	}
	round := 0
	send := func(rounds int) {
		for range rounds {
			f.sendRound(round)
			round++
		}
	}

	// The cluster has yet to agree on a leader when the first agents say who they are.
	start(first)
	send(20)
	f.wantNames(hosts, 0, 1, 2)

	f.stop(1, syscall.SIGKILL)
	start(later)
	send(20)
	f.wantNames(hosts, 0, 2)

	f.start(f.collectors[1])
	send(20)
	names := f.wantNames(hosts, 0, 1, 2)

	f.hold(f.end())
	for i, c := range f.collectors {
		shared := regexp.MustCompile(`The metadata was shared" hits=(\d+) .*`).FindStringSubmatch(c.log.String())
		if shared == nil {
			t.Fatalf("collector %d does not say what it shared", i)
		}
		t.Logf("collector %d: %s", i, shared[0])
		if hits, _ := strconv.Atoi(shared[1]); hits < later/4 {
			t.Errorf("collector %d: of %d agents only %d were found out", i, first+later, hits)
		}
		if !strings.Contains(shared[0], "bad_entries=0") {
			t.Errorf("collector %d found bad entries", i)
		}
	}
	// What was found out stands in the output, as if it had come there.
	for _, i := range []int{0, 2} {
		out, err := os.ReadFile(filepath.Join(f.collectors[i].folder, "out.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, hostname := range names[i] {
			if !strings.Contains(string(out), `"hostname":"`+hostname+`"`) {
				t.Errorf("the output of collector %d does not say who %s is", i, hostname)
			}
		}
	}
}

// wantNames waits until the collectors know the agent of each stream that came to
// them, and returns the names for each.
func (f *fleet) wantNames(hosts map[string]string, collectors ...int) map[int][]string {
	f.t.Helper()
	names := map[int][]string{}
	for _, i := range collectors {
		c := f.collectors[i]
		var streams, nameless int
		deadline := time.Now().Add(90 * time.Second)
		for streams = 0; streams == 0 || nameless > 0; {
			if time.Now().After(deadline) {
				f.t.Fatalf("collector %d does not know %d of %d:\n%s", i, nameless, streams, c.log.String())
			}
			streams, nameless, names[i] = 0, 0, nil
			for _, agent := range c.accountNow(f.t).Agents {
				names[i] = append(names[i], agent.Hostname)
				for _, s := range agent.Streams {
					streams++
					switch agent.Hostname {
					case "":
						nameless++
					case hosts[s.Stream]:
					default:
						f.t.Fatalf("collector %d: stream %s is of %s, not %s", i, s.Stream, hosts[s.Stream], agent.Hostname)
					}
				}
			}
		}
		f.t.Logf("collector %d knows the agents of all its %d streams", i, streams)
		if streams < len(hosts)*2/3 {
			f.t.Errorf("only %d of %d agents came to collector %d", streams, len(hosts), i)
		}
	}
	return names
}

// accountNow asks the collector for its account.
func (c *fleetCollector) accountNow(t *testing.T) ledger.Collector {
	t.Helper()
	path := filepath.Join(c.folder, "account.json")
	_ = os.Remove(path)
	if err := c.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitFor(t, c.process, "the account", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	return readJSON[ledger.Collector](t, path)
}

// freeTCP returns a TCP address that was free a moment ago.
func freeTCP(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
