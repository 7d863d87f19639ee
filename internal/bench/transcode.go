package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"tetracast/exporter"
	"tetracast/internal/source"
	"tetracast/transcode"
)

// TranscodeOptions says how much bench transcode does.
type TranscodeOptions struct {
	Recording string // file; empty: the large corpus where it is, else the sample
	Rounds    int    // of every row
	JSON      bool
}

// Transcode measures the transcoder beside its rivals and floors, by recording
// and by kind of event, and writes the tables.
func Transcode(ctx context.Context, w io.Writer, options TranscodeOptions) error {
	recordings, err := transcodeRecordings(options.Recording)
	if err != nil {
		return err
	}
	var tables []Table
	for _, r := range recordings {
		table, err := transcodeTable(ctx, r.name, options.Rounds, r.events, true)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	var all [][]byte
	for _, r := range recordings {
		all = append(all, r.events...)
	}
	for _, kind := range kindsOf(all) {
		table, err := transcodeTable(ctx, fmt.Sprintf("%s, %d events", kind.name, len(kind.events)), options.Rounds, kind.events, false)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	handmade, err := handmadeTable(ctx, options.Rounds, all)
	if err != nil {
		return err
	}
	if err := write(w, options.JSON, append(tables, handmade)); err != nil || options.JSON {
		return err
	}
	return writeFirstUse(ctx, w, all)
}

// namedEvents are the events of one table.
type namedEvents struct {
	name   string
	events [][]byte
}

// transcodeRecordings returns the parts of the large corpus, or the one recording
// there is.
func transcodeRecordings(path string) ([]namedEvents, error) {
	if path != "" {
		in, err := source.OpenRecording(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = in.Close() }()
		events, err := allEvents(in)
		return []namedEvents{{path, events}}, err
	}
	recordings, err := loadRecordings()
	if err != nil {
		return nil, err
	}
	all := recordings[0].all
	if len(recordings) == 1 {
		return []namedEvents{{recordings[0].name, all}}, nil
	}
	// The indexes are those that the corpus's page gives.
	const endOfA, endOfB, endOfC = 15_810, 24_642, 25_336
	return []namedEvents{
		{"recording a, default flags", all[:endOfA]}, {"recording b, all metadata", all[endOfA:endOfB]},
		{"recording c, short processes", all[endOfB:endOfC]}, {"recording d, odd names", all[endOfC:]},
	}, nil
}

// kindsOf sorts the events by kind, the most frequent first.
func kindsOf(events [][]byte) (kinds []namedEvents) {
	for _, wire := range events {
		summary, _ := transcode.Scan(wire) // a broken one has no kind
		name := summary.Kind.String()
		i := slices.IndexFunc(kinds, func(k namedEvents) bool { return k.name == name })
		if i < 0 {
			kinds, i = append(kinds, namedEvents{name: name}), len(kinds)
		}
		kinds[i].events = append(kinds[i].events, wire)
	}
	slices.SortStableFunc(kinds, func(a, b namedEvents) int { return len(b.events) - len(a.events) })
	return kinds
}

// pass is a contender that takes each event once.
func pass(events [][]byte, prepare func() (one func(i int, wire []byte) error, err error)) func() (int, time.Duration, error) {
	return func() (int, time.Duration, error) {
		cpu, err := threadTime(func() error {
			one, err := prepare()
			for i := 0; i < len(events) && err == nil; i++ {
				err = one(i, events[i])
			}
			return err
		})
		return len(events), cpu, err
	}
}

// transcodeTable sets the transcoder beside protojson and its floors. Each round
// of a row takes all events once, with a new transcoder, so that a memo is empty
// at the start.
func transcodeTable(ctx context.Context, title string, rounds int, events [][]byte, floors bool) (Table, error) {
	dst := make([]byte, 0, 1<<20)
	program, err := transcode.Compile((*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor())
	if err != nil {
		return Table{}, err
	}
	ours := func(cacheBytes int) func() (func(int, []byte) error, error) {
		return func() (func(int, []byte) error, error) {
			t := program.NewTranscoder(transcode.Options{CacheBytes: cacheBytes})
			return func(_ int, wire []byte) error { _, _, err := t.Append(dst, wire); return err }, nil
		}
	}
	const rival = "protojson"
	contenders := []*contender{
		{name: rival, note: "proto.Unmarshal and protojson.Marshal", round: pass(events, protojsonPass)},
		{name: "memo off", base: rival, round: pass(events, ours(0))},
		{name: "memo on", base: rival, note: "4 MiB, empty at the start", round: pass(events, ours(exporter.DefaultTranscodeCacheBytes))},
	}
	if floors {
		t, err := exporter.NewTranscoder(0)
		if err != nil {
			return Table{}, err
		}
		lines := make([][]byte, len(events))
		for i, wire := range events {
			if lines[i], _, err = t.Append(nil, wire); err != nil {
				return Table{}, fmt.Errorf("bench: event %d: %w", i, err)
			}
		}
		contenders = append(contenders,
			&contender{name: "copy", base: "memo on", note: "floor: the output's bytes", round: pass(events, func() (func(int, []byte) error, error) {
				return func(i int, _ []byte) error { copy(dst[:cap(dst)], lines[i]); return nil }, nil
			})},
			&contender{name: "bare scan", base: "memo off", note: "floor: one look at each byte of the input's strings", round: pass(events, bareScan)},
			&contender{name: "Scan", note: "kind, time, pid and names, without transcoding; goal on recording a: at most 150 ns", round: pass(events, func() (func(int, []byte) error, error) {
				return func(_ int, wire []byte) error { _, err := transcode.Scan(wire); return err }, nil
			})})
	}
	table, err := measure(ctx, title, "event", rounds, contenders)
	if err != nil {
		return Table{}, err
	}
	allocations, err := allocationsOf(events, dst)
	for i := range table.Rows {
		row := &table.Rows[i]
		if row.Name == "memo off" || row.Name == "memo on" {
			row.Note = fmt.Sprintf("1/%.1f of protojson; %s", 1/row.Multiple, row.Note)
		}
		if row.Name == "memo off" {
			row.Note += fmt.Sprintf("%.4f allocations an event once warm", allocations)
		}
	}
	return table, err
}

func protojsonPass() (func(int, []byte) error, error) {
	var event tetragon.GetEventsResponse
	return func(_ int, wire []byte) error {
		if err := proto.Unmarshal(wire, &event); err != nil {
			return err
		}
		_, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&event)
		return err
	}, nil
}

// bareScan looks at each byte of each field that has a length, the innermost
// ones, eight at a time: no transcoder can look at less.
func bareScan() (func(int, []byte) error, error) {
	return func(_ int, wire []byte) error {
		var sum uint64
		for i := 0; i+8 <= len(wire); i += 8 {
			b := wire[i : i+8 : i+8]
			sum |= uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		}
		if sum == 1 {
			return errHandmade // so that the loop is not left out
		}
		return nil
	}, nil
}

// allocationsOf returns the allocations an event once the transcoder is warm.
func allocationsOf(events [][]byte, dst []byte) (float64, error) {
	t, err := exporter.NewTranscoder(0)
	if err != nil {
		return 0, err
	}
	var before, after runtime.MemStats
	for i := range 2 {
		if i == 1 {
			runtime.ReadMemStats(&before)
		}
		for _, wire := range events {
			if _, _, err := t.Append(dst, wire); err != nil {
				return 0, err
			}
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(len(events)), nil
}

// handmadeTable sets the transcoder beside code written by hand for two kinds,
// over those events that it takes.
func handmadeTable(ctx context.Context, rounds int, all [][]byte) (Table, error) {
	dst := make([]byte, 0, 1<<20)
	var rival handEvent
	var events [][]byte
	for _, wire := range all {
		if _, err := rival.append(dst, wire); err == nil {
			events = append(events, wire)
		}
	}
	title := fmt.Sprintf("%d events of process_exec and process_kprobe, beside code written by hand for them", len(events))
	return measure(ctx, title, "event", rounds, []*contender{
		{name: "handmade", note: "its own structs, used again; strings not copied", round: pass(events, func() (func(int, []byte) error, error) {
			return func(_ int, wire []byte) error { _, err := rival.append(dst, wire); return err }, nil
		})},
		{name: "memo off", base: "handmade", note: "goal: faster", round: pass(events, func() (func(int, []byte) error, error) {
			t, err := exporter.NewTranscoder(0)
			return func(_ int, wire []byte) error { _, _, err := t.Append(dst, wire); return err }, err
		})},
	})
}

// writeFirstUse says what a process pays before its first event.
func writeFirstUse(ctx context.Context, w io.Writer, events [][]byte) error {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cpu, err := threadTime(func() error {
		_, err := transcode.Compile((*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor())
		return err
	})
	runtime.ReadMemStats(&after)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "compiling the program, once: %v, %d KB\n", cpu.Round(time.Microsecond), (after.TotalAlloc-before.TotalAlloc)/1000)
	file, err := os.CreateTemp("", "tetracast-bench-*.binpb")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()); _ = file.Close() }()
	if _, err := file.Write(protowire.AppendBytes(nil, events[0])); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	var took []time.Duration
	for range 11 {
		begin := time.Now()
		if err := exec.CommandContext(ctx, self, "decode", "--recording", file.Name()).Run(); err != nil {
			return fmt.Errorf("bench: %s decode: %w", self, err)
		}
		took = append(took, time.Since(begin))
	}
	_, err = fmt.Fprintf(w, "a process from its start to its end with one event decoded: %v; goal: its first event within 30 ms\n",
		quantile(took, 0.5).Round(100*time.Microsecond))
	return err
}
