package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tetracast/internal/replay"
	"tetracast/metadata"
)

// listening is a socket that the processes send to.
type listening struct {
	t    *testing.T
	conn *net.UDPConn
}

func newListening(t *testing.T) *listening {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &listening{t, conn}
}

// agentInit returns the next agent_init; nil: none came within the time.
func (l *listening) agentInit(within time.Duration) *metadata.MetadataEvent {
	l.t.Helper()
	buffer := make([]byte, 1<<16)
	_ = l.conn.SetReadDeadline(time.Now().Add(within))
	for {
		n, err := l.conn.Read(buffer)
		if err != nil {
			return nil
		}
		var event metadata.MetadataEvent
		if err := json.Unmarshal(buffer[:n], &event); err != nil {
			l.t.Fatalf("%v: %q", err, buffer[:n])
		}
		if event.Event == metadata.EventAgentInit {
			return &event
		}
	}
}

// TestWarmStart: an exporter that was killed announces itself before Tetragon answers,
// from the file that the process before it left; with its own process id and time; not
// any more when Tetragon was started anew; and corrected when Tetragon says otherwise.
func TestWarmStart(t *testing.T) {
	folder := t.TempDir()
	address, info := "unix://"+filepath.Join(folder, "tetragon.sock"), filepath.Join(folder, "tetragon-info.json")
	to := newListening(t)
	export := func() *process {
		t.Helper()
		return run(t, "export", "--server-address", address, "--info-file", info, "--state-dir", folder, "--tetragon-metrics-address", "",
			"--udp-destination", to.conn.LocalAddr().String(), "--stats-interval", "0", "--metadata-label", "site=fra1")
	}
	kill := func(p *process) {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		p.wait(10 * time.Second)
	}
	_, stop := serve(t, address, replay.Config{Version: "v1.7.0", InfoFile: info, Faults: []replay.Fault{{After: 1, Stall: time.Hour}}})
	first := export()
	cold := to.agentInit(20 * time.Second)
	if cold == nil || cold.TetragonVersion != "v1.7.0" || cold.Labels["site"] != "fra1" {
		t.Fatalf("the first announced %+v", cold)
	}
	cache := filepath.Join(folder, "metadata.cache")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(cache); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no file was left")
		}
	}
	kill(first)
	stop()
	if _, err := os.Stat(info); err != nil {
		t.Fatal(err)
	}

	second := export()
	warm := to.agentInit(20 * time.Second)
	if warm == nil || warm.PID != second.cmd.Process.Pid || warm.Timestamp <= cold.Timestamp {
		t.Fatalf("the second announced %+v", warm)
	}
	want := *cold
	want.PID, want.Timestamp, want.StartedAt = warm.PID, warm.Timestamp, warm.StartedAt
	if a, b := line(t, *warm), line(t, want); a != b {
		t.Errorf("announced %s\nwant      %s", a, b)
	}
	// The same Tetragon, another version: it was replaced without our noticing.
	_, stop = serve(t, address, replay.Config{Version: "v1.6.1", Faults: []replay.Fault{{After: 1, Stall: time.Hour}}})
	if corrected := to.agentInit(60 * time.Second); corrected == nil || corrected.TetragonVersion != "v1.6.1" || corrected.PID != warm.PID {
		t.Errorf("corrected to %+v", corrected)
	}
	kill(second)
	stop()

	// Tetragon's file was written anew, so Tetragon was started anew.
	text, err := os.ReadFile(info)
	if err == nil {
		err = os.WriteFile(info, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	third := export()
	third.waitLog("Tetragon")
	if early := to.agentInit(time.Second); early != nil {
		t.Errorf("announced %+v before Tetragon answered, though it was started anew", early)
	}
	// Rubbish in the file is no reason to fail.
	kill(third)
	if err := os.WriteFile(cache, []byte(strings.Repeat("rubbish", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	fourth := export()
	fourth.waitLog("Tetragon")
	_ = fourth.cmd.Process.Signal(syscall.SIGTERM)
	if code := fourth.wait(10 * time.Second); code != 0 {
		t.Errorf("with rubbish in the file the exit code was %d", code)
	}
	if _, err := os.Stat(cache + ".bad"); err != nil {
		t.Error("the rubbish was not set aside:", err)
	}
}

func line(t *testing.T, event metadata.MetadataEvent) string {
	t.Helper()
	text, err := event.ToJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMetadataUsage: what is wrong with a metadata flag is said, with the reason.
func TestMetadataUsage(t *testing.T) {
	usage := func(want string, args ...string) {
		t.Helper()
		p := run(t, append([]string{"export", "--server-address", "unix:///nowhere", "--udp-destination", "127.0.0.1:9"}, args...)...)
		if code := p.wait(20 * time.Second); code != 2 || !strings.Contains(p.log.String(), want) {
			t.Errorf("%v: exit code %d, want 2 and %q:\n%s", args, code, want, p.log.String())
		}
	}
	usage("no receiver of json undoes a compression", "--metadata-compression", "gzip")
	usage("no receiver of syslog undoes a compression", "--format", "syslog", "--metadata-compression", "zstd")
	usage("want none, gzip or zlib", "--format", "gelf", "--metadata-compression", "zstd")
	usage("want none, s2 or zstd", "--format", "frame", "--metadata-compression", "gzip")
	usage("want on or off", "--metadata-cache", "maybe")
	usage("want name=value", "--metadata-label", "site")
	usage("a name is a letter", "--metadata-label", "9=x")
	t.Setenv("TETRACAST_METADATA_LABELS", "a=1,b")
	usage("TETRACAST_METADATA_LABELS", "--metadata-label", "c=d")
}

// TestLabelsFromEnvironment: labels of the environment and of flags, which win, and of
// systemd's folder the file.
func TestLabelsFromEnvironment(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TETRACAST_METADATA_LABELS", "site=fra1,rack=r7")
	t.Setenv("STATE_DIRECTORY", folder+":/nowhere")
	info := filepath.Join(folder, "tetragon-info.json")
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	serve(t, address, replay.Config{Version: "v1.7.0", InfoFile: info, Faults: []replay.Fault{{After: 1, Stall: time.Hour}}})
	to := newListening(t)
	p := run(t, "export", "--server-address", address, "--info-file", info, "--tetragon-metrics-address", "", "--udp-destination", to.conn.LocalAddr().String(), "--metadata-label", "rack=r8")
	event := to.agentInit(20 * time.Second)
	if event == nil || len(event.Labels) != 2 || event.Labels["site"] != "fra1" || event.Labels["rack"] != "r8" {
		t.Errorf("announced %+v", event)
	}
	waitFor(t, p, "the file in systemd's folder", func() bool {
		_, err := os.Stat(filepath.Join(folder, "metadata.cache"))
		return err == nil
	})
}

// TestExportAtRest counts the system calls of an exporter that only repeats its
// agent_init: one to send each, and those with which the Go runtime waits in between;
// none with each export that reads a fact, a file or a name.
func TestExportAtRest(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: strace is not installed")
	}
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	serve(t, address, replay.Config{Version: "v1.7.0", Faults: []replay.Fault{{After: 1, Stall: time.Hour}}})
	to := newListening(t)
	p := run(t, "export", "--server-address", address, "--tetragon-metrics-address", "", "--udp-destination", to.conn.LocalAddr().String(),
		"--stats-interval", "0", "--metadata-interval", "20ms", "--log-level", "error")
	for range 10 {
		if to.agentInit(20*time.Second) == nil {
			t.Fatal("no agent_init came")
		}
	}
	counts := filepath.Join(folder, "counts")
	cmd := exec.Command(strace, "-f", "-c", "-o", counts, "-p", strconv.Itoa(p.cmd.Process.Pid))
	var said syncBuffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const exports = 200
	for n := 0; n < exports; n++ {
		if to.agentInit(20*time.Second) == nil {
			t.Fatalf("after %d agent_init no other came; strace says %s", n, said.String())
		}
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	text, err := os.ReadFile(counts)
	if err != nil || !strings.Contains(string(text), "sendmmsg") {
		t.Skipf("SKIPPED, NOT TESTED: strace may not look at processes here: %v: %s", err, said.String())
	}
	t.Logf("\n%s", text)
	facts := []string{"uname", "open", "openat", "stat", "newfstatat", "statx", "readlink", "readlinkat", "socket", "connect", "getsockname",
		"sendto", "sendmsg", "flock", "fallocate", "rename", "renameat", "renameat2", "mmap"}
	for row := range strings.Lines(string(text)) {
		fields := strings.Fields(row)
		if len(fields) < 5 || fields[0] == "%" || strings.HasPrefix(fields[0], "--") {
			continue
		}
		name := fields[len(fields)-1]
		calls, _ := strconv.Atoi(fields[3])
		switch {
		case name == "sendmmsg" && (calls < exports/2 || calls > exports+exports/4):
			t.Errorf("%d calls of sendmmsg for about %d exports", calls, exports)
		case slices.Contains(facts, name) && calls >= exports/2:
			t.Errorf("%d calls of %s, which no export needs", calls, name)
		}
	}
}
