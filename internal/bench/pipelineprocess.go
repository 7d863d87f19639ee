package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"golang.org/x/sys/unix"
)

// child is a process of this program that a bench started.
type child struct {
	cmd     *exec.Cmd
	started time.Time
	log     strings.Builder
	exited  chan struct{}
}

// startSelf starts this program with the arguments.
func startSelf(ctx context.Context, env []string, args ...string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("bench: finding this program: %w", err)
	}
	return startChild(ctx, env, program, args...)
}

func startChild(ctx context.Context, env []string, program string, args ...string) (*child, error) {
	c := &child{cmd: exec.CommandContext(ctx, program, args...), exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stderr = &c.log // read after exited
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("bench: starting %s: %w", args[0], err)
	}
	c.started = time.Now()
	go func() {
		defer close(c.exited)
		_ = c.cmd.Wait()
	}()
	return c, nil
}

// stop ends the process and returns what it wrote to standard error.
func (c *child) stop() string {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	return c.log.String()
}

// server is a replay that serves a recording again and again.
type server struct {
	*child
	address string
}

// serve starts a server of the events at a rate; 0: as fast as the client reads.
func serve(ctx context.Context, folder string, events [][]byte, rate int) (*server, error) {
	recording := filepath.Join(folder, "recording.binpb")
	var text []byte
	for _, wire := range events {
		text = protowire.AppendBytes(text, wire)
	}
	if err := os.WriteFile(recording, text, 0o600); err != nil {
		return nil, fmt.Errorf("bench: writing the recording: %w", err)
	}
	s := &server{address: "unix://" + filepath.Join(folder, "tetragon.sock")}
	var err error
	if s.child, err = startSelf(ctx, nil, "replay", "--loop", "--recording", recording, "--rate", strconv.Itoa(rate), "--server-address", s.address); err != nil {
		return nil, err
	}
	for range 500 {
		conn, err := net.Dial("unix", strings.TrimPrefix(s.address, "unix://"))
		if err == nil {
			_ = conn.Close()
			return s, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, fmt.Errorf("bench: the server does not answer: %s", s.stop())
}

// drainedSink is a collector that takes every datagram from the kernel at the least
// cost and throws it away.
type drainedSink struct {
	conn  *net.UDPConn
	first chan struct{} // closed when something came
	ended chan struct{}
}

func newDrainedSink() (*drainedSink, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("bench: opening a sink: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if controlErr := raw.Control(func(fd uintptr) {
		// Super-packets stay whole, as on a network card that segments.
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20))
	}); controlErr != nil || err != nil {
		return nil, fmt.Errorf("bench: opening a sink: %w", errors.Join(controlErr, err))
	}
	s := &drainedSink{conn: conn, first: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		buffer := make([]byte, 1<<16)
		for any := false; ; any = true {
			if _, err := conn.Read(buffer); errors.Is(err, net.ErrClosed) {
				return
			}
			if !any {
				close(s.first)
			}
		}
	}()
	return s, nil
}

func (s *drainedSink) address() string { return s.conn.LocalAddr().String() }

func (s *drainedSink) close() {
	_ = s.conn.Close()
	<-s.ended
}

// processUsage is what a process used in a window of time, and what it did.
type processUsage struct {
	events, dropped uint64
	cpu             time.Duration
	from, window    time.Duration // from the process's start, and how long
	switches        uint64        // voluntary: it slept and was woken
	rssBytes        uint64        // at the end
}

func (u *processUsage) perEvent() time.Duration {
	return time.Duration(float64(u.cpu) / float64(max(1, u.events)))
}

// observed is an account as export and the rivals write it.
type observed struct {
	Seen    uint64            `json:"seen"`
	Dropped map[string]uint64 `json:"dropped"`
	Streams []struct {
		Dropped map[string]uint64 `json:"dropped"`
		Queued  uint64            `json:"queued"`
	} `json:"streams"`
}

func (o *observed) dropped() (total uint64) {
	for _, n := range o.Dropped {
		total += n
	}
	for _, s := range o.Streams {
		for _, n := range s.Dropped {
			total += n
		}
	}
	return total
}

// ask has the process write its account, and reads it. It returns when the account
// was asked for.
func (c *child) ask(ctx context.Context, path string) (o observed, at time.Time, err error) {
	_ = os.Remove(path)
	for i := range 10_000 {
		if i%500 == 0 {
			at = time.Now()
			if err := c.cmd.Process.Signal(unix.SIGUSR1); err != nil {
				return o, at, fmt.Errorf("bench: asking for an account: %w", err)
			}
		}
		text, err := os.ReadFile(path)
		if err == nil {
			return o, at, json.Unmarshal(text, &o)
		}
		select {
		case <-ctx.Done():
			return o, at, ctx.Err()
		case <-c.exited:
			return o, at, fmt.Errorf("bench: the process ended: %s", c.log.String())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return o, at, errors.New("bench: the process writes no account")
}

// measure waits until the process sends, lets it warm up, and returns what it used in
// the window after that.
func (c *child) measure(ctx context.Context, sends <-chan struct{}, account string, warmUp, window time.Duration) (u processUsage, err error) {
	select {
	case <-sends: // so it also hears signals
	case <-c.exited:
		return u, fmt.Errorf("bench: the process ended: %s", c.log.String())
	case <-time.After(20 * time.Second):
		return u, errors.New("bench: the process sends nothing")
	}
	if err := sleep(ctx, warmUp); err != nil {
		return u, err
	}
	before, askedBefore, err := c.ask(ctx, account)
	if err != nil {
		return u, err
	}
	// What an account costs the process is not in the window.
	if err := sleep(ctx, 20*time.Millisecond); err != nil {
		return u, err
	}
	cpu, err := cpuTimeOf(c.cmd.Process.Pid)
	if err != nil {
		return u, err
	}
	switches, begin := switchesOf(c.cmd.Process.Pid), time.Now()
	if err := sleep(ctx, window); err != nil {
		return u, err
	}
	cpuAfter, err := cpuTimeOf(c.cmd.Process.Pid)
	if err != nil {
		return u, err
	}
	u = processUsage{cpu: cpuAfter - cpu, from: begin.Sub(c.started), window: time.Since(begin),
		switches: switchesOf(c.cmd.Process.Pid) - switches, rssBytes: rssOf(c.cmd.Process.Pid)}
	after, askedAfter, err := c.ask(ctx, account)
	if err != nil {
		return u, err
	}
	u.dropped = after.dropped() - before.dropped()
	// Of the events between the accounts, those in the window.
	u.events = uint64(float64(after.Seen-before.Seen) * u.window.Seconds() / askedAfter.Sub(askedBefore).Seconds())
	return u, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// switchesOf sums the voluntary context switches of a process's threads.
func switchesOf(pid int) (total uint64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, path := range tasks {
		text, _ := os.ReadFile(path)
		total += statusField(text, "voluntary_ctxt_switches:")
	}
	return total
}

// rssOf is the memory of a process, in bytes.
func rssOf(pid int) uint64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return statusField(text, "VmRSS:") << 10
}

// statusField reads a number of /proc/PID/status; see proc_pid_status(5).
func statusField(text []byte, name string) (n uint64) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			_, _ = fmt.Sscan(value, &n)
		}
	}
	return n
}
