package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tracer counts the system calls of this process by the kernel's tracepoints,
// which slow it down far less than strace does.
type tracer struct{ events string } // folder

// tracedCalls are those that are counted by name: what an export can be made of,
// and what the runtime does beside it. All others together are otherCalls.
var tracedCalls = append([]string{"uname", "openat", "read", "close", "mmap", "socket", "connect"}, append(sendCalls, runtimeCalls...)...)

const otherCalls = "others"

// newTracer finds the tracepoints, or says why there are none for us.
func newTracer() (*tracer, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("bench: looking for tracefs: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "tracefs" {
			t := &tracer{events: filepath.Join(fields[1], "events")}
			counter, err := t.open("raw_syscalls/sys_enter")
			if err == nil {
				_, err = counter.end()
			}
			return t, err
		}
	}
	return nil, errors.New("bench: tracefs is not mounted")
}

// open returns a counter that does not count yet.
func (t *tracer) open(event string) (*perfCounter, error) {
	text, err := os.ReadFile(filepath.Join(t.events, event, "id"))
	if err != nil {
		return nil, fmt.Errorf("bench: the tracepoint: %w", err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("bench: the tracepoint %s: %w", event, err)
	}
	return openPerf(unix.PERF_TYPE_TRACEPOINT, id, unix.PerfBitDisabled)
}

// count returns the system calls that run makes, by name.
func (t *tracer) count(run func() error) (calls map[string]float64, err error) {
	all, err := t.open("raw_syscalls/sys_enter")
	if err != nil {
		return nil, err
	}
	counters := map[string]*perfCounter{}
	for _, name := range tracedCalls {
		kernel := name
		if name == "uname" {
			kernel = "newuname" // the tracepoint is named for the function
		}
		if counters[name], err = t.open("syscalls/sys_enter_" + kernel); errors.Is(err, os.ErrNotExist) {
			delete(counters, name) // this architecture does not have it
		} else if err != nil {
			break
		}
	}
	if err == nil {
		for _, c := range counters {
			c.enable(true)
		}
		all.enable(true) // last, and off first: to switch the others takes system calls of no traced name
		err = run()
		all.enable(false)
		for _, c := range counters {
			c.enable(false)
		}
	}
	counters[otherCalls] = all
	calls = map[string]float64{}
	for name, c := range counters {
		if c == nil {
			continue
		}
		n, endErr := c.end()
		calls[name], err = n, errors.Join(err, endErr)
	}
	for _, name := range tracedCalls {
		calls[otherCalls] -= calls[name]
	}
	return calls, err
}
