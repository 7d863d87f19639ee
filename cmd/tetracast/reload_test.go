package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/ledger"
)

// TestReload: on SIGHUP export takes over other destinations, filters and another log
// level, all or nothing; the destination that stays misses nothing; what cannot be
// changed is named.
func TestReload(t *testing.T) {
	folder := t.TempDir()
	address, path, account := "unix://"+filepath.Join(folder, "tetragon.sock"), filepath.Join(folder, "tetracast.yaml"), filepath.Join(folder, "export.json")
	run(t, "replay", "--server-address", address, "--loop", "--rate", "500").waitLog("Serving")
	stays, goes, comes := startCollect(t), startCollect(t), startCollect(t)
	configure := func(destinations, more string) {
		t.Helper()
		text := fmt.Sprintf("export:\n  udp-destination: [%s]\n  format: frame\n%s", destinations, more)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(stays.address+", "+goes.address, "")
	export := run(t, "export", "--config", path, "--server-address", address, "--account", account)
	export.waitLog("Subscribed")
	time.Sleep(300 * time.Millisecond) // some events

	// Wrong in one place: nothing changes.
	configure(comes.address, "  log-level: loud\n")
	_ = export.cmd.Process.Signal(syscall.SIGHUP)
	export.waitLog("is not reloaded")
	configure(comes.address+", nowhere://x", "")
	_ = export.cmd.Process.Signal(syscall.SIGHUP)
	export.waitLog(`unknown format \"nowhere\"`)
	if o := readSignalled(t, export, account); len(o.Streams) != 2 {
		t.Fatalf("a configuration that is wrong was taken: %+v", o.Streams)
	}

	configure(stays.address+", "+comes.address, "  log-level: debug\n  queue-bytes: 1000000\n  deny-list: '{\"event_set\":[\"PROCESS_EXIT\"]}'\n")
	_ = export.cmd.Process.Signal(syscall.SIGHUP)
	export.waitLog("was reloaded")
	if log := export.waitLog("wait for a restart"); !strings.Contains(log, "flags=[queue-bytes]") || !strings.Contains(log, "deny=1") {
		t.Errorf("the log:\n%s", log)
	}
	time.Sleep(300 * time.Millisecond) // some more
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	if code := export.wait(10 * time.Second); code != 0 {
		t.Errorf("export exited with %d", code)
	}
	out := readJSON[ledger.Exporter](t, account)
	if err := out.Check(); err != nil || len(out.Streams) != 3 {
		t.Fatalf("%d streams, %v", len(out.Streams), err)
	}
	slices.SortFunc(out.Streams, func(a, b ledger.Stream) int { // those that ended come first
		order := []string{stays.address, goes.address, comes.address}
		return slices.Index(order, a.Destination) - slices.Index(order, b.Destination)
	})
	if out.Streams[0].Outside != 0 || out.Streams[1].Outside == 0 || out.Streams[2].Outside == 0 || out.SubscriptionBreaks != 0 {
		t.Errorf("%+v", out)
	}
	for i, c := range []collecting{stays, goes, comes} {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		c.wait(10 * time.Second)
		in := readJSON[ledger.Collector](t, c.account)
		s := out.Streams[i]
		if in.Received != s.Sent || in.Received == 0 || len(in.Agents) != 1 || len(in.Agents[0].Streams) != 1 {
			t.Fatalf("collector %d received %d of %d: %+v", i, in.Received, s.Sent, in)
		}
		if got := in.Agents[0].Streams[0]; *got.Missing != 0 || got.Ended != ledger.EndedGoodbye || got.Stream != s.Stream {
			t.Errorf("collector %d: %+v", i, got)
		}
	}
}

// readSignalled asks for the account by SIGUSR1.
func readSignalled(t *testing.T, p *process, path string) ledger.Exporter {
	t.Helper()
	_ = os.Remove(path)
	_ = p.cmd.Process.Signal(syscall.SIGUSR1)
	for range 1000 {
		if _, err := os.Stat(path); err == nil {
			return readJSON[ledger.Exporter](t, path)
		}
		time.Sleep(10 * time.Millisecond) // another process's output has no condition to wait on
	}
	t.Fatal("no account was written")
	return ledger.Exporter{}
}

// TestReloadKeys: a collector that is told so takes frames of another key, and no
// longer those of the one that is gone.
func TestReloadKeys(t *testing.T) {
	folder := t.TempDir()
	key := func(name string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if code := run(t, "key", "new", path).wait(10 * time.Second); code != 0 {
			t.Fatalf("key new exited with %d", code)
		}
		return path
	}
	first, second := key("first.key"), key("second.key")
	used := filepath.Join(folder, "used.key")
	use := func(path string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(used, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	use(first)
	collect := startCollect(t, "--key-file", used)
	export := func(key string) {
		t.Helper()
		address := "unix://" + filepath.Join(t.TempDir(), "tetragon.sock")
		run(t, "replay", "--server-address", address).waitLog("Serving")
		p := run(t, "export", "--server-address", address, "--udp-destination", "frame://"+collect.address, "--key-file", key, "--reconnect=false")
		if code := p.wait(20 * time.Second); code != 0 {
			t.Fatalf("export exited with %d", code)
		}
	}
	export(first)
	use(second)
	_ = collect.cmd.Process.Signal(syscall.SIGHUP)
	collect.waitLog("was reloaded")
	export(second)
	export(first)
	if err := os.WriteFile(used, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = collect.cmd.Process.Signal(syscall.SIGHUP)
	collect.waitLog("is not reloaded")
	export(second)
	_ = collect.cmd.Process.Signal(syscall.SIGTERM)
	collect.wait(10 * time.Second)
	account := readJSON[ledger.Collector](t, collect.account)
	if account.Received != 3*683 || account.Undecodable[ledger.FaultUnknownKey] == 0 {
		t.Errorf("received %d, undecodable %s", account.Received, account.Undecodable.String())
	}
}

// TestSupervised: systemd hears that the process is ready, that it lives, with no
// events at all, that it reloads and that it stops.
func TestSupervised(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "200000")
	hear := func(want string) {
		t.Helper()
		buffer := make([]byte, 1000)
		_ = socket.SetReadDeadline(time.Now().Add(20 * time.Second))
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				t.Fatalf("it never said %s: %v", want, err)
			}
			if strings.HasPrefix(string(buffer[:n]), want) {
				return
			}
		}
	}
	for _, args := range [][]string{
		{"export", "--server-address", "unix:///nowhere", "--udp-destination", "127.0.0.1:9"},
		{"collect", "--listen", "127.0.0.1:0"},
	} {
		p := run(t, args...)
		hear("READY=1")
		hear("WATCHDOG=1")
		hear("WATCHDOG=1")
		_ = p.cmd.Process.Signal(syscall.SIGHUP)
		hear("RELOADING=1\nMONOTONIC_USEC=")
		hear("READY=1")
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		hear("STOPPING=1")
		if code := p.wait(10 * time.Second); code != 0 {
			t.Errorf("%s exited with %d", args[0], code)
		}
	}
}
