package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/internal/replay"
	"tetracast/internal/udp/impair"
	"tetracast/ledger"
)

// soakTime is how long TestSoak runs: a moment, or what TETRACAST_SOAK says, for
// which make soak sets ten minutes.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("TETRACAST_SOAK")
	if text == "" {
		return 4 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TETRACAST_SOAK=%q: %v", text, err)
	}
	return d
}

// use is what a process takes of the machine.
type use struct{ rssKiB, descriptors, threads int }

func useOf(t *testing.T, p *process) (u use) {
	t.Helper()
	folder := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(folder + "status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		switch fields[0] {
		case "VmRSS:":
			u.rssKiB, _ = strconv.Atoi(fields[1])
		case "Threads:":
			u.threads, _ = strconv.Atoi(fields[1])
		}
	}
	descriptors, err := os.ReadDir(folder + "fd")
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors = len(descriptors)
	return u
}

// TestSoak: 20,000 events a second through a network whose faults come and go.
// Memory, descriptors and threads stay flat, and at the end every datagram is
// accounted for.
func TestSoak(t *testing.T) {
	total := soakTime(t)
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	account := filepath.Join(folder, "export.json")
	serve(t, address, replay.Config{Loop: true, EventsPerSecond: 20_000, Recording: shortEvents(t, folder)})
	collect := startCollect(t, "--exit-idle", "20s", "--write", "/dev/null")
	faults := []impair.Config{{}, {Drop: 0.1}, {Duplicate: 0.1}, {Corrupt: 0.01}, {Reorder: 0.2, ReorderBy: 50}, {Drop: 0.5}}
	network, err := impair.New(netip.MustParseAddrPort(collect.address), faults[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var truth impair.Truth
	done := make(chan error, 1)
	go func() {
		var err error
		truth, err = network.Run(ctx)
		done <- err
	}()
	export := run(t, "export", "--server-address", address, "--udp-destination", network.Addr().String(), "--account", account)
	export.waitLog("Subscribed")
	const steps = 20
	var early, late [2]use
	for step := range steps {
		network.Set(faults[step%len(faults)])
		time.Sleep(total / steps)
		uses := [2]use{useOf(t, export), useOf(t, collect.process)}
		if step == steps/4 {
			early = uses
		}
		late = uses
	}
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	if code := export.wait(10 * time.Second); code != 0 {
		t.Errorf("export exited with %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	collect.wait(60 * time.Second)
	exported, collected := readJSON[ledger.Exporter](t, account), readJSON[ledger.Collector](t, collect.account)
	if err := errors.Join(exported.Check(), collected.Check()); err != nil {
		t.Error(err)
	}
	if exported.Streams[0].Datagrams != truth.Received+truth.Missed {
		t.Errorf("sent %d datagrams, the network got %d and missed %d", exported.Streams[0].Datagrams, truth.Received, truth.Missed)
	}
	if got := collected.Datagrams + collected.Observed.SocketDropped; got != truth.Passed {
		t.Errorf("the network passed %d datagrams, received %d and dropped by the socket %d", truth.Passed, collected.Datagrams, collected.Observed.SocketDropped)
	}
	for i, name := range []string{"export", "collect"} {
		if late[i].descriptors > early[i].descriptors+3 || late[i].threads > early[i].threads+5 || late[i].rssKiB > early[i].rssKiB*5/4+8<<10 {
			t.Errorf("%s grew from %+v to %+v", name, early[i], late[i])
		}
	}
	t.Logf("%v: seen %d events, passed %d of %d datagrams, the collector's socket dropped %d; export %+v, collect %+v",
		total, exported.Seen, truth.Passed, truth.Received, collected.Observed.SocketDropped, late[0], late[1])
}

// shortEvents makes a recording of the sample's events of up to 1,000 bytes.
func shortEvents(t *testing.T, folder string) (path string) {
	t.Helper()
	plain := plainSample(t)
	var out []byte
	for len(plain) > 0 {
		length, n := uvarint(plain)
		if length <= 1000 {
			out = append(out, plain[:n+length]...)
		}
		plain = plain[n+length:]
	}
	path = filepath.Join(folder, "short.binpb")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func uvarint(b []byte) (value, length int) {
	v, n := binary.Uvarint(b)
	return int(v), n
}
