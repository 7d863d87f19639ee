package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/ledger"
)

// kept is a sink that keeps its lines.
type kept struct {
	mu    sync.Mutex
	lines []string
}

func (k *kept) Write(b *sink.Batch) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range b.Len() {
		k.lines = append(k.lines, strings.TrimSuffix(string(b.Line(i)), "\n"))
	}
	return b.Len(), nil
}

func (k *kept) Close() error { return nil }

// collect runs our collector, which passes on what is no event. end waits until
// so many lines came, and returns them with the account.
func collect(t *testing.T) (port uint16, end func(lines int) ([]string, ledger.Collector)) {
	t.Helper()
	out := new(kept)
	c, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Sink: out, Other: collector.OtherPass})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(cancel)
	return c.Addr().Port(), func(lines int) ([]string, ledger.Collector) {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			out.mu.Lock()
			n := len(events(out.lines))
			out.mu.Unlock()
			if n >= lines {
				break
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return events(out.lines), c.Account()
	}
}

// TestLogger: what logger(1) sends in either form is read: an event as an event,
// other text as what it is.
func TestLogger(t *testing.T) {
	logger, err := exec.LookPath("logger")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: there is no logger(1) here")
	}
	const event = `{"process_exec":{"process":{"binary":"/bin/sh","arguments":"a \\n \"b\""}},"node_name":"n"}`
	port, end := collect(t)
	var want []string
	for _, form := range []string{"--rfc5424", "--rfc3164", "--rfc5424=notime,nohost,notq"} {
		for _, text := range []string{event, `plain "text" with ünicode`} {
			out, err := exec.Command(logger, "-n", "127.0.0.1", "-P", fmt.Sprint(port), "-d", form, "-t", "test", "--", text).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want = append(want, text)
		}
	}
	got, account := end(len(want))
	if len(got) != len(want) || account.Received != 3 || account.PassedOn != 3 || account.Undecodable.Total() != 0 {
		t.Fatalf("%d lines, want %d; account %+v", len(got), len(want), account)
	}
	for i, line := range got {
		if want[i] == event {
			if line != event {
				t.Errorf("got %s", line)
			}
			continue
		}
		message := decode(t, line)["tetracast_other"].(map[string]any)["message"].(string)
		if !strings.HasSuffix(message, want[i]) {
			t.Errorf("got %q, want %q at its end", message, want[i])
		}
	}
}

// TestRelay: our events come whole, and are audited, when rsyslog or syslog-ng
// stands between exporter and collector.
func TestRelay(t *testing.T) {
	wires, want := sample(t)
	for name, config := range map[string]string{
		"rsyslog": `
global(parser.escapeControlCharactersOnReceive="off" maxMessageSize="64k")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="{in}" rcvbufSize="8m")
action(type="omfwd" target="127.0.0.1" port="{out}" protocol="udp" template="RSYSLOG_SyslogProtocol23Format")
`,
		"syslog-ng": `
@version: 3.38
source s { syslog(transport("udp") ip("127.0.0.1") port({in}) so-rcvbuf(8388608)); };
destination d { syslog("127.0.0.1" transport("udp") port({out})); };
log { source(s); destination(d); };
`,
	} {
		t.Run(name, func(t *testing.T) {
			port, end := collect(t)
			r := start(t, name) // for its program; the relay runs beside it
			relay := &running{t: t, port: freePort(t), folder: t.TempDir()}
			path := filepath.Join(relay.folder, "relay.conf")
			text := strings.NewReplacer("{in}", fmt.Sprint(relay.port), "{out}", fmt.Sprint(port)).Replace(strings.TrimSpace(config) + "\n")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, p := range peers {
				if p.name == name {
					relay.run(p.command(r.cmd.Path, path, relay.folder))
				}
			}
			shortened := send(t, fmt.Sprintf("syslog://127.0.0.1:%d?max-datagram=60000", relay.port), relay.port, len(wires),
				func(e *exporter.UDPExporter, i int) { _ = e.SendWire(wires[i]) })
			got, account := end(len(want))
			compare(t, got, want, shortened)
			if len(account.Agents) != 1 || len(account.Agents[0].Streams) != 1 {
				t.Fatalf("agents %+v", account.Agents)
			}
			s := account.Agents[0].Streams[0]
			if account.Received != uint64(len(want)) || s.Missing == nil || *s.Missing != 0 || *s.Announced != uint64(len(want)) || account.PassedOn > 1 {
				t.Errorf("account %+v: stream %+v", account, s)
			}
			t.Logf("%d events over %s, %d of them shortened; announced %d, missing %d", len(got), name, shortened, *s.Announced, *s.Missing)
		})
	}
}
