package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a round of exports used.
type usage struct {
	wall, cpu      time.Duration
	bytes, mallocs uint64
	collections    uint64
	switches       uint64
	datagrams      uint64
	cycles         float64
	instructions   float64
}

// measureBlock measures the rows of a block in turn.
func measureBlock(ctx context.Context, block string, goroutines int, options MetadataOptions, count *counting) (b MetadataBlock, err error) {
	b = MetadataBlock{Name: block, Goroutines: goroutines}
	rig, err := newMetadataRig(ctx)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, rig.close()) }()
	ways := waysOf(block)
	rounds := make([][]usage, len(ways))
	for i := range options.Rounds + 1 {
		for w, way := range ways {
			if ctx.Err() != nil {
				return b, ctx.Err()
			}
			u, err := measureRound(rig, block, way, options.Exports, goroutines, count)
			if err != nil {
				return b, fmt.Errorf("bench: %s/%s: %w", block, way.key, err)
			}
			if i > 0 { // the first one warms up
				rounds[w] = append(rounds[w], u)
			}
		}
	}
	for w, way := range ways {
		row := rowOf(way, rounds[w], options.Exports, count)
		if count.tracer != nil { // which costs time, so it has a round of its own
			if row.Calls, err = count.tracer.count(spread(rig.step(block, way, goroutines > 1), options.Exports, goroutines)); err != nil {
				return b, fmt.Errorf("bench: %s/%s: %w", block, way.key, err)
			}
			for name := range row.Calls {
				row.Calls[name] /= float64(options.Exports)
			}
		}
		b.Rows = append(b.Rows, row)
	}
	return b, nil
}

// measureRound exports n times, all goroutines together.
func measureRound(rig *metadataRig, block string, way metadataWay, n, goroutines int, count *counting) (u usage, err error) {
	step := rig.step(block, way, goroutines > 1)
	runtime.GC() // of what the row before left
	var before, after runtime.MemStats
	datagrams := rig.datagrams(way.key)
	run := spread(step, n, goroutines)
	counters, err := count.begin()
	if err != nil {
		return u, err
	}
	runtime.ReadMemStats(&before)
	switches, cpu := contextSwitches(), processClock()
	begin := time.Now()
	err = run()
	u.wall = time.Since(begin)
	u.cpu, u.switches = processClock()-cpu, contextSwitches()-switches
	runtime.ReadMemStats(&after)
	cycles, instructions, counted := counters.end()
	u.cycles, u.instructions = cycles, instructions
	if !count.hardware { // the ticks of the time on the wall, for the processor's share of it
		u.cycles *= float64(u.cpu) / float64(u.wall)
	}
	u.bytes, u.mallocs = after.TotalAlloc-before.TotalAlloc, after.Mallocs-before.Mallocs
	u.collections = uint64(after.NumGC - before.NumGC)
	u.datagrams = rig.datagrams(way.key) - datagrams
	if block == export && way.key == bareSend && goroutines == 1 {
		u.datagrams = uint64(n) // it counts nothing: each call that succeeds is one
	}
	return u, errors.Join(err, counted)
}

// spread returns a function that calls step n times, from that many goroutines,
// which are there already, and returns when all have ended.
func spread(step func() error, n, goroutines int) func() error {
	if goroutines == 1 {
		return func() error { return repeat(step, n) }
	}
	var ready, done sync.WaitGroup
	var failed atomic.Pointer[error]
	start := make(chan struct{})
	for i := range goroutines {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			if err := repeat(step, n*(i+1)/goroutines-n*i/goroutines); err != nil {
				failed.Store(&err)
			}
		})
	}
	ready.Wait()
	return func() error {
		close(start)
		done.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
		return nil
	}
}

func repeat(step func() error, n int) error {
	for range n {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// rowOf sums up the rounds of a row.
func rowOf(way metadataWay, rounds []usage, perRound int, count *counting) MetadataRow {
	row := MetadataRow{Key: way.key, Name: way.name}
	exports := float64(perRound * len(rounds))
	each := func(of func(u usage) float64) (values []float64) {
		for _, u := range rounds {
			values = append(values, of(u)/float64(perRound))
		}
		return values
	}
	wall := each(func(u usage) float64 { return float64(u.wall) })
	row.MedianNS, row.SpreadNS = quantile(wall, 0.5), quantile(wall, 0.75)-quantile(wall, 0.25)
	row.CPUNS = quantile(each(func(u usage) float64 { return float64(u.cpu) }), 0.5)
	row.Bytes = quantile(each(func(u usage) float64 { return float64(u.bytes) }), 0.5)
	row.Allocs = quantile(each(func(u usage) float64 { return float64(u.mallocs) }), 0.5)
	var datagrams uint64
	for _, u := range rounds {
		row.Collections += u.collections
		row.Switches += u.switches
		datagrams += u.datagrams
	}
	row.GCPerMillion = float64(row.Collections) / exports * 1e6
	row.SwitchesPerMillion = float64(row.Switches) / exports * 1e6
	row.Datagrams = float64(datagrams) / exports
	if cycles := quantile(each(func(u usage) float64 { return u.cycles }), 0.5); cycles > 0 {
		row.Cycles = &cycles
	}
	if instructions := quantile(each(func(u usage) float64 { return u.instructions }), 0.5); count.hardware {
		row.Instructions = &instructions
	}
	return row
}

func processClock() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now) // which every Linux has
	return time.Duration(now.Nano())
}

// contextSwitches returns those of all threads, wanted and not; getrusage(2).
func contextSwitches() uint64 {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return uint64(r.Nvcsw + r.Nivcsw)
}

// metadataOnly runs one row, and writes what the exporter counted.
func metadataOnly(ctx context.Context, w io.Writer, options MetadataOptions) (err error) {
	block, way, err := findWay(options.Only)
	if err != nil {
		return err
	}
	if options.HeapProfile != "" {
		runtime.MemProfileRate = 0 // the rig is no part of it
	}
	rig, err := newMetadataRig(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.close()) }()
	step := rig.step(block, way, options.Goroutines > 1)
	if err := step(); err != nil {
		return err
	}
	sent, stats := rig.datagrams(way.key), rig.out.Stats()
	if options.HeapProfile != "" {
		runtime.MemProfileRate = 1 // each allocation
	}
	if err := spread(step, options.Exports, options.Goroutines)(); err != nil {
		return err
	}
	if options.HeapProfile != "" {
		if err := writeHeapProfile(options.HeapProfile); err != nil {
			return err
		}
	}
	counts := struct {
		Row           string `json:"row"`
		Exports       int    `json:"exports"`
		Datagrams     uint64 `json:"datagrams"`
		SendCalls     uint64 `json:"send_calls"`
		RecordsCached any    `json:"record_cache"` // of the whole run
	}{options.Only, options.Exports, rig.datagrams(way.key) - sent, rig.out.Stats().Sockets[0].Calls - stats.Sockets[0].Calls, rig.out.Stats().Metadata[0]}
	return json.NewEncoder(w).Encode(counts)
}

func writeHeapProfile(path string) error {
	runtime.GC() // a profile is as of the last collection
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("bench: the heap profile: %w", err)
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(file, 0), file.Close())
}
