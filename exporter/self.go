package exporter

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/transcode"
)

// ErrSelfUnknown says that a process cannot tell its own events from those of
// others. None of them is excluded then: with a policy on the network path the
// exporter would export its own sends for ever, but no event of anybody else is
// ever left out by mistake. Those of its connections to Tetragon are still known.
var ErrSelfUnknown = errors.New("exporter: cannot tell the exporter's own events from others'")

// Self tells the events that the exporter causes by exporting. Only hook events
// (kprobe and tracepoint) on the network path, with action POST, can be such:
// whatever else this process does is as interesting as anybody's deed. They are those of
// this process, and those of any process on a connection over TCP by which it hears from
// Tetragon (see [Self.Connected]).
//
// In the initial pid namespace the process is known by its pid. In any other
// the pid that Tetragon reports is one that this process cannot know, and its
// own pid is somebody else's there. There it is known by its binary, its
// container or pod if it knows them, and the time inside the event's exec_id,
// which lies between this process's fork and its main. It is safe for concurrent use.
type Self struct {
	process

	connecting  sync.Mutex                    // one change of connections at a time
	connections atomic.Pointer[[]*connection] // those that are open, and were until lately; nil: none
	looping     chan struct{}                 // capacity 1
}

// process is how this process is known. Its zero value is not known.
type process struct {
	pid uint32 // in the initial pid namespace; 0: not there

	binary    string // empty: unknown
	container string // id, as long as it was found; empty: unknown
	podUID    string // empty: unknown
	bornNS    int64  // fork, in nanoseconds since boot, rounded down
	readyNS   int64  // later than exec, likewise
	suspendNS int64  // what CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC
}

// The inode numbers of the initial namespaces: PROC_PID_INIT_INO and
// PROC_TIME_INIT_INO in include/linux/proc_ns.h, Linux 6.18.
const (
	initialPIDNamespace  = 0xEFFFFFFC
	initialTimeNamespace = 0xEFFFFFFA
)

// ReadSelf reads from the process's own files under proc, usually /proc, and
// from POD_UID, which Kubernetes' downward API can set. Call it early: the
// shorter the time since exec, the fewer processes can be mistaken for this
// one. The error is ErrSelfUnknown with its cause; the Self that comes with it knows
// this process's connections only.
func ReadSelf(proc string) (*Self, error) {
	s := &Self{looping: make(chan struct{}, 1)}
	var err error
	if s.process, err = readProcess(proc); err != nil {
		return s, fmt.Errorf("%w: %w", ErrSelfUnknown, err)
	}
	return s, nil
}

func readProcess(proc string) (process, error) {
	if inode, err := namespace(proc, "pid"); err == nil && inode == initialPIDNamespace {
		return process{pid: uint32(os.Getpid())}, nil
	}
	p := process{podUID: os.Getenv("POD_UID")}
	var err error
	if p.binary, err = os.Readlink(filepath.Join(proc, "self/exe")); err != nil {
		return process{}, err
	}
	if inode, err := namespace(proc, "time"); err == nil && inode != initialTimeNamespace {
		return process{}, errors.New("the process is in a time namespace of its own")
	}
	if p.bornNS, err = startTime(proc); err != nil {
		return process{}, err
	}
	p.readyNS = clock(unix.CLOCK_BOOTTIME)
	p.suspendNS = p.readyNS - clock(unix.CLOCK_MONOTONIC)
	for _, file := range []string{"self/cgroup", "self/mountinfo"} {
		text, err := os.ReadFile(filepath.Join(proc, file))
		if err != nil {
			continue
		}
		if p.container == "" {
			p.container = firstMatch(containerID, text)
		}
		if p.podUID == "" {
			p.podUID = strings.ReplaceAll(firstMatch(podUID, text), "_", "-")
		}
	}
	return p, nil
}

// A container id is 64 hexadecimal digits. In a private control group namespace
// /proc/self/cgroup does not hold it, but the runtime's mounts of /etc/hostname
// and the like do. A pod's uid stands in the path of its kubelet folder, and
// with underscores in the name of its systemd slice.
var (
	containerID = regexp.MustCompile(`(?:docker[-/]|containerd[-/:]|crio-|libpod-|containers/|sandboxes/|/)([0-9a-f]{64})\b`)
	podUID      = regexp.MustCompile(`pods?/?([0-9a-f]{8}[-_](?:[0-9a-f]{4}[-_]){3}[0-9a-f]{12})\b`)
)

func firstMatch(pattern *regexp.Regexp, text []byte) string {
	if m := pattern.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}

// namespace returns the inode number of one of the process's namespaces.
func namespace(proc, kind string) (inode uint64, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "self/ns", kind), &stat); err != nil {
		return 0, err
	}
	return stat.Ino, nil
}

// startTime returns when the process was forked, in nanoseconds since boot.
// Field 22 of /proc/PID/stat counts in hundredths of a second on every
// architecture (USER_HZ); see proc_pid_stat(5).
func startTime(proc string) (ns int64, err error) {
	text, err := os.ReadFile(filepath.Join(proc, "self/stat"))
	if err != nil {
		return 0, err
	}
	// The second field, the name, is in parentheses and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("%s/self/stat has %d fields after the name, want 20 or more", proc, len(fields))
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/self/stat: start time: %w", proc, err)
	}
	return ticks * int64(10*time.Millisecond), nil
}

func clock(id int32) (ns int64) {
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		return 0
	}
	return now.Nano()
}

// Caused says whether this process caused the event by exporting. What cannot
// be decided is not excluded. It does not allocate for events of others.
func (s *Self) Caused(wire []byte) bool {
	kind, member := transcode.KindOf(wire)
	return s.caused(wire, kind, member)
}

// caused is Caused for an event whose kind was seen. Nearly every event is somebody
// else's by its kind, pid or binary; only what may be ours is scanned.
func (s *Self) caused(wire []byte, kind transcode.Kind, member []byte) bool {
	if kind != transcode.KindProcessKprobe && kind != transcode.KindProcessTracepoint {
		return false
	}
	mine, on := s.mayBe(transcode.ProcessOf(kind, member)), s.connectionOf(kind, member)
	if !mine && on == nil {
		return false
	}
	event, err := transcode.Scan(wire)
	if err != nil || event.Action != transcode.ActionPost {
		return false
	}
	if on != nil { // what has it as an argument is on the network path
		s.exclude(on)
		return true
	}
	return s.is(&event) && onNetworkPath(&event)
}

// mayBe says whether an event of such a process may be this one's.
func (p *process) mayBe(pid uint32, hasPID bool, binary []byte) bool {
	if p.pid != 0 {
		return hasPID && pid == p.pid
	}
	return p.binary != "" && string(binary) == p.binary
}

// is says whether the event's process is this one.
func (p *process) is(event *transcode.Summary) bool {
	if !p.mayBe(event.PID, event.HasPID, event.Binary) {
		return false
	}
	if p.pid != 0 {
		return true
	}
	if p.container != "" && !sameContainer(p.container, event.Docker) {
		return false
	}
	if p.podUID != "" && len(event.PodUID) > 0 && string(event.PodUID) != p.podUID {
		return false
	}
	exec, ok := execTime(event.ExecID)
	return ok && (p.alive(exec) || p.alive(exec+p.suspendNS))
}

// alive says whether a time, in nanoseconds since boot, lies between this
// process's fork and its main.
func (p *process) alive(ns int64) bool { return p.bornNS <= ns && ns <= p.readyNS }

// sameContainer compares with the id in an event, of which Tetragon keeps the
// first 31 characters.
func sameContainer(id string, docker []byte) bool {
	return len(docker) >= 12 && strings.HasPrefix(id, string(docker))
}

// execTime returns the time in an exec_id, which is base64 of
// "node:nanoseconds:pid"; see GetExecID in pkg/process of Tetragon v1.7.0.
func execTime(execID []byte) (ns int64, ok bool) {
	text := make([]byte, base64.StdEncoding.DecodedLen(len(execID)))
	n, err := base64.StdEncoding.Decode(text, execID)
	if err != nil {
		return 0, false
	}
	parts := strings.Split(string(text[:n]), ":")
	if len(parts) < 3 {
		return 0, false
	}
	ns, err = strconv.ParseInt(parts[len(parts)-2], 10, 64)
	return ns, err == nil
}

// networkPath lists the beginnings of the kernel functions, system calls and
// tracepoints that a datagram or a message of the subscription passes on its
// way between this process and the wire.
var networkPath = []string{
	"udp", "tcp_", "__tcp_", "unix_", "ip_", "__ip_", "ip6_", "__ip6_", "inet_", "inet6_", "ipv4_", "ipv6_",
	"sock_", "__sock_", "sk_", "__sk_", "skb_", "__skb_", "kfree_skb", "consume_skb", "security_socket_", "security_sock_",
	"dev_", "__dev_", "net_", "__net_", "netif_", "__netif_", "loopback_xmit", "nf_", "neigh_", "cookie_",
	"sys_send", "__sys_send", "___sys_send", "sys_recv", "__sys_recv", "___sys_recv", "sys_connect", "__sys_connect",
	"sys_enter_send", "sys_exit_send", "sys_enter_recv", "sys_exit_recv", "sys_enter_connect", "sys_exit_connect",
}

// onNetworkPath says whether the hook is on that way.
func onNetworkPath(event *transcode.Summary) bool {
	name := string(event.Function)
	if event.Kind == transcode.KindProcessTracepoint {
		switch string(event.Subsystem) {
		case "net", "sock", "skb", "udp", "tcp", "neigh":
			return true
		}
	}
	for _, architecture := range []string{"__x64_", "__arm64_", "__ia32_"} {
		name = strings.TrimPrefix(name, architecture)
	}
	for _, prefix := range networkPath {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
