package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/internal/replay"
)

// rivalsTable sets export beside what everybody writes and beside the floors, with
// a server that sends as fast as they read.
func rivalsTable(ctx context.Context, recording namedEvents, jsonGoal, frameGoal int, options PipelineOptions) (PipelineTable, error) {
	const typed = "typed client, protojson, Write"
	rivals := []*rivalProcess{
		{name: typed, args: rivalArgs("typed")},
		{name: "export, json", base: typed, goal: fmt.Sprintf("%dx", jsonGoal), args: exportArgs("json", options.Exports)},
		{name: "export, ndjson", base: typed, args: exportArgs("ndjson", options.Exports)},
		{name: "export, frame", base: typed, goal: fmt.Sprintf("%dx; at most 1.3x the floor", frameGoal), args: exportArgs("frame", append([]string{"--max-datagram", "1232"}, options.Exports...))},
		{name: "floor: receive, compress once, GSO", base: typed, args: rivalArgs("floor")},
		{name: "floor: receive, write each", base: typed, args: rivalArgs("relay")},
	}
	if err := watch(ctx, recording.events, 0, options, rivals); err != nil {
		return PipelineTable{}, err
	}
	return tableOf("as fast as the client reads, "+recording.name, rivals), nil
}

// slowTable measures a client that has little to do, and one at rest.
func slowTable(ctx context.Context, recording namedEvents, options PipelineOptions) (PipelineTable, error) {
	var all []*rivalProcess
	options.Window, options.settled = max(options.Window, 4*time.Second), true
	for _, rate := range []int{10, 100, 1000} {
		relay := fmt.Sprintf("read and write only, %d/s", rate)
		rivals := []*rivalProcess{
			{name: relay, args: rivalArgs("relay")},
			{name: fmt.Sprintf("export, json, %d/s", rate), base: relay, goal: "at least 0.67x", args: exportArgs("json", options.Exports)},
			{name: fmt.Sprintf("export, frame, %d/s", rate), base: relay, goal: "at least 0.67x", args: exportArgs("frame", options.Exports)},
			{name: fmt.Sprintf("typed client, %d/s", rate), base: relay, args: rivalArgs("typed")},
		}
		if err := watch(ctx, recording.events, rate, options, rivals); err != nil {
			return PipelineTable{}, err
		}
		all = append(all, rivals...)
	}
	rest := options
	rest.Window, rest.Rounds = max(options.Window, 10*time.Second), min(options.Rounds, 3)
	idle := []*rivalProcess{
		{name: "export, json, at rest", goal: "under 0.1 % of a core", args: exportArgs("json", options.Exports)},
		{name: "export, frame, at rest", goal: "under 0.1 % of a core", args: exportArgs("frame", options.Exports)},
	}
	if err := watchIdle(ctx, rest, idle); err != nil {
		return PipelineTable{}, err
	}
	return tableOf("little to do, "+recording.name, append(all, idle...)), nil
}

// watchIdle runs the rivals against a server that sends one event to each and then
// nothing for an hour.
func watchIdle(ctx context.Context, options PipelineOptions, rivals []*rivalProcess) error {
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	faults := make([]replay.Fault, options.Rounds*len(rivals))
	for i := range faults {
		faults[i] = replay.Fault{After: 1, Stall: time.Hour}
	}
	server, err := replay.New(replay.Config{Loop: true, Faults: faults})
	if err != nil {
		return err
	}
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	listener, err := replay.Listen(address)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(serving, listener) }()
	defer func() { stop(); <-ended }()
	return rounds(ctx, address, folder, options, rivals)
}

// ratesTable shows how the cost grows with the rate, and memory.
func ratesTable(ctx context.Context, recording namedEvents, options PipelineOptions) (PipelineTable, error) {
	options.settled = true
	var all []*rivalProcess
	for _, rate := range []int{1000, 5000, 10_000, 20_000, 50_000} {
		goal := ""
		if rate == 50_000 {
			goal = "under 32 MB beside the queue; GC under 1 %"
		}
		rivals := []*rivalProcess{
			{name: fmt.Sprintf("export, json, %d/s", rate), goal: goal, args: exportArgs("json", options.Exports), env: []string{"GODEBUG=gctrace=1"}},
			{name: fmt.Sprintf("export, frame, %d/s", rate), goal: goal, args: exportArgs("frame", options.Exports), env: []string{"GODEBUG=gctrace=1"}},
		}
		if err := watch(ctx, recording.events, rate, options, rivals); err != nil {
			return PipelineTable{}, err
		}
		all = append(all, rivals...)
	}
	return tableOf("at a rate, "+recording.name, all), nil
}

// gcShare is the share of the garbage collector in the processor time of a process
// that was started with GODEBUG=gctrace=1: it writes
// "gc N @Ts P%: ..., a+b/c/d+e ms cpu, ..." for each cycle, T in seconds from its
// start; see the documentation of package runtime. ok is false if it wrote none.
func gcShare(log string, u processUsage) (share float64, ok bool) {
	var spent float64 // milliseconds
	for line := range strings.Lines(log) {
		var cycle int
		var at, percent float64
		if n, _ := fmt.Sscanf(line, "gc %d @%fs %f%%:", &cycle, &at, &percent); n < 3 {
			continue
		}
		ok = true
		if when := time.Duration(at * float64(time.Second)); when < u.from || when > u.from+u.window {
			continue
		}
		for _, field := range strings.Split(line, ", ") {
			text, found := strings.CutSuffix(field, " ms cpu")
			if !found {
				continue
			}
			for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == '+' || r == '/' }) {
				var ms float64
				if _, err := fmt.Sscan(part, &ms); err == nil {
					spent += ms
				}
			}
		}
	}
	return spent / 1000 / max(u.cpu.Seconds(), 1e-9), ok
}

// tailTable sets export beside Telegraf that tails the file which Tetragon writes.
func tailTable(ctx context.Context, recording namedEvents, options PipelineOptions) (PipelineTable, error) {
	title := "beside the file, " + recording.name
	const rate = 10_000
	rivals := []*rivalProcess{
		{name: "export, json", args: exportArgs("json", options.Exports), goal: "cheaper than the tailing"},
		{name: "export, frame", args: exportArgs("frame", options.Exports), goal: "cheaper than the tailing"},
	}
	if err := watch(ctx, recording.events, rate, options, rivals); err != nil {
		return PipelineTable{}, err
	}
	table := tableOf("", rivals)
	file, err := fileRow(recording.events)
	if err != nil {
		return PipelineTable{}, err
	}
	table.Rows = append(table.Rows, file)
	program := filepath.Join(options.Peers, "telegraf/telegraf")
	if _, err := os.Stat(program); options.Peers == "" || err != nil {
		table.Title = title + "; Telegraf is not here: skipped, --peers names its folder"
		return table, nil
	}
	lines, err := linesOf(recording.events)
	if err != nil {
		return PipelineTable{}, err
	}
	tail := rivalProcess{name: "telegraf, inputs.tail to socket_writer"}
	for range options.Rounds {
		used, err := tailOnce(ctx, program, lines, rate, options.Window)
		if err != nil {
			return PipelineTable{}, err
		}
		tail.uses = append(tail.uses, used)
	}
	table.Title = title
	table.Rows = append(table.Rows, tail.row())
	for i := range rivals {
		table.Rows[i].Base, table.Rows[i].BaseByThis = tail.name, tail.row().CPUNS/table.Rows[i].CPUNS
	}
	return table, nil
}

// linesOf returns the events as Tetragon's file has them.
func linesOf(events [][]byte) (lines [][]byte, err error) {
	t, err := newTranscoder()
	if err != nil {
		return nil, err
	}
	for _, wire := range events {
		line, _, err := t.Append(nil, wire)
		if err != nil {
			return nil, err
		}
		if len(line) < datagram.MaxPayload {
			lines = append(lines, append(line, '\n'))
		}
	}
	return lines, nil
}

// fileRow measures what writing the file costs Tetragon: protojson and a write for
// each event.
func fileRow(events [][]byte) (PipelineRow, error) {
	file, err := os.CreateTemp("", "tetracast-bench-")
	if err != nil {
		return PipelineRow{}, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = file.Close(); _ = os.Remove(file.Name()) }()
	parsed := make([]*tetragon.GetEventsResponse, 0, 2000)
	for _, wire := range events[:min(len(events), cap(parsed))] {
		event := new(tetragon.GetEventsResponse)
		if err := proto.Unmarshal(wire, event); err != nil {
			return PipelineRow{}, err
		}
		parsed = append(parsed, event)
	}
	cpu, err := threadTime(func() error {
		for _, event := range parsed {
			text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(event)
			if err != nil {
				return err
			}
			if _, err := file.Write(append(text, '\n')); err != nil {
				return err
			}
		}
		return nil
	})
	return PipelineRow{Name: "Tetragon's own part: protojson and a write to the file", CPUNS: float64(cpu.Nanoseconds()) / float64(len(parsed))}, err
}

const telegrafConfig = `
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 1000
  metric_buffer_limit = 1000000
  omit_hostname = true
[[inputs.tail]]
  files = [%q]
  initial_read_offset = "beginning"
  max_undelivered_lines = 100000
  data_format = "value"
  data_type = "string"
[[outputs.socket_writer]]
  address = "udp://%s"
  data_format = "json"
`

// tailOnce appends lines to a file at a rate while Telegraf tails it, and returns
// what Telegraf used.
func tailOnce(ctx context.Context, program string, lines [][]byte, rate int, window time.Duration) (u processUsage, err error) {
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return u, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	sink, err := newDrainedSink()
	if err != nil {
		return u, err
	}
	defer sink.close()
	log, config := filepath.Join(folder, "tetragon.log"), filepath.Join(folder, "telegraf.conf")
	file, err := os.Create(log)
	if err != nil {
		return u, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = file.Close() }()
	if err := os.WriteFile(config, fmt.Appendf(nil, telegrafConfig, log, sink.address()), 0o600); err != nil {
		return u, fmt.Errorf("bench: %w", err)
	}
	telegraf, err := startChild(ctx, nil, program, "--config", config, "--quiet")
	if err != nil {
		return u, err
	}
	defer telegraf.stop()
	if err := sleep(ctx, 2*time.Second); err != nil {
		return u, err
	}
	pid := telegraf.cmd.Process.Pid
	before, err := cpuTimeOf(pid)
	if err != nil {
		return u, err
	}
	const ticks = 100
	begin, next, written := time.Now(), 0, uint64(0)
	out := bufio.NewWriterSize(file, 1<<20)
	for time.Since(begin) < window {
		for range rate / ticks {
			_, _ = out.Write(lines[next%len(lines)]) // Flush returns its error
			next++
			written++
		}
		if err := out.Flush(); err != nil {
			return u, fmt.Errorf("bench: %w", err)
		}
		if err := sleep(ctx, time.Second/ticks); err != nil {
			return u, err
		}
	}
	// Until it has sent them all: its use grows no more.
	after := before
	for {
		if err := sleep(ctx, 1500*time.Millisecond); err != nil {
			return u, err
		}
		now, err := cpuTimeOf(pid)
		if err != nil {
			return u, err
		}
		if now-after < 30*time.Millisecond {
			return processUsage{events: written, cpu: after - before, window: time.Since(begin), rssBytes: rssOf(pid)}, nil
		}
		after = now
	}
}
