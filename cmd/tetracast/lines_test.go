package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/replay"
	"tetracast/ledger"
)

// TestStandardInput: every line of the sample goes from standard input to the
// collector, in a format of lines and in frames; what is no event is counted.
func TestStandardInput(t *testing.T) {
	want, tooLong := sampleOracle(t)
	for _, format := range []string{"json", "frame"} {
		t.Run(format, func(t *testing.T) {
			account := filepath.Join(t.TempDir(), "export.json")
			collect := startCollect(t, "--exit-idle", "500ms")
			input := strings.NewReader(strings.Join(want, "") + "no event\n{\"half\":")
			export := runWith(t, input, "export", "--source", "-", "--udp-destination", format+"://"+collect.address, "--account", account, "--max-datagrams-per-second", "5000")
			for _, p := range []*process{export, collect.process} {
				if code := p.wait(time.Minute); code != 0 {
					t.Errorf("%s exited with %d", p.name, code)
				}
			}
			r := read(t, collect, account)
			if format == "json" {
				wantEvents(t, r.events, want)
			} else if !slices.Equal(r.events, want) {
				t.Errorf("%d events, want %d, as they were", len(r.events), len(want))
			}
			if e := r.exporter; e.Seen != uint64(len(want)+2) || e.Dropped[ledger.Invalid] != 2 || e.Streams[0].Truncated != tooLong && format == "json" {
				t.Errorf("account %+v", e)
			}
		})
	}
}

// TestFollowsFile: Tetragon's export file is followed over rotations, and after a
// kill in the middle: each event arrives, and that some may come twice is said.
func TestFollowsFile(t *testing.T) {
	folder := t.TempDir()
	path, account := filepath.Join(folder, "tetragon.log"), filepath.Join(folder, "export.json")
	collect := startCollect(t, "--exit-idle", "3s")
	args := []string{"export", "--source", "file:" + path, "--state-dir", folder, "--udp-destination", collect.address, "--account", account}
	n := 0
	write := func(lines int) {
		t.Helper()
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for range lines {
			n++
			fmt.Fprintf(file, "{\"process_exec\":{\"process\":{\"exec_id\":\"id-%d\"}}}\n", n)
		}
	}
	rotate := func() {
		t.Helper()
		if err := os.Rename(path, fmt.Sprintf("%s/tetragon-%04d.log", folder, n)); err != nil {
			t.Fatal(err)
		}
	}
	write(50)
	export := run(t, args...)
	waitFor(t, export, "a checkpoint", func() bool {
		_, err := os.Stat(filepath.Join(folder, "export.position"))
		return err == nil
	})
	write(50)
	rotate()
	write(50)
	_ = export.cmd.Process.Kill()
	export.wait(5 * time.Second)
	write(50)
	rotate()
	write(50)
	export = run(t, args...)
	export.waitLog("may come twice")
	waitFor(t, export, "all events", func() bool {
		text, _ := os.ReadFile(collect.events)
		return strings.Contains(string(text), fmt.Sprintf(`"id-%d"`, n))
	})
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	if code := export.wait(5 * time.Second); code != 0 {
		t.Errorf("export exited with %d", code)
	}
	collect.wait(30 * time.Second)
	seen := map[string]int{}
	text, err := os.ReadFile(collect.events)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		seen[line]++
	}
	for i := 1; i <= n; i++ {
		if seen[fmt.Sprintf("{\"process_exec\":{\"process\":{\"exec_id\":\"id-%d\"}}}\n", i)] == 0 {
			t.Errorf("event %d did not arrive", i)
		}
	}
}

// TestFileOutlastsDestination: while the destination is away the file waits, an end
// comes at once, and the next process sends all of it.
func TestFileOutlastsDestination(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "tetragon.log")
	const events = 5000
	var text strings.Builder
	for i := range events {
		fmt.Fprintf(&text, "{\"process_exec\":{\"process\":{\"exec_id\":\"id-%d\"}}}\n", i)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"export", "--source", "file:" + path, "--state-dir", folder, "--queue-bytes", "100000"}
	away := run(t, append(args, "--udp-destination", "nowhere.invalid")...)
	away.waitLog("nowhere.invalid")
	_ = away.cmd.Process.Signal(syscall.SIGTERM)
	if code := away.wait(5 * time.Second); code != 0 {
		t.Errorf("export exited with %d", code)
	}
	if log := away.log.String(); !strings.Contains(log, "closes") || strings.Contains(log, fmt.Sprintf("seen %d ", events)) {
		t.Errorf("it did not wait, or its account does not close:\n%s", log)
	}
	collect := startCollect(t, "--exit-idle", "2s")
	export := run(t, append(args, "--udp-destination", collect.address)...)
	if code := collect.wait(30 * time.Second); code != 0 {
		t.Errorf("collect exited with %d", code)
	}
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	export.wait(5 * time.Second)
	got, err := os.ReadFile(collect.events)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(got)) {
		seen[line] = true
	}
	for line := range strings.Lines(text.String()) {
		if !seen[line] {
			t.Fatalf("%s did not arrive", line)
		}
	}
}

// TestSelects: the flags of tetra become the filter that tetra sends.
func TestSelects(t *testing.T) {
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	server, _ := serve(t, address, replay.Config{Version: "v1.7.0"})
	export := run(t, "export", "--server-address", address, "--udp-destination", freeUDP(t), "--reconnect=false",
		"-n", "shop,blog", "--pod", "^web", "--process", "bash$", "-e", "PROCESS_EXEC,PROCESS_EXIT", "--policy-names", "files", "--cel-expression", "true", "--host")
	if code := export.wait(20 * time.Second); code != 0 {
		t.Errorf("export exited with %d", code)
	}
	want := &tetragon.Filter{Namespace: []string{"shop", "blog", ""}, PodRegex: []string{"^web"}, BinaryRegex: []string{"bash$"},
		EventSet: []tetragon.EventType{tetragon.EventType_PROCESS_EXEC, tetragon.EventType_PROCESS_EXIT}, PolicyNames: []string{"files"}, CelExpression: []string{"true"}}
	got := server.Request()
	if got == nil || len(got.GetAllowList()) != 1 || !proto.Equal(got.GetAllowList()[0], want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

// TestSourceUsage: what cannot be together is refused, with a hint.
func TestSourceUsage(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		p := run(t, append([]string{"export", "--udp-destination", "127.0.0.1:9"}, args...)...)
		if code := p.wait(10 * time.Second); code != 2 || !strings.Contains(p.log.String(), want) || !strings.Contains(p.log.String(), "hint: ") {
			t.Errorf("%v: exit %d, %s", args, code, p.log.String())
		}
	}
	f("want grpc, file:PATH or -", "--source", "kafka")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f("it is no file", "--source", "file:"+pipe)
	f("syntax error in pattern", "--source", "file:/var/log/[")
	f("filters are Tetragon's work", "--source", "-", "-n", "shop")
	f("want auto, framer or grpc-go", "--grpc-client", "curl")
	f("speaks no TLS", "--grpc-client", "framer", "--tls-skip-verify")
	f("not from both", "--source", "-", "--server-address", "localhost:54321")
	f("both say which events", "--allow-list", "{}", "--host")
	f(`event type "EXEC"`, "-e", "EXEC")
}
