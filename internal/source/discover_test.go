package source

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCandidates(t *testing.T) {
	folder := t.TempDir()
	info := filepath.Join(folder, "tetragon-info.json")
	places := Places{InfoFile: info, Sockets: []string{"/a.sock", "/b.sock"}, TCP: "localhost:1"}
	f := func(infoText, address, want string) {
		t.Helper()
		_ = os.Remove(info)
		if infoText != "" {
			if err := os.WriteFile(info, []byte(infoText), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		config := Config{ServerAddress: address, Places: places}
		var got []string
		for _, c := range config.candidates() {
			if c.err != nil {
				got = append(got, "ERROR")
				continue
			}
			got = append(got, c.address)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("info %q, address %q: %v, want %s", infoText, address, got, want)
		}
	}
	const others = "unix:///a.sock unix:///b.sock localhost:1"
	f("", "", others)
	f(`{"server_address":"unix:///run/t.sock","pid":1}`, "", "unix:///run/t.sock "+others)
	f(`{"server_address":"/run/t.sock"}`, "", "unix:///run/t.sock "+others)
	f(`{"server_address":"unix:///b.sock"}`, "", "unix:///b.sock unix:///a.sock localhost:1")
	f(`{"server_address":""}`, "", others)
	// A socket is preferred, where both are served.
	f(`{"server_address":"0.0.0.0:54321"}`, "", "unix:///a.sock unix:///b.sock 0.0.0.0:54321 localhost:1")
	f(`{"server_address":"localhost:1"}`, "", others)
	f(`{"server_address":`, "", "ERROR "+others)
	f(`{"server_address":"unix:///run/t.sock"}`, "host:2", "host:2")
	defaults := (Places{}).withDefaults()
	if strings.Join(append([]string{defaults.InfoFile}, append(defaults.Sockets, defaults.TCP)...), " ") !=
		"/var/run/tetragon/tetragon-info.json /var/run/tetragon/tetragon.sock /var/run/cilium/tetragon/tetragon.sock localhost:54321" {
		t.Errorf("defaults %+v", defaults)
	}
}

// TestNobodyAnswers: the error names each place with its own reason.
func TestNobodyAnswers(t *testing.T) {
	folder := t.TempDir()
	stale := filepath.Join(folder, "stale.sock")
	listener, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	// One that accepts and says nothing of gRPC.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	s, err := New(Config{FailFast: true, Places: Places{
		InfoFile: filepath.Join(folder, "none"), Sockets: []string{stale, filepath.Join(folder, "absent.sock")}, TCP: silent.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(context.Background(), func([][]byte) { t.Error("an event from nowhere") })
	if !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	for _, want := range []string{stale, "connection refused", "absent.sock", "no such file", silent.Addr().String()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than a line: %q", err)
	}
}

// asStranger makes this test binary try a socket that it may not open.
const asStranger = "TETRACAST_TEST_STRANGER"

func beStranger(path string) {
	s, err := New(Config{ServerAddress: "unix://" + path, FailFast: true})
	if err == nil {
		err = s.Run(context.Background(), func([][]byte) {})
	}
	_, _ = os.Stdout.WriteString(err.Error())
}

// TestPermissionDenied: the error says which group is needed.
func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
			t.Fatal("TETRACAST_REQUIRE_ROOT_TESTS is set, but this is not root")
		}
		t.Skip("SKIPPED, NOT TESTED: giving up root needs root")
	}
	folder, err := os.MkdirTemp("", "tetracast-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "t.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	// The binary is copied to where a stranger may run it.
	binary := filepath.Join(folder, "stranger")
	content, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.WriteFile(binary, content, 0o755), os.Chmod(folder, 0o755), os.Chmod(path, 0o660), os.Chown(path, 0, 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary)
	cmd.Dir = "/"
	cmd.Env = []string{asStranger + "=" + path, "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "permission denied") || !strings.Contains(string(out), "group root (gid 0)") {
		t.Errorf("%s (%v)", out, err)
	}
}
