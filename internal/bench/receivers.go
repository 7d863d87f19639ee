package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tetracast/exporter"
	"tetracast/transcode"
)

// receiver is a collector as a process: it reads one format and writes a file of
// lines.
type receiver struct {
	name, format string
	program      string // below the folder of peers; empty: this program
	config       string // {port}, {out}: what to fill in; empty: no file
	args         func(config, folder string, port int) []string
	note         string
	forces       bool // its receive buffer may exceed net.core.rmem_max: SO_RCVBUFFORCE
}

var receivers = []receiver{
	{name: "rsyslog, syslog, checked", format: "syslog", forces: true, program: "debian/usr/sbin/rsyslogd", config: rsyslogHead + `
module(load="mmjsonparse")
action(type="mmjsonparse" cookie="")
if $parsesuccess == "OK" then {` + rsyslogFile + `}
`, args: rsyslogArgs, note: "with mmjsonparse: only what is JSON reaches the file, as with collect"},
	{name: "rsyslog, syslog, unchecked", format: "syslog", forces: true, program: "debian/usr/sbin/rsyslogd",
		config: rsyslogHead + rsyslogFile, args: rsyslogArgs, note: "whatever comes reaches the file"},
	{name: "syslog-ng, syslog, checked", format: "syslog", program: "debian/usr/sbin/syslog-ng", config: syslogNGHead + `
parser p { json-parser(prefix(".tetragon.")); };
log { source(s); parser(p); destination(d); };
`, args: syslogNGArgs, note: "with json-parser"},
	{name: "syslog-ng, syslog, unchecked", format: "syslog", program: "debian/usr/sbin/syslog-ng", config: syslogNGHead + `
log { source(s); destination(d); };
`, args: syslogNGArgs},
	{name: "telegraf, json", format: "json", program: "telegraf/telegraf", config: `
[agent]
  flush_interval = "1s"
  metric_batch_size = 1000
  metric_buffer_limit = 1000000
  omit_hostname = true
[[inputs.socket_listener]]
  service_address = "udp://127.0.0.1:{port}"
  read_buffer_size = "32MiB"
  data_format = "value"
  data_type = "string"
[[outputs.file]]
  files = ["{out}"]
  data_format = "json"
`, args: func(config, _ string, _ int) []string { return []string{"--config", config} }},
	{name: "collect, syslog", format: "syslog", args: collectArgs, forces: true, note: "goal: at least 3x as cheap as each of the others"},
	{name: "collect, json", format: "json", args: collectArgs, forces: true},
	{name: "collect, frame", format: "frame", args: collectArgs, forces: true, note: "goal: at least 5x as cheap as each of the others"},
}

// What rsyslog has in its favour: large buffers, and no write for each message.
const (
	rsyslogHead = `
global(parser.escapeControlCharactersOnReceive="off")
module(load="imudp" batchSize="128")
input(type="imudp" address="127.0.0.1" port="{port}" rcvbufSize="32m")
template(name="event" type="string" string="%msg%\n")
`
	rsyslogFile = `action(type="omfile" file="{out}" template="event" ioBufferSize="256k" flushOnTXEnd="off" asyncWriting="off")
`
)

func rsyslogArgs(config, folder string, _ int) []string {
	return []string{"-n", "-f", config, "-i", folder + "/pid", "-M", "{peers}/debian/usr/lib/x86_64-linux-gnu/rsyslog"}
}

const syslogNGHead = `@version: 3.38
source s { syslog(transport("udp") ip("127.0.0.1") port({port}) so-rcvbuf(33554432)); };
destination d { file("{out}" template("$MSG\n")); };
`

func syslogNGArgs(config, folder string, _ int) []string {
	return []string{"-F", "--no-caps", "-f", config, "--module-path", "{peers}/debian/usr/lib/syslog-ng/3.38",
		"-R", folder + "/persist", "-p", folder + "/pid", "-c", folder + "/ctl"}
}

func collectArgs(_, folder string, port int) []string {
	return []string{"collect", "--listen", fmt.Sprint("127.0.0.1:", port), "--write", folder + "/out", "--write-max-bytes", "0", "--log-level", "error"}
}

// burstEvents is how many events wait in the socket of a collector that is to work
// at its full pace: less than 32 MiB of buffer hold.
const burstEvents = 5000

// maxReceived is the longest line that is sent: what each of them reads whole.
const maxReceived = 7500

// receiverTable measures the processor time of collectors, user and system, from
// the first event to the last line in the file: events at a rate, or in bursts
// that wait in the socket, so that the collector works at its full pace. Those
// that are not there are left out, and the title says so.
func receiverTable(ctx context.Context, events [][]byte, bursts bool, options FormatsOptions) (Table, error) {
	events, err := short(events, options.Events)
	if err != nil {
		return Table{}, err
	}
	how := fmt.Sprintf("at %d a second", options.Rate)
	if bursts {
		how = fmt.Sprintf("in bursts of %d", burstEvents)
	}
	title := fmt.Sprintf("from the socket to a file, processor time of the collector's process, %d events of recording a %s", len(events), how)
	var contenders []*contender
	for _, r := range receivers {
		if bursts && !r.forces {
			title += "; " + r.name + " has no buffer for them: skipped"
			continue
		}
		program := r.program
		if program != "" {
			program = filepath.Join(options.Peers, program)
			if _, err := os.Stat(program); options.Peers == "" || err != nil {
				title += "; " + r.name + " is not here: skipped"
				continue
			}
		}
		contenders = append(contenders, &contender{name: r.name, note: r.note, base: "collect, frame", round: func() (int, time.Duration, error) {
			return r.receive(ctx, program, events, bursts, options)
		}})
	}
	return measure(ctx, title, "event", min(options.Rounds, 3), contenders)
}

// short returns so many events whose JSON is not longer than maxReceived, from the
// beginning again where there are fewer.
func short(events [][]byte, want int) (all [][]byte, err error) {
	t, err := newTranscoder()
	if err != nil {
		return nil, err
	}
	for _, wire := range events {
		line, _, err := t.Append(nil, wire)
		if err != nil {
			return nil, err
		}
		if summary, err := transcode.Scan(wire); err == nil && summary.Kind != 0 && len(line) <= maxReceived {
			all = append(all, wire)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("bench: no event of the recording is short enough for all collectors")
	}
	for i := 0; len(all) < want; i++ {
		all = append(all, all[i])
	}
	return all[:want], nil
}

// receive runs the collector, sends it the events, and returns how many came and
// what they cost.
func (r *receiver) receive(ctx context.Context, program string, events [][]byte, bursts bool, options FormatsOptions) (int, time.Duration, error) {
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return 0, 0, fmt.Errorf("bench: making a folder for the output: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	port, err := freePort()
	if err != nil {
		return 0, 0, err
	}
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return 0, 0, err
		}
	}
	config, out := filepath.Join(folder, "config"), filepath.Join(folder, "out")
	text := strings.NewReplacer("{port}", fmt.Sprint(port), "{out}", out).Replace(r.config)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return 0, 0, err
	}
	args := r.args(config, folder, port)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{peers}", options.Peers)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	library := filepath.Join(options.Peers, "debian")
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+library+"/usr/lib/x86_64-linux-gnu:"+library+"/usr/lib/syslog-ng:"+library+"/lib/x86_64-linux-gnu")
	if err := cmd.Start(); err != nil {
		return 0, 0, fmt.Errorf("bench: starting %s: %w", r.name, err)
	}
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
	if err := awaitBound(ctx, port); err != nil {
		return 0, 0, fmt.Errorf("bench: %s: %w", r.name, err)
	}
	before, err := cpuTimeOf(cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	to := fmt.Sprintf("%s://127.0.0.1:%d", r.format, port)
	lines, burst := 0, len(events)
	if bursts {
		burst = burstEvents
	}
	for rest := events; len(rest) > 0; rest = rest[min(burst, len(rest)):] {
		rate := options.Rate
		if bursts {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			rate = 50_000
		}
		err := sendPaced(ctx, to, rest[:min(burst, len(rest))], rate)
		_ = cmd.Process.Signal(syscall.SIGCONT)
		if err != nil {
			return 0, 0, err
		}
		lines = awaitLines(ctx, out, lines+min(burst, len(rest)))
	}
	after, err := cpuTimeOf(cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	if lines < len(events)*9/10 {
		return 0, 0, fmt.Errorf("bench: %s wrote %d of %d events: a lower --rate?", r.name, lines, len(events))
	}
	return lines, after - before, nil
}

// sendPaced sends the events, a hundredth of a second's worth at a time.
func sendPaced(ctx context.Context, to string, events [][]byte, rate int) error {
	d, err := exporter.ParseDestination(to, exporter.Destination{})
	if err != nil {
		return err
	}
	e, err := exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{d}, StatsInterval: -1})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(running) }()
	const ticks = 100 // a second
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	for len(events) > 0 && ctx.Err() == nil {
		n := min(max(1, rate/ticks), len(events))
		_ = e.SendBatch(events[:n])
		events = events[n:]
		<-tick.C
	}
	err = e.Finish(ctx)
	stop()
	return errors.Join(err, <-ended, e.Close())
}

// awaitLines returns how many lines the file has when it has enough, or grows no
// more for three seconds.
func awaitLines(ctx context.Context, path string, want int) (lines int) {
	for still := 0; still < 60 && ctx.Err() == nil; still++ {
		text, _ := os.ReadFile(path)
		n := bytes.Count(text, []byte("\n"))
		if n >= want {
			return n
		}
		if n > lines {
			lines, still = n, 0
		}
		time.Sleep(50 * time.Millisecond)
	}
	return lines
}

// cpuTimeOf returns what a process has used of processors, all its threads that
// live: /proc/PID/task/TID/schedstat, first field, nanoseconds (Linux,
// Documentation/scheduler/sched-stats.rst).
func cpuTimeOf(pid int) (total time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("bench: no threads of process %d: %v", pid, err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			return 0, fmt.Errorf("bench: %s: %w", path, err)
		}
		total += time.Duration(ns)
	}
	return total, nil
}

func freePort() (int, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("bench: looking for a free port: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return conn.LocalAddr().(*net.UDPAddr).Port, nil
}

// awaitBound waits until a socket of this network namespace has the port.
func awaitBound(ctx context.Context, port int) error {
	for range 500 {
		for _, path := range []string{"/proc/net/udp", "/proc/net/udp6"} {
			text, _ := os.ReadFile(path)
			if bytes.Contains(text, fmt.Appendf(nil, ":%04X ", port)) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("does not listen on port %d", port)
}
