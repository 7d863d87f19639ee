package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// children runs a tetracast under the tools that count.
type children struct{ program string }

// A child's start-up costs more than its exports. So each count is taken twice,
// and what the exports between the two cost is their difference.
const (
	callsFew, callsMany               = 200, 2200
	instructionsFew, instructionsMany = 1000, 6000
)

// only is the command that runs one row so many times.
func (c children) only(block string, goroutines int, key string, exports int) []string {
	return []string{c.program, "bench", "metadata", "--only", block + "/" + key, "--goroutines", strconv.Itoa(goroutines), "--exports", strconv.Itoa(exports)}
}

// countCalls counts the system calls of each row by name, or says why not.
func (c children) countCalls(ctx context.Context, report *MetadataReport) error {
	if c.program == "" {
		report.CallsBy += "; no program to run as a child"
		return nil
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		report.CallsBy += "; strace is not installed"
		return nil
	}
	version, _, _ := strings.Cut(commandOutput(ctx, strace, "--version"), "\n")
	why := report.CallsBy
	report.CallsBy = "strace -f -c, " + version
	for b := range report.Blocks {
		block := &report.Blocks[b]
		for i := range block.Rows {
			row := &block.Rows[i]
			row.Calls, err = c.calls(ctx, strace, block.Name, block.Goroutines, row.Key)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, errTraceRefused) {
				report.CallsBy = why + "; " + err.Error()
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// errTraceRefused: no process may be traced here, as in many containers.
var errTraceRefused = errors.New("tracing a process is not permitted")

// calls returns the system calls of one export.
func (c children) calls(ctx context.Context, strace, block string, goroutines int, key string) (map[string]float64, error) {
	count := func(exports int) (map[string]int, error) {
		folder, err := os.MkdirTemp("", "tetracast-bench-")
		if err != nil {
			return nil, fmt.Errorf("bench: making a folder for the counts: %w", err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		path := filepath.Join(folder, "calls")
		out, err := exec.CommandContext(ctx, strace, append([]string{"-f", "-c", "-o", path}, c.only(block, goroutines, key, exports)...)...).CombinedOutput()
		if err != nil && strings.Contains(string(out), "ot permitted") {
			return nil, errTraceRefused
		}
		if err != nil {
			return nil, fmt.Errorf("bench: strace of %s/%s: %w: %.300s", block, key, err, out)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("bench: the counts of strace: %w", err)
		}
		return parseCalls(string(text))
	}
	few, err := count(callsFew)
	if err != nil {
		return nil, err
	}
	many, err := count(callsMany)
	if err != nil {
		return nil, err
	}
	calls := map[string]float64{}
	for name, n := range many {
		if more := n - few[name]; more > 0 {
			calls[name] = float64(more) / (callsMany - callsFew)
		}
	}
	return calls, nil
}

// parseCalls reads the table of strace -c:
//
//	% time     seconds  usecs/call     calls    errors syscall
//	 52.94    0.000054          54         1           execve
func parseCalls(text string) (map[string]int, error) {
	calls := map[string]int{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[len(fields)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(fields[3]); err == nil {
			calls[fields[len(fields)-1]] += n
		}
	}
	if len(calls) == 0 {
		return nil, fmt.Errorf("bench: strace counted nothing: %.300q", text)
	}
	return calls, nil
}

// countInstructions counts the instructions of each row in user space, with one
// processor, or says why not.
func (c children) countInstructions(ctx context.Context, report *MetadataReport) error {
	valgrind, err := exec.LookPath("valgrind")
	if err != nil || c.program == "" {
		report.InstructionsBy = "not counted: valgrind is not installed, or there is no program to run as a child"
		return nil
	}
	report.InstructionsBy = "valgrind, user space, with one processor: " + strings.TrimSpace(commandOutput(ctx, valgrind, "--version"))
	for b := range report.Blocks {
		block := &report.Blocks[b]
		for i := range block.Rows {
			row := &block.Rows[i]
			n, err := c.instructions(ctx, valgrind, block.Name, block.Goroutines, row.Key)
			if err != nil {
				return err
			}
			row.Instructions = &n.all
			if n.own < n.all { // else the program has no names of functions, as one of go run
				row.OwnInstructions = &n.own
			}
		}
	}
	return nil
}

// instructionCount is what valgrind counted in a process.
type instructionCount struct {
	all float64
	// own leaves out Go's runtime, whose threads wake and look for work the more
	// often, the slower the machine is just then.
	own float64
}

// instructions returns those of one export. What the runtime does beside it only
// ever adds to a count, so the least of some is the nearest.
func (c children) instructions(ctx context.Context, valgrind, block string, goroutines int, key string) (one instructionCount, err error) {
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return one, fmt.Errorf("bench: making a folder for the counts: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "counts")
	least := func(exports int) (instructionCount, error) {
		least := instructionCount{math.Inf(1), math.Inf(1)}
		for range 2 {
			args := append([]string{"--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=" + path}, c.only(block, goroutines, key, exports)...)
			cmd := exec.CommandContext(ctx, valgrind, args...)
			// Valgrind 3.19 does not know RDTSCP, which the runtime's locks use when threads meet.
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1,cpu.rdtscp=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				return least, errors.Join(ctx.Err(), fmt.Errorf("bench: valgrind of %s/%s: %w: %s", block, key, err, out[max(0, len(out)-1000):]))
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return least, fmt.Errorf("bench: the counts of valgrind: %w", err)
			}
			n, err := parseInstructions(string(text))
			if err != nil {
				return least, err
			}
			least.all, least.own = min(least.all, n.all), min(least.own, n.own)
		}
		return least, nil
	}
	few, err := least(instructionsFew)
	if err != nil {
		return one, err
	}
	many, err := least(instructionsMany)
	const exports = instructionsMany - instructionsFew
	return instructionCount{(many.all - few.all) / exports, (many.own - few.own) / exports}, err
}

// parseInstructions reads a file of cachegrind without its simulations: below
// the name of each function its lines with their counts.
func parseInstructions(text string) (n instructionCount, err error) {
	own := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "fn="); ok {
			own = !strings.HasPrefix(name, "runtime.") && !strings.HasPrefix(name, "internal/runtime/")
			continue
		}
		at, count, ok := strings.Cut(line, " ")
		if _, err := strconv.Atoi(at); err != nil || !ok {
			continue
		}
		ir, err := strconv.ParseFloat(count, 64)
		if err != nil {
			return n, fmt.Errorf("bench: a count of valgrind: %q", line)
		}
		n.all += ir
		if own {
			n.own += ir
		}
	}
	if n.all == 0 {
		return n, fmt.Errorf("bench: valgrind counted nothing: %.300q", text)
	}
	return n, nil
}

// commandOutput returns what a command says, or nothing.
func commandOutput(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).Output()
	return string(out)
}
