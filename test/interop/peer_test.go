package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds the wait for a peer: to listen, to write, to end.
const patience = 30 * time.Second

// peer is a program that receives.
type peer struct {
	name    string
	program string // below the folder of the peers
	example string // its configuration in examples/
	// adapt are the texts of the example that the test replaces: port and files.
	port, folder string
	// command runs the program with that configuration.
	command func(program, config, folder string) *exec.Cmd
	preset  string // or format: the scheme of its destination
}

var peers = []peer{
	{
		name: "rsyslog", program: "debian/usr/sbin/rsyslogd", example: "rsyslog.conf", preset: "rsyslog",
		port: `port="514"`, folder: "/var/log/tetragon",
		command: func(program, config, folder string) *exec.Cmd {
			modules := filepath.Join(os.Getenv("TETRACAST_PEERS"), "debian/usr/lib/x86_64-linux-gnu/rsyslog")
			return exec.Command(program, "-n", "-f", config, "-i", filepath.Join(folder, "pid"), "-M", modules)
		},
	},
	{
		name: "syslog-ng", program: "debian/usr/sbin/syslog-ng", example: "syslog-ng.conf", preset: "syslog-ng",
		port: "port(514)", folder: "/var/log/tetragon",
		command: func(program, config, folder string) *exec.Cmd {
			modules := filepath.Join(os.Getenv("TETRACAST_PEERS"), "debian/usr/lib/syslog-ng/3.38")
			return exec.Command(program, "-F", "--no-caps", "-f", config, "--module-path", modules,
				"-R", filepath.Join(folder, "persist"), "-p", filepath.Join(folder, "pid"), "-c", filepath.Join(folder, "ctl"))
		},
	},
	{
		name: "telegraf", program: "telegraf/telegraf", example: "telegraf.conf", preset: "telegraf",
		port: ":8094", folder: "/var/log/tetragon",
		command: func(program, config, _ string) *exec.Cmd {
			return exec.Command(program, "--config", config)
		},
	},
	{
		name: "telegraf-syslog", program: "telegraf/telegraf", example: "telegraf-syslog.conf", preset: "syslog",
		port: ":6514", folder: "/var/log/tetragon",
		command: func(program, config, _ string) *exec.Cmd {
			return exec.Command(program, "--config", config)
		},
	},
	{
		name: "otel-syslog", program: "otel/otel", example: "otel-syslog.yaml", preset: "syslog",
		port: ":54526", folder: "/var/log/tetragon",
		command: func(program, config, _ string) *exec.Cmd { return exec.Command(program, "--config", config) },
	},
	{
		name: "graygelf", program: "graygelf/node_modules/graygelf/server.js", example: "graygelf.js", preset: "graylog",
		port: "listen(12201)", folder: "/var/log/tetragon",
		command: func(_, config, _ string) *exec.Cmd { return exec.Command("node", config) },
	},
	{
		name: "otel", program: "otel/otel", example: "otel.yaml", preset: "otel",
		port: ":54525", folder: "/var/log/tetragon",
		command: func(program, config, _ string) *exec.Cmd { return exec.Command(program, "--config", config) },
	},
}

var digits = regexp.MustCompile(`\d+`)

// schemeOf returns what stands before :// in the destination of a peer.
func schemeOf(name string) string {
	return peers[slices.IndexFunc(peers, func(p peer) bool { return p.name == name })].preset
}

// running is a peer that runs.
type running struct {
	t      *testing.T
	port   int
	folder string
	stderr bytes.Buffer
	cmd    *exec.Cmd
}

// start runs the peer on a free port, with its example as its configuration.
func start(t *testing.T, name string) *running {
	t.Helper()
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name })
	p := peers[i]
	program := filepath.Join(os.Getenv("TETRACAST_PEERS"), p.program)
	if _, err := os.Stat(program); os.Getenv("TETRACAST_PEERS") == "" || err != nil {
		text := fmt.Sprintf("%s is not here: test/interop/peers.sh FOLDER %s installs it, TETRACAST_PEERS=FOLDER names the folder", name, name)
		if slices.Contains(strings.Fields(os.Getenv("TETRACAST_REQUIRE_PEERS")), name) {
			t.Fatal(text)
		}
		t.Skip("SKIPPED, NOT TESTED: " + text)
	}
	r := &running{t: t, port: freePort(t), folder: t.TempDir()}
	config := filepath.Join(r.folder, p.example)
	if p.name == "graygelf" { // it finds its modules beside itself
		config = filepath.Join(os.Getenv("TETRACAST_PEERS"), "graygelf", fmt.Sprint("server", r.port, ".js"))
		t.Cleanup(func() { _ = os.Remove(config) })
	}
	text, err := os.ReadFile(filepath.Join("../../examples", p.example))
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		p.port:   digits.ReplaceAllString(p.port, fmt.Sprint(r.port)),
		p.folder: r.folder,
	} {
		if !bytes.Contains(text, []byte(old)) {
			t.Fatalf("examples/%s has no %q", p.example, old)
		}
		text = bytes.ReplaceAll(text, []byte(old), []byte(new))
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(p.command(program, config, r.folder))
	return r
}

// run starts the command, waits until it listens, and stops it at the end.
func (r *running) run(cmd *exec.Cmd) {
	r.t.Helper()
	libraries := filepath.Join(os.Getenv("TETRACAST_PEERS"), "debian/usr/lib")
	other := filepath.Join(os.Getenv("TETRACAST_PEERS"), "debian/lib")
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries+"/x86_64-linux-gnu:"+libraries+"/syslog-ng:"+other+"/x86_64-linux-gnu")
	cmd.Stderr, cmd.Stdout = &r.stderr, &r.stderr
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.cmd = cmd
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
		}
		if r.t.Failed() {
			r.t.Logf("%s said:\n%.4000s", cmd.Path, r.stderr.String())
		}
	})
	for deadline := time.Now().Add(patience); !bound(r.port); {
		select {
		case err := <-ended:
			ended <- err
			r.t.Fatalf("it ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatal("it does not listen")
		}
	}
}

// lines waits until the file has so many lines, and returns them.
func (r *running) lines(name string, want int) []string {
	r.t.Helper()
	path := filepath.Join(r.folder, name)
	var text []byte
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		text, _ = os.ReadFile(path)
		if n := bytes.Count(text, []byte("\n")); n >= want || time.Now().After(deadline) {
			break
		}
	}
	all := strings.Split(string(text), "\n")
	return all[:len(all)-1]
}

// freePort returns a UDP port of loopback that nobody uses now.
func freePort(t *testing.T) int {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// bound says whether a socket of this network namespace has the port.
func bound(port int) bool { return waiting(port) >= 0 }

// waiting returns how many bytes wait in the socket that has the port, the sixth
// column of /proc/net/udp (udp(7), rx_queue), or -1 if none has it.
func waiting(port int) (bytes int) {
	for _, path := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > 4 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				_, queue, _ := strings.Cut(fields[4], ":")
				n, err := strconv.ParseInt(queue, 16, 64)
				if err == nil {
					return int(n)
				}
			}
		}
	}
	return -1
}
