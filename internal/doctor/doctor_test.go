package doctor

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tetracast/exporter"
	"tetracast/internal/replay"
	"tetracast/internal/source"
)

// by returns the findings about a subject.
func by(all []Finding, subject string) (found []Finding) {
	for _, f := range all {
		if f.Subject == subject {
			found = append(found, f)
		}
	}
	return found
}

// TestExamine: a host on which all is well has no fault; it subscribes once, for a
// moment, and sends nothing to the destination.
func TestExamine(t *testing.T) {
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	server, err := replay.New(replay.Config{Loop: true})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := replay.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	defer func() { stop(); <-served }()
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("tetragon_observer_ringbuf_events_lost_total 7\ntetragon_bpf_missed_events_total{msg_op=\"x\"} 0\n"))
	}))
	defer metrics.Close()
	sink, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()

	to := sink.LocalAddr().String()
	all := Examine(t.Context(), Config{
		Source:  &source.Config{ServerAddress: address},
		Metrics: func() string { return metrics.URL },
		Destinations: []exporter.Destination{
			{Address: to, Format: "json", MaxDatagram: 65507, UDPBufferSize: 65536},
			{Address: to, Format: "json", MaxDatagram: 65507, UDPBufferSize: 1 << 30},
		},
		StateDir: folder,
	})
	if !Healthy(all) {
		t.Errorf("a fault: %+v", all)
	}
	if f := by(all, "Tetragon"); len(f) != 1 || f[0].Verdict != Fine || !strings.Contains(f[0].Found, "1.7.0 at "+address) {
		t.Errorf("%+v", f)
	}
	lost := by(all, "lost in Tetragon")
	if len(lost) != 4 || lost[0].Verdict != Fine || lost[1].Verdict != Note || lost[1].Found != "ring_buffer 7 since its start" || !strings.Contains(lost[1].Advice, "--rb-size") {
		t.Errorf("%+v", lost)
	}
	ways := by(all, to)
	if len(ways) != 3 || !strings.Contains(ways[0].Found, "path MTU 6553") || ways[2].Verdict != Note || !strings.Contains(ways[2].Advice, "wmem_max=1073741824") {
		t.Errorf("%+v", ways)
	}
	if f := by(all, "state"); len(f) != 1 || f[0].Verdict != Fine {
		t.Errorf("%+v", f)
	}
	if left, err := filepath.Glob(filepath.Join(folder, ".doctor-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	var text bytes.Buffer
	if err := Write(&text, all); err != nil || strings.Count(text.String(), "-> ") < 3 {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// TestExamineFaults: what would keep export from working is a fault, with its cause.
func TestExamineFaults(t *testing.T) {
	f := func(want string, config Config) {
		t.Helper()
		all := Examine(t.Context(), config)
		if Healthy(all) {
			t.Errorf("no fault, want %s: %+v", want, all)
		}
		for _, finding := range all {
			if finding.Verdict == Fault && (!strings.Contains(finding.Found, want) || finding.Advice == "") {
				t.Errorf("%+v, want %s and an advice", finding, want)
			}
		}
	}
	f("no such file", Config{Source: &source.Config{ServerAddress: "unix:///nonexistent/tetragon.sock"}})
	f("99999", Config{Destinations: []exporter.Destination{{Address: "127.0.0.1:99999"}}})
	f("lookup host.invalid", Config{Destinations: []exporter.Destination{{Address: "host.invalid"}}}) // with the default port
	f("host.invalid", Config{Destinations: []exporter.Destination{{Address: "host.invalid:7514"}}})
	f("no such file", Config{StateDir: "/nonexistent/state"})
}

// TestControlGroups: a name that is not UTF-8 is found however deep, and named so that it
// can be read.
func TestControlGroups(t *testing.T) {
	root := t.TempDir()
	if got := controlGroups(root, true); got.Verdict != Fine {
		t.Errorf("%+v", got)
	}
	if err := os.MkdirAll(filepath.Join(root, "a", "b\xff", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := controlGroups(root, true); got.Verdict != Note || !strings.Contains(got.Found, `b\xff"`) || !strings.Contains(got.Advice, "after the second break") {
		t.Errorf("%+v", got)
	}
	if got := controlGroups(root, false); !strings.Contains(got.Advice, "--remedies auto") {
		t.Errorf("%+v", got)
	}
}

// TestOverTCP: the risk is named where events come over TCP.
func TestOverTCP(t *testing.T) {
	server, err := replay.New(replay.Config{Loop: true, Conf: map[string]string{"disable-process-cache": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := replay.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	defer func() { stop(); <-served }()
	all := by(Examine(t.Context(), Config{Source: &source.Config{ServerAddress: listener.Addr().String()}}), "Tetragon")
	if len(all) != 3 || all[1].Verdict != Note || !strings.Contains(all[1].Found, "over TCP") || !strings.Contains(all[2].Found, "--disable-process-cache") {
		t.Errorf("%+v", all)
	}
}

// TestReceiveBuffer: what collect asks for is compared with what the kernel grants.
func TestReceiveBuffer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rmem_max")
	f := func(text string, want Verdict) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := receiveBuffer(path); got.Verdict != want {
			t.Errorf("%q: %+v, want %s", text, got, want)
		}
	}
	f("212992\n", Note)
	f("33554432\n", Fine)
	f("many\n", Note)
	if got := receiveBuffer(path + "-"); got.Verdict != Note {
		t.Errorf("%+v", got)
	}
}
