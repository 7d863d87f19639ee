package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/internal/replay"
	"tetracast/ledger"
)

// signalled is a command that has an account, and where that is.
type signalled struct {
	args  []string
	ready string // what it logs when it works
	last  string // what its account on standard error has
}

// withAccount are the commands that have one, ready to run against a Tetragon at the
// address.
func withAccount(t *testing.T, tetragon, account string) map[string]signalled {
	return map[string]signalled{
		"export":  {[]string{"export", "--server-address", tetragon, "--udp-destination", freeUDP(t), "--account", account}, "Subscribed", "exporter account"},
		"collect": {[]string{"collect", "--listen", freeUDP(t), "--account", account}, "Listening", "collector account"},
	}
}

// TestOneSignalThatComesTwice: GNU timeout sends its signal to its child and then to
// its whole group, so the child gets it twice though nobody asked twice. Export and
// collect end as after one: with their account, and exit 0.
func TestOneSignalThatComesTwice(t *testing.T) {
	folder := t.TempDir()
	tetragon := "unix://" + filepath.Join(folder, "tetragon.sock")
	serve(t, tetragon, replay.Config{Loop: true, EventsPerSecond: 200})
	account := filepath.Join(folder, "account.json")
	for name, c := range withAccount(t, tetragon, account) {
		t.Run(name, func(t *testing.T) {
			for range 4 {
				_ = os.Remove(account)
				p := run(t, c.args...)
				p.waitLog(c.ready)
				for range 4 {
					_ = p.cmd.Process.Signal(syscall.SIGTERM)
				}
				if code := p.wait(10 * time.Second); code != 0 {
					t.Fatalf("it exited with %d (%v)", code, p.cmd.ProcessState)
				}
				wantAccount(t, name, account)
			}
			_ = os.Remove(account)
			p := runIn(t, "timeout", []string{"--preserve-status", "1"}, c.args...)
			if code := p.wait(20 * time.Second); code != 0 || !strings.Contains(p.log.String(), c.last) {
				t.Fatalf("under timeout it exited with %d (%v):\n%s", code, p.cmd.ProcessState, p.log.String())
			}
			wantAccount(t, name, account)
		})
	}
}

// runIn runs tetracast below another program, such as timeout.
func runIn(t *testing.T, program string, before []string, args ...string) *process {
	t.Helper()
	t.Setenv(asMain, "1")
	t.Setenv("TETRACAST_METRICS_ADDRESS", "")
	p := &process{t: t, name: program, exited: make(chan struct{})}
	p.cmd = exec.Command(program, append(append(before, os.Args[0]), args...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p
}

// wantAccount wants an account in the file that closes, or that cannot know.
func wantAccount(t *testing.T, side, path string) {
	t.Helper()
	var err error
	if side == "export" {
		account := readJSON[ledger.Exporter](t, path)
		err = account.Check()
	} else {
		account := readJSON[ledger.Collector](t, path)
		err = account.Check()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestSignalAtTheStart: a signal that comes while a process starts ends it either
// before it has begun, by the signal and without a word, or in good order with its
// account. There is no third.
func TestSignalAtTheStart(t *testing.T) {
	folder := t.TempDir()
	tetragon := "unix://" + filepath.Join(folder, "tetragon.sock")
	serve(t, tetragon, replay.Config{Loop: true, EventsPerSecond: 200})
	account := filepath.Join(folder, "account.json")
	for name, c := range withAccount(t, tetragon, account) {
		t.Run(name, func(t *testing.T) {
			before, after := 0, 0
			early := []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1}
			for delay := time.Duration(0); after < 4 && delay < 5*time.Second; delay += 4*time.Millisecond + delay/4 {
				_ = os.Remove(account)
				p := run(t, c.args...)
				time.Sleep(delay) // any moment will do
				sent := early[(before+after)%len(early)]
				_ = p.cmd.Process.Signal(sent)
				_ = p.cmd.Process.Signal(syscall.SIGTERM)
				code := p.wait(20 * time.Second)
				if p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
					before++
					if log := p.log.String(); log != "" {
						t.Fatalf("%v after %v ended it in the middle:\n%s", sent, delay, log)
					}
					continue
				}
				after++
				if code != 0 {
					t.Fatalf("%v after %v: it exited with %d:\n%s", sent, delay, code, p.log.String())
				}
				wantAccount(t, name, account)
			}
			t.Logf("%d ended before they had begun, %d with their account", before, after)
			if after == 0 {
				t.Error("none came so far as to have an account")
			}
		})
	}
}

// TestSignalsDuringTheEnd: while export drains, who asks for a reload or a look at the
// account does not end it.
func TestSignalsDuringTheEnd(t *testing.T) {
	folder := t.TempDir()
	tetragon := "unix://" + filepath.Join(folder, "tetragon.sock")
	account := filepath.Join(folder, "account.json")
	serve(t, tetragon, replay.Config{Loop: true, EventsPerSecond: 1000})
	export := run(t, "export", "--server-address", tetragon, "--udp-destination", "collector.invalid:7514", "--account", account)
	export.waitLog("Subscribed")
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	for ended := false; !ended; {
		_ = export.cmd.Process.Signal(syscall.SIGUSR1)
		_ = export.cmd.Process.Signal(syscall.SIGHUP)
		select {
		case <-export.exited:
			ended = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	if code := export.wait(time.Second); code != 0 {
		t.Errorf("it exited with %d (%v)", code, export.cmd.ProcessState)
	}
	wantAccount(t, "export", account)
}

// TestHangUp: without a terminal the commands that read nothing anew end, and under
// nohup they do not.
func TestHangUp(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) { // the test runs under nohup itself: what it starts would ignore it, too
		ours := make(chan os.Signal, 1)
		signal.Notify(ours, syscall.SIGHUP)
		defer signal.Ignore(syscall.SIGHUP)
	}
	socket := filepath.Join(t.TempDir(), "tetragon.sock")
	server := run(t, "replay", "--loop", "--server-address", "unix://"+socket)
	server.waitLog("Serving")
	_ = server.cmd.Process.Signal(syscall.SIGHUP)
	if code := server.wait(10 * time.Second); code != 0 {
		t.Errorf("replay exited with %d (%v)", code, server.cmd.ProcessState)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("replay left its socket behind")
	}
	server = runIn(t, "nohup", nil, "replay", "--loop", "--server-address", "unix://"+socket)
	server.waitLog("Serving")
	_ = server.cmd.Process.Signal(syscall.SIGHUP)
	_ = server.cmd.Process.Signal(syscall.SIGUSR1)
	select {
	case <-server.exited:
		t.Errorf("replay under nohup ended: %v", server.cmd.ProcessState)
	case <-time.After(200 * time.Millisecond):
	}
	_ = server.cmd.Process.Signal(syscall.SIGTERM)
	server.wait(10 * time.Second)
}

// readerGone runs tetracast with a standard stream whose reader has gone, 1 or 2.
func readerGone(t *testing.T, stream int, args ...string) *process {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	defer writer.Close()
	return runTo(t, func(p *process) {
		if stream == 1 {
			p.cmd.Stdout = writer
		} else {
			p.cmd.Stderr = writer
		}
	}, args...)
}

// TestStandardOutputGone: a reader of collect that goes away is a sink that fails. The
// collector goes on, and each event that it received is delivered or counted.
func TestStandardOutputGone(t *testing.T) {
	account := filepath.Join(t.TempDir(), "account.json")
	address := freeUDP(t)
	collect := readerGone(t, 1, "collect", "--listen", address, "--account", account)
	collect.waitLog("Listening")
	conn, err := net.Dial("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const events = 50
	for i := range events {
		if i == events/2 {
			collect.waitLog("The sink fails")
		}
		fmt.Fprintf(conn, "{\"process_exec\":{\"process\":{\"exec_id\":\"id-%d\"}},\"time\":\"2026-01-01T00:00:00Z\"}\n", i)
	}
	received := func() ledger.Collector {
		_ = collect.cmd.Process.Signal(syscall.SIGUSR1)
		if _, err := os.Stat(account); err != nil {
			return ledger.Collector{}
		}
		return readJSON[ledger.Collector](t, account)
	}
	waitFor(t, collect, "the events", func() bool { return received().Received == events })
	_ = collect.cmd.Process.Signal(syscall.SIGTERM)
	if code := collect.wait(10 * time.Second); code != 0 {
		t.Errorf("it exited with %d (%v)", code, collect.cmd.ProcessState)
	}
	got := readJSON[ledger.Collector](t, account)
	if err := got.Check(); err != nil || got.Received != events || got.Dropped[ledger.SinkFailed] != events {
		t.Errorf("%v; received %d, delivered %d, dropped %v", err, got.Received, got.Delivered, got.Dropped)
	}
	if !strings.Contains(collect.log.String(), "sink_failed") {
		t.Error("the account on standard error says nothing of it")
	}
}

// listens says whether a socket is bound to the UDP address: a datagram to it is not
// answered.
func listens(address string) bool {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("is anybody there"))
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// TestStandardErrorGone: without a reader of the log export and collect do what they
// did, and the account is in its file.
func TestStandardErrorGone(t *testing.T) {
	folder := t.TempDir()
	sent, received := filepath.Join(folder, "sent.json"), filepath.Join(folder, "received.json")
	address := freeUDP(t)
	collect := readerGone(t, 2, "collect", "--listen", address, "--account", received, "--exit-idle", "1s", "--log-level", "debug")
	waitFor(t, collect, "the collector", func() bool { return listens(address) })
	tetragon := "unix://" + filepath.Join(folder, "tetragon.sock")
	serve(t, tetragon, replay.Config{EventsPerSecond: 2000})
	export := readerGone(t, 2, "export", "--server-address", tetragon, "--reconnect=false", "--udp-destination", "frame://"+address, "--account", sent, "--log-level", "debug")
	for _, p := range []*process{export, collect} {
		if code := p.wait(30 * time.Second); code != 0 {
			t.Errorf("%s exited with %d (%v)", p.name, code, p.cmd.ProcessState)
		}
	}
	e, c := readJSON[ledger.Exporter](t, sent), readJSON[ledger.Collector](t, received)
	if err := ledger.Settle(&e, &c); err != nil || c.Received == 0 || c.Received != e.Streams[0].Sent {
		t.Errorf("%v; sent %d, received %d", err, e.Streams[0].Sent, c.Received)
	}
}

// TestOutputsOfOthersGone: decode ends with an error where nobody reads, demo plays to
// the end and says what its output did not take.
func TestOutputsOfOthersGone(t *testing.T) {
	decode := readerGone(t, 1, "decode")
	if code := decode.wait(10 * time.Second); code != 1 || !strings.Contains(decode.log.String(), "broken pipe") {
		t.Errorf("decode exited with %d (%v): %s", code, decode.cmd.ProcessState, decode.log.String())
	}
	demo := readerGone(t, 1, "demo", "--rate", "0", "--all")
	if code := demo.wait(30 * time.Second); code != 0 || !strings.Contains(demo.log.String(), "sink_failed") || !strings.Contains(demo.log.String(), "Both close") {
		t.Errorf("demo exited with %d (%v): %s", code, demo.cmd.ProcessState, demo.log.String())
	}
	demo = readerGone(t, 2, "demo", "--rate", "0", "--all")
	if code := demo.wait(30 * time.Second); code != 0 || bytes.Count(demo.out.Bytes(), []byte{'\n'}) < 600 {
		t.Errorf("demo exited with %d (%v) after %d bytes", code, demo.cmd.ProcessState, demo.out.Len())
	}
}
