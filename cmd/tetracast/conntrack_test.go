package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tetracast/internal/replay"
	"tetracast/internal/udp/netns"
	"tetracast/ledger"
)

// cluster is two namespaces with a Service before two pods, whose rules are those of
// kube-proxy: an address that no device has, translated where a flow begins.
type cluster struct {
	*netns.Link
	rules string   // the namespace with the rules: the sender's, or that of the sender's node
	hook  string   // where they translate
	deny  string   // and where they reject
	pods  []string // addresses
}

const serviceIP = "10.96.0.10"

// newCluster makes one for a sender in the host's network, or in a pod.
func newCluster(t *testing.T, pod bool) *cluster {
	c := &cluster{Link: netns.New(t, "nft")}
	c.rules, c.hook, c.deny, c.pods = c.Sender, "output", "output", []string{"198.18.0.2", "198.18.0.3"}
	c.Sh(c.Receiver, "ip addr add 198.18.0.3/24 dev vb")
	if pod {
		c.rules, c.hook, c.deny, c.pods = c.Receiver, "prerouting", "forward", []string{"198.18.1.2", "198.18.1.3"}
		c.Sh(c.Receiver, "sysctl -qw net.ipv4.ip_forward=1 && ip addr add 198.18.1.2/32 dev lo && ip addr add 198.18.1.3/32 dev lo && ip route add 10.96.0.0/16 dev vb")
	}
	c.Sh(c.Sender, "ip route add 10.96.0.0/16 via "+netns.ReceiverIP)
	c.Sh(c.rules, fmt.Sprintf("nft add table ip kube && nft add chain ip kube nat '{ type nat hook %s priority -100; }' && "+
		"nft add chain ip kube filter '{ type filter hook %s priority 0; }'", c.hook, c.deny))
	return c
}

// endpoint makes a pod the one behind the Service; nobody: there is none.
func (c *cluster) endpoint(pod string) {
	c.Sh(c.rules, "nft flush chain ip kube nat && nft flush chain ip kube filter")
	if pod == nobody {
		c.Sh(c.rules, "nft add rule ip kube filter ip daddr "+serviceIP+" udp dport 7514 ct state new reject")
		return
	}
	c.Sh(c.rules, "nft add rule ip kube nat ip daddr "+serviceIP+" udp dport 7514 dnat to "+pod)
}

const nobody = ""

// listen receives as a pod, with nothing of ours.
func (c *cluster) listen(t *testing.T, pod string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	c.In(c.Receiver, func() {
		var err error
		if conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(pod), Port: 7514}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestStaleConntrack (S10): the collector's pod is replaced, the Service's address
// stays, and the connection table goes on leading the exporter's source port to the pod
// that is gone. Whatever answers leads to another port, and the new pod gets events; so
// it does by the clock, where nothing answers. Defaults, in frames, as the chart has it.
func TestStaleConntrack(t *testing.T) {
	var cells sync.WaitGroup
	defer cells.Wait()
	for _, where := range []string{"host", "pod"} {
		for _, between := range []string{"closed", "reject", "silent"} {
			cells.Go(func() {
				t.Run(where+"/"+between, func(t *testing.T) { replacePod(t, newCluster(t, where == "pod"), between) })
			})
		}
	}
}

func replacePod(t *testing.T, c *cluster, between string) {
	folder := t.TempDir()
	address, account := "unix://"+filepath.Join(folder, "tetragon.sock"), filepath.Join(folder, "export.json")
	serve(t, address, replay.Config{EventsPerSecond: 50, Loop: true})
	first, second := c.listen(t, c.pods[0]), c.listen(t, c.pods[1])
	c.endpoint(c.pods[0])
	args := []string{"export", "--server-address", address, "--udp-destination", "frame://" + serviceIP, "--account", account}
	if between == "silent" {
		args = append(args, "--rotate-source-port", "1s")
	}
	var export *process
	c.In(c.Sender, func() { export = run(t, args...) })
	if n := readFor(first, 20*time.Second, 10); n < 10 {
		t.Fatalf("%d datagrams arrived at the first pod", n)
	}
	if n := readFor(second, 100*time.Millisecond, 1); n > 0 {
		t.Fatal("the second pod gets datagrams already")
	}
	switch between {
	case "closed":
		_ = first.Close()
		c.endpoint(c.pods[1])
	case "reject":
		_ = first.Close()
		c.endpoint(nobody)
		time.Sleep(time.Second)
		c.endpoint(c.pods[1])
	case "silent":
		c.Sh(c.Receiver, "nft add table ip gone && nft add chain ip gone in '{ type filter hook input priority 10; }' && nft add rule ip gone in ip daddr "+c.pods[0]+" udp dport 7514 drop")
		c.endpoint(c.pods[1])
	}
	begin := time.Now()
	if n := readFor(second, 30*time.Second, 1); n == 0 {
		t.Fatal("the new pod got nothing for 30 s")
	}
	took := time.Since(begin)
	if n := readFor(second, 20*time.Second, 10); n < 10 {
		t.Errorf("only %d more datagrams arrived at the new pod", n)
	}
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	export.wait(10 * time.Second)
	a := readJSON[ledger.Exporter](t, account)
	if answers := len(a.Observed.ICMPAnswers) > 0; answers == (between == "silent") {
		t.Errorf("answers: %v", a.Observed.ICMPAnswers)
	}
	t.Logf("the new pod got datagrams after %v; sent %d, dropped %v, answers %v, %d other ports for trouble", took.Round(time.Millisecond),
		a.Streams[0].Sent, a.Streams[0].Dropped.String(), a.Observed.ICMPAnswers, strings.Count(export.log.String(), "Another source port"))
}

// readFor reads until so many datagrams came, or the time is over.
func readFor(conn *net.UDPConn, limit time.Duration, want int) (n int) {
	buffer := make([]byte, 1<<16)
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	for n < want {
		if _, err := conn.Read(buffer); err != nil {
			return n
		}
		n++
	}
	return n
}
