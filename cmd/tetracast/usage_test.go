package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"tetracast/internal/app"
	"tetracast/internal/command"
	"tetracast/internal/corpus"
)

// TestBadInput: one line that names the value and what was expected, then a
// hint; the exit code; never a stack trace.
func TestBadInput(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	nowhere := "unix://" + filepath.Join(folder, "nobody.sock")
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	takenTCP, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = takenTCP.Close() }()
	notJSONFilter := write("filters", []byte("{\"event_set\":[\"PROCESS_EXEC\"]}\n{\"event_sets\":[]}\n"))

	f := func(code int, args string, want ...string) {
		t.Helper()
		p := run(t, strings.Fields(args)...)
		if got := p.wait(20 * time.Second); got != code {
			t.Errorf("%s: exit code %d, want %d", args, got, code)
		}
		log := p.log.String()
		lines := strings.Split(strings.TrimSpace(log), "\n")
		last := lines[max(0, len(lines)-2):]
		if !strings.HasPrefix(last[0], "tetracast: ") || !strings.HasPrefix(last[len(last)-1], "hint: ") {
			t.Errorf("%s: want a line with the error and one with a hint:\n%s", args, log)
		}
		for _, w := range want {
			if !strings.Contains(strings.Join(last, "\n"), w) {
				t.Errorf("%s: the error does not say %q:\n%s", args, w, log)
			}
		}
		if strings.Contains(log, "goroutine ") || strings.Contains(log, "panic") {
			t.Errorf("%s: a stack trace:\n%s", args, log)
		}
		if p.out.Len() > 0 {
			t.Errorf("%s: %q on standard output", args, p.out.String())
		}
	}
	f(2, "export --udp-destinaton h:1", "--udp-destinaton", "did you mean --udp-destination?")
	f(2, "exprot", `"exprot"`, "export")
	f(2, "export h:1", `"h:1"`)
	f(2, "export", "--udp-destination")
	f(2, "export --udp-destination h:99999", `"h:99999"`, "1 to 65535")
	f(2, "export --udp-destination xml://h", `"xml"`, "json")
	f(2, "export --udp-destination h --max-datagram 9k", `"9k"`, "auto")
	f(2, "export --udp-destination h --filters some", `"some"`, "auto or none")
	f(2, "export --udp-destination h --allow-list {\"event_set\":[\"NO_SUCH\"]}", "allow list, line 1", "NO_SUCH")
	f(2, "export --udp-destination h --deny-list @"+notJSONFilter, "deny list", "line 2", "event_sets")
	f(2, "export --udp-destination h --server-address nowhere", `"nowhere"`, "unix:///path or host:port")
	f(2, "export --udp-destination h --log-level loud", `"loud"`)
	f(2, "export --config "+write("bad.yaml", []byte("export:\n  udp-destinatoin: [h]\n")), `"udp-destinatoin"`, `did you mean "udp-destination"?`)
	f(2, "export --config "+write("worse.yaml", []byte("exprot: {}\n")), `"exprot"`, `did you mean "export"?`)
	f(2, "export --config "+filepath.Join(folder, "none.yaml"), "none.yaml")
	f(2, "collect --output xml", `"xml"`, "json or compact")
	f(2, "collect --metadata-store redis", `"redis"`, "embedded")
	f(2, "collect --metadata-store http://h", `"http://h"`, "nats://host:port")
	f(2, "collect --metadata-store nats://", `"nats://"`)
	f(2, "collect --metadata-store nats://h --metadata-peers h:1", "--metadata-peers", "nats://h")
	f(2, "collect --metadata-store nats://h --metadata-credentials "+notJSONFilter, "holds no credentials")
	f(2, "collect --metadata-store nats://h --metadata-tls-cert-file c", "--metadata-tls-cert-file")
	f(2, "collect --metadata-store nats://h --metadata-tls-ca-cert-files "+notJSONFilter, "--metadata-tls-ca-cert-files", "no certificate")
	f(2, "collect --metadata-credentials c", "--metadata-credentials", "elsewhere")
	f(2, "collect --metadata-key-file k", "--metadata-peers")
	f(2, "collect --metadata-expiry -1s", "-1s")
	f(2, "collect --metadata-peers h:7517", "--state-dir")
	f(2, "collect --metadata-store embedded", "--state-dir")
	f(2, "collect --state-dir "+folder+" --metadata-peers h", `"h"`, "host:port")
	f(2, "collect --state-dir "+folder+" --metadata-peers h:7517 --metadata-listen 0.0.0.0:7517", "0.0.0.0:7517", "--metadata-key-file")
	f(1, "collect --state-dir "+folder+" --metadata-peers h:7517 --metadata-key-file "+notJSONFilter, "not a key file")
	f(1, "collect --state-dir "+folder+" --metadata-peers h:7517 --metadata-listen "+takenTCP.Addr().String(), "--metadata-listen", "address already in use")
	f(2, "bench metadata --only export/olde-way", `"export/olde-way"`, "export/old-way")
	f(2, "bench metadata --exports 0", "0 exports")
	f(2, "bench metadata --heap-profile heap", "--only")
	f(1, "export --udp-destination 127.0.0.1 --reconnect=false --server-address "+nowhere, nowhere, "no such file")
	f(1, "export --udp-destination 127.0.0.1 --fail-fast --server-address "+nowhere, nowhere, "is Tetragon running?")
	f(1, "export --udp-destination collector.invalid --reconnect=false --server-address "+nowhere, "collector.invalid")
	f(1, "collect --listen "+taken.LocalAddr().String(), taken.LocalAddr().String(), "address already in use")
	f(1, "collect --listen 127.0.0.1:0 --write "+filepath.Join(folder, "no", "such", "folder"), "no/such/folder")
	f(1, "replay --server-address "+nowhere+" --recording "+filepath.Join(folder, "none.binpb"), "none.binpb")
	f(1, "decode --recording "+write("text.binpb", []byte("this is a letter\n")), "not a recording", "varint")
}

// TestDecode: the transcoder without a network; a recording that is cut off
// gives all before the cut, then an error that names the offset.
func TestDecode(t *testing.T) {
	decode := run(t, "decode")
	if code := decode.wait(20 * time.Second); code != 0 {
		t.Fatalf("decode exited with %d:\n%s", code, decode.log.String())
	}
	lines := strings.SplitAfter(strings.TrimSuffix(decode.out.String(), "\n"), "\n")
	if len(lines) != corpus.SampleEvents {
		t.Fatalf("%d lines, want %d", len(lines), corpus.SampleEvents)
	}
	whole := plainSample(t)
	const cut = 5000
	path := filepath.Join(t.TempDir(), "cut.binpb")
	if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
		t.Fatal(err)
	}
	half := run(t, "decode", "--recording", path)
	if code := half.wait(20 * time.Second); code != 1 {
		t.Errorf("a recording that is cut off: exit code %d", code)
	}
	if got := half.out.String(); got == "" || !strings.HasPrefix(decode.out.String(), got) {
		t.Error("what comes before the cut is not what the whole recording begins with")
	}
	if log := half.log.String(); !strings.Contains(log, "at offset ") || !strings.Contains(log, "cut off") {
		t.Errorf("the error: %s", log)
	}
}

// TestReplayCutOff: everything before the cut is served, then the error names
// the offset.
func TestReplayCutOff(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "cut.binpb")
	if err := os.WriteFile(path, plainSample(t)[:5000], 0o600); err != nil {
		t.Fatal(err)
	}
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	account := filepath.Join(folder, "export.json")
	server := run(t, "replay", "--server-address", address, "--recording", path)
	server.waitLog("Serving")
	collect := startCollect(t, "--exit-idle", "300ms")
	export := run(t, "export", "--server-address", address, "--udp-destination", collect.address, "--reconnect=false", "--account", account)
	if code := export.wait(20 * time.Second); code != 1 {
		t.Errorf("export exited with %d, want 1: the stream did not end in good order", code)
	}
	if code := server.wait(20 * time.Second); code != 1 || !strings.Contains(server.log.String(), "at offset ") {
		t.Errorf("replay exited with %d:\n%s", code, server.log.String())
	}
	collect.wait(20 * time.Second)
	r := read(t, collect, account)
	want, _ := sampleOracle(t)
	wantEvents(t, r.events, want[:len(r.events)])
	if len(r.events) == 0 {
		t.Error("nothing before the cut arrived")
	}
}

// TestLayers: the command line wins over the environment, the environment over
// the file.
func TestLayers(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "tetracast.yaml")
	if err := os.WriteFile(path, []byte("collect:\n  exit-idle: 1ms\n  listen: 127.0.0.1:1\n  output: xml-from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TETRACAST_CONFIG", path)
	t.Setenv("TETRACAST_LISTEN", "127.0.0.1:0")
	p := run(t, "collect")
	if p.wait(10*time.Second) != app.ExitUsage || !strings.Contains(p.log.String(), `"xml-from-file"`) {
		t.Errorf("the file is not read:\n%s", p.log.String())
	}
	t.Setenv("TETRACAST_OUTPUT", "xml-from-env")
	p = run(t, "collect")
	if p.wait(10*time.Second) != app.ExitUsage || !strings.Contains(p.log.String(), `"xml-from-env"`) {
		t.Errorf("the environment does not win over the file:\n%s", p.log.String())
	}
	p = run(t, "collect", "--output", "json")
	if log := p.waitLog("Listening"); strings.Contains(log, "127.0.0.1:1 ") {
		t.Errorf("the environment does not win over the file:\n%s", log)
	}
}

// TestConfigPrint: each value and where it comes from, in a form that can be read
// again; drop-in files win over the file, the later over the earlier; no secret.
func TestConfigPrint(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "tetracast.yaml")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(path, "export:\n  flush-interval: 1ms\n  queue-bytes: 1\n  reconnect: false\ncollect:\n  exit-idle: 1ms\n")
	put(path+".d/10-first.yaml", "export:\n  queue-bytes: 2\n  stats-interval: 3s\n")
	put(path+".d/20-second.yaml", "export:\n  queue-bytes: 3\n")
	put(path+".d/30.yaml.disabled", "export:\n  queue-bytes: 4\n")
	t.Setenv("TETRACAST_STATS_INTERVAL", "7s")
	p := run(t, "config", "print", "export", "--config", path, "--udp-destination", "a:1", "--udp-destination", "gelf://user:pass@b:2", "--log-level", "1")
	if code := p.wait(10 * time.Second); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	out := p.out.String()
	for _, want := range []string{
		"export:\n", "  flush-interval: 1ms # " + path + "\n", "  queue-bytes: 3 # " + path + ".d/20-second.yaml\n",
		"  stats-interval: 7s # TETRACAST_STATS_INTERVAL\n", "  reconnect: false # " + path + "\n",
		"  udp-destination: ['a:1', 'gelf://user:xxxxx@b:2'] # command line\n", "  log-level: \"1\" # command line\n", "  source: grpc # default\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("not there: %q", want)
		}
	}
	if strings.Contains(out, "pass@") || t.Failed() {
		t.Fatalf("%s", out)
	}
	put(filepath.Join(folder, "again.yaml"), strings.ReplaceAll(out, ":xxxxx@", ":pass@"))
	t.Setenv("TETRACAST_STATS_INTERVAL", "7s")
	again := run(t, "config", "print", "export", "--config", filepath.Join(folder, "again.yaml"))
	again.wait(10 * time.Second)
	values := func(text string) (values []string) {
		for line := range strings.Lines(text) {
			value, _, _ := strings.Cut(line, " # ")
			values = append(values, value)
		}
		return values
	}
	if got, want := values(again.out.String()), values(out); !slices.Equal(got, want) {
		t.Errorf("read again it says\n%s\ninstead of\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	put(path+".d/20-second.yaml", "export:\n  queue-byte: 3\n")
	p = run(t, "config", "print", "export", "--config", path)
	if code := p.wait(10 * time.Second); code != app.ExitUsage || !strings.Contains(p.log.String(), "20-second.yaml") || !strings.Contains(p.log.String(), `did you mean "queue-bytes"?`) {
		t.Errorf("an unknown key in a drop-in file: exit code %d:\n%s", code, p.log.String())
	}
}

// TestHelp: every command has a description and every flag says what it does.
func TestHelp(t *testing.T) {
	for _, cmd := range newRoot().Commands() {
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		if cmd.Short == "" {
			t.Errorf("%s has no description", cmd.Name())
		}
		for line := range strings.Lines(out.String()) {
			if fields := strings.Fields(line); len(fields) > 0 && strings.HasPrefix(fields[0], "--") && len(fields) < 4 {
				t.Errorf("%s: a flag without an explanation: %q", cmd.Name(), line)
			}
		}
	}
}

// TestSharedFile: a program that has only some of the commands reads the file of one
// that has all.
func TestSharedFile(t *testing.T) {
	show, _, err := newRoot().Find([]string{"config", "print"})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, c := range show.Commands() {
		fmt.Fprintf(&text, "%s: {log-level: warn}\n", c.Name())
	}
	f := func(text, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "tetracast.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		agent := command.NewRoot("agent", "", "", func() []*cobra.Command { return []*cobra.Command{command.NewExport()} })
		agent.SetArgs([]string{"export", "--config", path})
		var complaint strings.Builder
		if code := app.Report(&complaint, agent.Execute()); code != app.ExitUsage || !strings.Contains(complaint.String(), want) {
			t.Errorf("%s: exit code %d, want a complaint of %s: %s", text, code, want, complaint.String())
		}
	}
	if strings.Count(text.String(), "\n") != 5 {
		t.Errorf("sections:\n%s", text.String())
	}
	f(text.String(), "--udp-destination") // as far as that it is missing
	f("exprt: {}\n", `did you mean "export"`)
	f("colect: {}\n", "--udp-destination") // collect is to complain of it
	f("fluffy: {}\n", "known: export, collect")
}
