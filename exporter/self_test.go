package exporter

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// asChild makes this test binary read who it is and judge events, so that the
// test can start it in namespaces of its own.
const asChild = "TETRACAST_TEST_SELF"

// childHello is what the child says first; nanoseconds since boot.
type childHello struct {
	Exe         string
	PID         int // as the child sees it
	Born, Ready int64
	ByPID       bool // it knows itself by its pid
	Error       string
}

func beChild() {
	self, err := ReadSelf("/proc")
	hello := childHello{PID: os.Getpid()}
	if err != nil {
		hello.Error = err.Error()
	} else {
		hello.Exe, hello.Born, hello.Ready, hello.ByPID = self.binary, self.bornNS, self.readyNS, self.pid != 0
	}
	out, in := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	_ = out.Encode(hello)
	for {
		var wire []byte
		if in.Decode(&wire) != nil {
			return
		}
		_ = out.Encode(self.Caused(wire))
	}
}

// child is the test binary in namespaces of its own.
type child struct {
	t     *testing.T
	hello childHello
	pid   int // on the host
	ask   *json.Encoder
	hear  *json.Decoder
}

func startChild(t *testing.T, clone uintptr, shell string) *child {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", shell+`exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), asChild+"=1", "POD_UID=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: clone}
	cmd.Stderr = os.Stderr
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	c := &child{t: t, pid: cmd.Process.Pid, ask: json.NewEncoder(stdin), hear: json.NewDecoder(bufio.NewReader(stdout))}
	if err := c.hear.Decode(&c.hello); err != nil || c.hello.Error != "" {
		t.Fatalf("the child says %+v, %v", c.hello, err)
	}
	return c
}

// caused asks the child whether it takes the event for its own.
func (c *child) caused(event *tetragon.GetEventsResponse) (own bool) {
	c.t.Helper()
	wire, err := proto.Marshal(event)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(c.ask.Encode(wire), c.hear.Decode(&own)); err != nil {
		c.t.Fatal(err)
	}
	return own
}

// hook is a hook event of a process.
type hook struct {
	pid      int
	binary   string
	exec     int64 // nanoseconds since boot
	docker   string
	function string
	action   tetragon.KprobeAction
}

func (h hook) event() *tetragon.GetEventsResponse {
	return &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{
		Process: h.process(), FunctionName: h.function, Action: h.action}}}
}

func (h hook) process() *tetragon.Process {
	id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "node:%d:%d", h.exec, h.pid))
	return &tetragon.Process{Pid: wrapperspb.UInt32(uint32(h.pid)), Binary: h.binary, ExecId: id, Docker: h.docker}
}

// TestSelf: own sends are excluded, and nothing else is, on the host, in a pid
// namespace where our pid is also that of a host process, and in a private
// control group namespace.
func TestSelf(t *testing.T) {
	f := func(name string, clone uintptr, shell string, byPID bool) {
		t.Run(name, func(t *testing.T) {
			c := startChild(t, clone, shell)
			if c.hello.ByPID != byPID {
				t.Fatalf("knows itself by its pid: %v, want %v", c.hello.ByPID, byPID)
			}
			if !byPID && c.hello.PID != 1 {
				t.Fatalf("its own pid is %d, want 1, which the host has too", c.hello.PID)
			}
			own := hook{pid: c.pid, binary: c.hello.Exe, exec: (c.hello.Born + c.hello.Ready) / 2,
				function: "udp_sendmsg", action: tetragon.KprobeAction_KPROBE_ACTION_POST}
			g := func(what string, want bool, change func(*hook)) {
				t.Helper()
				h := own
				change(&h)
				if got := c.caused(h.event()); got != want {
					t.Errorf("%s: excluded %v, want %v", what, got, want)
				}
			}
			g("our own send", true, func(*hook) {})
			g("our own system call", true, func(h *hook) { h.function = "__x64_sys_sendmmsg" })
			g("the host's first process sends", false, func(h *hook) { h.pid, h.binary, h.exec = 1, "/sbin/init", 1 })
			g("a shell in our container sends", false, func(h *hook) { h.pid, h.binary = c.pid+1, "/bin/sh" })
			g("a second exporter, started later, sends", false, func(h *hook) { h.pid, h.exec = c.pid+1, c.hello.Ready+1e9 })
			g("we open a file", false, func(h *hook) { h.function = "security_file_open" })
			g("our send is blocked", false, func(h *hook) { h.action = tetragon.KprobeAction_KPROBE_ACTION_OVERRIDE })
			g("our send gets us killed", false, func(h *hook) { h.action = tetragon.KprobeAction_KPROBE_ACTION_SIGKILL })
			if !byPID {
				g("the time of the exec is unknown", false, func(h *hook) { h.exec = 0 })
				g("a process of the host with our own pid", false, func(h *hook) { h.pid, h.binary = c.hello.PID, "/usr/bin/nc" })
			}
			for what, event := range map[string]*tetragon.GetEventsResponse{
				"our exec": {Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{Process: own.process()}}},
				"our exit": {Event: &tetragon.GetEventsResponse_ProcessExit{ProcessExit: &tetragon.ProcessExit{Process: own.process()}}},
				"an LSM hook of ours": {Event: &tetragon.GetEventsResponse_ProcessLsm{ProcessLsm: &tetragon.ProcessLsm{
					Process: own.process(), FunctionName: "socket_connect", Action: own.action}}},
			} {
				if c.caused(event) {
					t.Errorf("%s is excluded", what)
				}
			}
			tracepoint := &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessTracepoint{ProcessTracepoint: &tetragon.ProcessTracepoint{
				Process: own.process(), Subsys: "net", Event: "net_dev_queue", Action: own.action}}}
			if !c.caused(tracepoint) {
				t.Error("the tracepoint of our own send is not excluded")
			}
		})
	}
	inode, err := namespace("/proc", "pid")
	if err != nil || inode != initialPIDNamespace {
		skipLoudly(t, "the tests do not run in the initial pid namespace")
	}
	f("host", 0, "", true)
	if os.Geteuid() != 0 {
		skipLoudly(t, "namespaces need root")
	}
	f("pid namespace", syscall.CLONE_NEWPID|syscall.CLONE_NEWNS, "mount -t proc proc /proc && ", false)
	f("pid and control group namespace", syscall.CLONE_NEWPID|syscall.CLONE_NEWNS|syscall.CLONE_NEWCGROUP, "mount -t proc proc /proc && ", false)
}

// skipLoudly skips a test that this machine cannot run, unless it has to.
func skipLoudly(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
		t.Fatalf("TETRACAST_REQUIRE_ROOT_TESTS is set, but %s", why)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", why)
}

// TestSelfInContainer: where the container or the pod is known, a namesake in
// another one is somebody else.
func TestSelfInContainer(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const uid = "11111111-2222-3333-4444-555555555555"
	f := func(file, content, wantContainer, wantPod string) {
		t.Helper()
		proc := fakeProc(t, map[string]string{file: content})
		self, err := ReadSelf(proc)
		if err != nil {
			t.Fatal(err)
		}
		if self.container != wantContainer || self.podUID != wantPod {
			t.Errorf("%s: container %q, pod %q; want %q, %q", content, self.container, self.podUID, wantContainer, wantPod)
		}
		own := hook{pid: 9, binary: self.binary, exec: self.readyNS, docker: id[:31], function: "udp_sendmsg", action: tetragon.KprobeAction_KPROBE_ACTION_POST}
		other := own
		other.docker = "f" + id[:30]
		for _, c := range []struct {
			hook
			want bool
		}{{own, true}, {other, wantContainer == ""}} {
			wire, _ := proto.Marshal(c.event())
			if self.Caused(wire) != c.want {
				t.Errorf("%s: container %s excluded: %v, want %v", content, c.docker, !c.want, c.want)
			}
		}
	}
	f("cgroup", "0::/\n", "", "")
	f("cgroup", "0::/system.slice/docker-"+id+".scope\n", id, "")
	f("cgroup", "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-"+id+".scope\n", id, uid)
	f("cgroup", "1:name=systemd:/kubepods/burstable/pod"+uid+"/"+id+"\n", id, uid)
	f("mountinfo", "900 800 8:1 /var/lib/docker/containers/"+id+"/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n", id, "")
	f("mountinfo", "900 800 8:1 /var/lib/kubelet/pods/"+uid+"/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n", "", uid)
}

func TestSelfUnknown(t *testing.T) {
	if _, err := ReadSelf(t.TempDir()); !errors.Is(err, ErrSelfUnknown) {
		t.Errorf("without /proc: %v", err)
	}
	proc := fakeProc(t, map[string]string{"stat": "4242 (a) R"})
	if _, err := ReadSelf(proc); !errors.Is(err, ErrSelfUnknown) {
		t.Errorf("with half a stat: %v", err)
	}
}

// fakeProc is a /proc/self of a process in a pid namespace of its own.
func fakeProc(t *testing.T, files map[string]string) string {
	t.Helper()
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "self/ns"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, ok := files["stat"]; !ok {
		files["stat"] = "4242 (a (b) c) R 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 100 1 1"
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(proc, "self", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/bin/tetracast", filepath.Join(proc, "self/exe")); err != nil {
		t.Fatal(err)
	}
	return proc
}

// TestExcludedInTheAccount: an own event is seen and excluded, and not sent.
func TestExcludedInTheAccount(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{Self: &Self{process: process{pid: 4242}}}, &socket)
	own, _ := proto.Marshal(hook{pid: 4242, function: "udp_sendmsg", action: tetragon.KprobeAction_KPROBE_ACTION_POST}.event())
	_ = e.SendBatch([][]byte{wire(0), own, wire(1), own})
	lines, _ := socket.events()
	wantLines(t, lines, 0, 2)
	if a := check(t, e); a.Seen != 4 || a.Excluded != 2 || a.Streams[0].Sent != 2 {
		t.Errorf("account %+v", a)
	}
}
