package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBoot boots systemd in namespaces of its own and does with the package what
// an administrator does. The services run as they will: without capabilities, one
// with root's group, on a socket that systemd opened, with a key that only root can
// read. Through a restart and an upgrade no event is lost.
func TestBoot(t *testing.T) {
	need(t, "unshare", "systemctl", "dpkg", "journalctl")
	if testing.Short() {
		t.Skip("boots a systemd")
	}
	group, err := cgroup()
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	defer func() { _ = exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run() }() // with those that systemd made
	folder := t.TempDir()
	// The shell is in the control group before it makes a namespace of it.
	cmd := exec.Command("/bin/sh", "-c", `echo $$ >"$1"/cgroup.procs && exec unshare --mount --pid --fork --uts --ipc --net --cgroup sh testdata/boot.sh "$2" "$3" testdata/scenario.sh`,
		"sh", group, folder, one(t, "*.deb"))
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	init := 0
	defer func() {
		if p, err := os.FindProcess(init); err == nil && init > 0 {
			_ = p.Kill() // and with process 1 all of its namespace
		} else {
			_ = cmd.Process.Kill()
		}
		<-exited
	}()
	files := func() string { return fmt.Sprintf("/proc/%d/root/test/", init) }
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			init = pid
		}
		if _, err := os.Stat(files() + "ended"); err == nil {
			break
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(log.Name())
			t.Skipf("SKIPPED, NOT TESTED: systemd cannot be booted here: %s", text)
		default:
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(files() + "out")
			t.Fatalf("still running:\n%s", out)
		}
	}
	text, err := os.ReadFile(files() + "out")
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	if !strings.Contains(out, "\nFINISHED\n") {
		t.Fatalf("the scenario failed:\n%s", out)
	}
	for pattern, times := range map[string]int{
		`(?m)^CapEff:\s0+$`:                   2,
		`(?m)^CapBnd:\s0+$`:                   2,
		`(?m)^NoNewPrivs:\s1$`:                2,
		`(?m)^Seccomp:\s2$`:                   2,
		`(?m)^Uid:(\s6\d{4}){4}$`:             2, // of DynamicUser, 61184 to 65519
		`(?m)^Groups:\s0 6\d{4}`:              1, // the exporter's
		`receive_buffer_bytes=33554432`:       3, // each start of the collector, beyond net.core.rmem_max
		`exporter account \(events\): closes`: 2, // before and after the upgrade
		// The one after the upgrade is a warm start: it knows what the previous run knew.
		`msg="Announced as the process before this one did`: 1,
		`Nothing is kept for the next run`:                  0,
	} {
		if got := len(regexp.MustCompile(pattern).FindAllString(out, -1)); got != times {
			t.Errorf("%s stands there %d times, want %d", pattern, got, times)
		}
	}
	agentInits(t, out)
	sent := 0
	for _, m := range regexp.MustCompile(`: sent (\d+), queued 0, dropped: none`).FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(m[1])
		sent += n
	}
	delivered := -1
	for _, m := range regexp.MustCompile(`received (\d+) = delivered (\d+) \+ queued 0 \+ dropped: none`).FindAllStringSubmatch(out, -1) {
		if m[1] == m[2] {
			delivered, _ = strconv.Atoi(m[1]) // the last one counts on from those before
		}
	}
	t.Logf("%d events sent, %d delivered", sent, delivered)
	if sent < 600 || delivered != sent {
		t.Errorf("sent %d events, delivered %d", sent, delivered)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// agentInits holds every fact of each agent_init that the collector wrote against what
// it must be: under the unit an exporter sees little of the host.
func agentInits(t *testing.T, out string) {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	pids := map[float64]bool{}
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, `{"@timestamp":`) {
			continue
		}
		var facts map[string]any
		if err := json.Unmarshal([]byte(line), &facts); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for fact, want := range map[string]any{
			"event": "agent_init", "tetragon_version": "v1.7.0", "hostname": host, "os": "linux",
			"kernel_version": strings.TrimSpace(string(release)), "udp_destination": "127.0.0.1:7514",
			"udp_buffer_size": 65536.0, "uptime": "initialized at 0",
		} {
			if facts[fact] != want {
				t.Errorf("%s is %v, want %v, in %s", fact, facts[fact], want, line)
			}
		}
		for _, fact := range []string{"@timestamp", "started_at"} {
			text, _ := facts[fact].(string)
			if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
				t.Errorf("%s: %v, in %s", fact, err, line)
			}
		}
		if facts["build_commit"] != nil || facts["build_date"] != nil {
			t.Errorf("the recorded Tetragon does not tell its build, but it is in %s", line)
		}
		if pid, _ := facts["pid"].(float64); pid > 1 {
			pids[pid] = true
		}
	}
	if len(pids) != 2 {
		t.Errorf("agent_init of the processes %v, want two, before and after the upgrade", pids)
	}
}

// cgroup makes a control group for the test.
func cgroup() (path string, err error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err = os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		if _, err = os.Stat(filepath.Join(root, "cgroup.subtree_control")); err != nil {
			continue // a hierarchy of version 1
		}
		return os.MkdirTemp(root, "tetracast-test-")
	}
	return "", fmt.Errorf("no control groups of version 2: %w", err)
}
