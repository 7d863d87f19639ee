package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
			slope, err := c.instructions(ctx, valgrind, block.Name, block.Goroutines, row.Key)
			if err != nil {
				return err
			}
			row.Instructions = &slope
		}
	}
	return nil
}

var instructionRefs = regexp.MustCompile(`I\s+refs:\s+([\d,]+)`)

// instructions returns those of one export. What the runtime does beside it only
// ever adds to a count, so the least of some is the nearest.
func (c children) instructions(ctx context.Context, valgrind, block string, goroutines int, key string) (float64, error) {
	least := func(exports int) (float64, error) {
		count := math.Inf(1)
		for range 3 {
			args := append([]string{"--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"}, c.only(block, goroutines, key, exports)...)
			cmd := exec.CommandContext(ctx, valgrind, args...)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
			out, err := cmd.CombinedOutput()
			m := instructionRefs.FindSubmatch(out)
			if err != nil || m == nil {
				return 0, errors.Join(ctx.Err(), fmt.Errorf("bench: valgrind of %s/%s: %w: %.300s", block, key, err, out))
			}
			n, err := strconv.ParseFloat(strings.ReplaceAll(string(m[1]), ",", ""), 64)
			if err != nil {
				return 0, fmt.Errorf("bench: valgrind of %s/%s: %w", block, key, err)
			}
			count = min(count, n)
		}
		return count, nil
	}
	few, err := least(instructionsFew)
	if err != nil {
		return 0, err
	}
	many, err := least(instructionsMany)
	return (many - few) / (instructionsMany - instructionsFew), err
}

// commandOutput returns what a command says, or nothing.
func commandOutput(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).Output()
	return string(out)
}
