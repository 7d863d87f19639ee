package bench

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counting knows by what the machine counts cycles and instructions.
type counting struct {
	hardware bool    // by its own counters
	tracer   *tracer // of system calls; nil: there is none
}

// newCounting tries what this machine has, and tells the report.
func newCounting(report *MetadataReport) *counting {
	c := new(counting)
	var traceErr error
	if c.tracer, traceErr = newTracer(); traceErr == nil {
		report.CallsBy = "the kernel's tracepoints (perf events)"
	} else {
		c.tracer = nil
		report.CallsBy = fmt.Sprintf("nothing (%v)", traceErr)
	}
	cycles, err := openPerf(unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES, 0)
	if err == nil {
		var instructions *perfCounter
		if instructions, err = openPerf(unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_INSTRUCTIONS, unix.PerfBitExcludeKernel); err == nil {
			_, _ = instructions.end()
		}
		_, _ = cycles.end()
	}
	if err == nil {
		c.hardware = true
		report.CyclesBy = "the processor's counter (perf events), user and kernel"
		report.InstructionsBy = "the processor's counter (perf events), user space"
		return c
	}
	report.CyclesBy = fmt.Sprintf("the time-stamp counter, for the processor's share of the time (no perf events: %v)", err)
	if tsc() == 0 {
		report.CyclesBy = fmt.Sprintf("nothing: no perf events (%v), no time-stamp counter", err)
	}
	report.InstructionsBy = "nothing: no perf events; --valgrind counts them"
	return c
}

// counters are the counters of one round.
type counters struct {
	cycles, instructions *perfCounter // nil: the time-stamp counter
	tsc                  uint64
}

func (c *counting) begin() (counters, error) {
	if !c.hardware {
		return counters{tsc: tsc()}, nil
	}
	cycles, err := openPerf(unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES, 0)
	if err != nil {
		return counters{}, err
	}
	instructions, err := openPerf(unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_INSTRUCTIONS, unix.PerfBitExcludeKernel)
	if err != nil {
		_, _ = cycles.end()
	}
	return counters{cycles: cycles, instructions: instructions}, err
}

func (c counters) end() (cycles, instructions float64, err error) {
	if c.cycles == nil {
		return float64(tsc() - c.tsc), 0, nil
	}
	if cycles, err = c.cycles.end(); err != nil {
		return 0, 0, err
	}
	instructions, err = c.instructions.end()
	return cycles, instructions, err
}

// perfCounter counts an event in all threads that the process has, and in those
// that they start; perf_event_open(2).
type perfCounter struct{ fds []int }

func openPerf(kind uint32, config uint64, bits uint64) (*perfCounter, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, fmt.Errorf("bench: listing the threads: %w", err)
	}
	c := new(perfCounter)
	attr := unix.PerfEventAttr{Type: kind, Config: config, Bits: bits | unix.PerfBitInherit}
	attr.Size = uint32(unsafe.Sizeof(attr))
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err == unix.ESRCH {
			continue // the thread has ended
		}
		if err != nil {
			_, _ = c.end()
			return nil, fmt.Errorf("bench: perf_event_open: %w", err)
		}
		c.fds = append(c.fds, fd)
	}
	return c, nil
}

// enable lets a counter that was opened with PerfBitDisabled count, or stops it.
func (c *perfCounter) enable(on bool) {
	request := unix.PERF_EVENT_IOC_DISABLE
	if on {
		request = unix.PERF_EVENT_IOC_ENABLE
	}
	for _, fd := range c.fds {
		_ = unix.IoctlSetInt(fd, uint(request), 0) // of a counter that is there it does not fail
	}
}

// end returns the count, and closes the counter.
func (c *perfCounter) end() (count float64, err error) {
	for _, fd := range c.fds {
		var value [8]byte
		if _, readErr := unix.Read(fd, value[:]); readErr != nil && err == nil {
			err = fmt.Errorf("bench: reading a counter: %w", readErr)
		}
		count += float64(binary.NativeEndian.Uint64(value[:]))
		_ = unix.Close(fd)
	}
	c.fds = nil
	return count, err
}
