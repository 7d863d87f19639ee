package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/internal/udp/netns"
	"tetracast/ledger"
)

// TestFiniteSource: a source that ends by itself is sent to its end, however slow the
// way, with the defaults; the account says goodbye.
func TestFiniteSource(t *testing.T) {
	want, _ := sampleOracle(t)
	account := filepath.Join(t.TempDir(), "export.json")
	collect := startCollect(t, "--exit-idle", "1s")
	begin := time.Now()
	export := runWith(t, strings.NewReader(strings.Join(want, "")), "export", "--source", "-",
		"--udp-destination", collect.address, "--max-datagrams-per-second", "300", "--account", account)
	for _, p := range []*process{export, collect.process} {
		if code := p.wait(time.Minute); code != 0 {
			t.Errorf("%s exited with %d", p.name, code)
		}
	}
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("683 events at 300 a second took %v: nothing was slow", took)
	}
	r := read(t, collect, account)
	if s := r.exporter.Streams[0]; s.Sent != uint64(len(want)) || len(r.events) != len(want) {
		t.Errorf("of %d events %d were sent and %d received; dropped %v and %v", len(want), s.Sent, len(r.events), &r.exporter.Dropped, &s.Dropped)
	}
}

// TestFiniteSourceMeetsSignal: only a signal bounds the sending of what is left, from
// then on.
func TestFiniteSourceMeetsSignal(t *testing.T) {
	want, _ := sampleOracle(t)
	account := filepath.Join(t.TempDir(), "export.json")
	export := runWith(t, strings.NewReader(strings.Join(want, "")), "export", "--source", "-",
		"--udp-destination", freeUDP(t), "--max-datagrams-per-second", "100", "--account", account)
	export.waitLog("No more events come")
	time.Sleep(time.Second)
	begin := time.Now()
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	if code := export.wait(30 * time.Second); code != 0 {
		t.Errorf("exited with %d", code)
	}
	took, a := time.Since(begin), readJSON[ledger.Exporter](t, account)
	s := a.Streams[0]
	lost := a.Dropped[ledger.Shutdown] + s.Dropped[ledger.Shutdown]
	if err := a.Check(); err != nil || a.Seen != uint64(len(want)) || s.Sent < 50 || lost < 50 {
		t.Errorf("%v after the signal: seen %d, sent %d, lost for shutdown %d, %v", took, a.Seen, s.Sent, lost, err)
	}
}

// TestFiniteSourceNarrowLink: over a link that carries 8 Mbit/s, what a recording holds
// is on the other side when export ends, counted there by a socket that knows nothing
// of us.
func TestFiniteSourceNarrowLink(t *testing.T) {
	link := netns.New(t, "tc")
	link.Sh(link.Sender, "tc qdisc add dev va root tbf rate 8mbit burst 10kb limit 1mb")
	folder := t.TempDir()
	address, account := "unix://"+filepath.Join(folder, "tetragon.sock"), filepath.Join(folder, "export.json")
	var conn *net.UDPConn
	link.In(link.Receiver, func() {
		var err error
		if conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7514}); err != nil {
			t.Fatal(err)
		}
	})
	_ = conn.SetReadBuffer(32 << 20)
	counted := make(chan int, 1)
	go func() {
		n, buffer := 0, make([]byte, 1<<16)
		for {
			if _, _, err := conn.ReadFromUDPAddrPort(buffer); err != nil {
				counted <- n
				return
			}
			n++
		}
	}()
	var export *process
	link.In(link.Sender, func() {
		server := run(t, "replay", "--server-address", address)
		server.waitLog("Serving")
		export = run(t, "export", "--server-address", address, "--udp-destination", netns.ReceiverIP+":7514", "--reconnect=false", "--account", account)
	})
	if code := export.wait(time.Minute); code != 0 {
		t.Errorf("exited with %d", code)
	}
	time.Sleep(200 * time.Millisecond) // what the link still holds
	_ = conn.Close()
	a := readJSON[ledger.Exporter](t, account)
	s := a.Streams[0]
	if err := a.Check(); err != nil || s.Sent != a.Seen || a.Seen < 600 {
		t.Errorf("seen %d, sent %d, dropped %v and %v, %v", a.Seen, s.Sent, &a.Dropped, &s.Dropped, err)
	}
	if got := <-counted; uint64(got) != s.Datagrams {
		t.Errorf("%d datagrams were sent, and %d arrived", s.Datagrams, got)
	}
}
