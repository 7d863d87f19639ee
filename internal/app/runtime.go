package app

import (
	"debug/elf"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// exportProcs is how many processors export runs Go code on at once: its reader and
// its worker. More would only look for work to steal, which costs at each wake-up.
const exportProcs = 2

// memoryShare is the part of the container's memory up to which the garbage
// collector may let the heap grow; the rest is for what is not heap.
const memoryShare = 0.9

// exportMemory is what export needs beside its queue, generously: it took 30 MB at
// 50,000 events a second.
const exportMemory = 64 << 20

// collectMemory is up to what collect lets its heap grow beside its queue. Whatever
// comes, it takes no more than 256 MiB (docs/limits.md), of which not all is heap.
const collectMemory = 192 << 20

// startupTime is after what a start needs has become garbage.
const startupTime = 5 * time.Second

// tuneRuntime gives the Go runtime what the machine and the container give the
// process, and says so in the log. GOMAXPROCS, GOGC and GOMEMLIMIT in the
// environment win. procs bounds the processors and memory the bytes, of which a
// queue that is full would otherwise take twice, once as garbage; 0: no bound.
func tuneRuntime(procs int, memory int64, log *slog.Logger) {
	time.AfterFunc(startupTime, func() {
		debug.FreeOSMemory() // 4 MB that a start needs and nobody after it
		if err := forgetProgramPages(); err != nil {
			log.Debug("Pages of the program stay in memory", "cause", err)
		}
	})
	// Since Go 1.25 GOMAXPROCS starts as what the control group's CPU limit allows.
	if os.Getenv("GOMAXPROCS") == "" && procs > 0 && runtime.GOMAXPROCS(0) > procs {
		runtime.GOMAXPROCS(procs)
	}
	limit, from := debug.SetMemoryLimit(-1), "GOMEMLIMIT"
	if os.Getenv("GOMEMLIMIT") == "" {
		from = "no limit"
		if memory > 0 {
			limit, from = memory, "what the queue may take, and as much as the rest needs"
		}
		if given, file := memoryLimit("/proc/self/cgroup", "/sys/fs/cgroup"); given > 0 && int64(float64(given)*memoryShare) < limit {
			limit, from = int64(float64(given)*memoryShare), file
		}
		debug.SetMemoryLimit(limit)
	}
	attrs := []any{"gomaxprocs", runtime.GOMAXPROCS(0), "gogc", gogc(), "memory_limit_from", from}
	if limit != math.MaxInt64 {
		attrs = append(attrs, "memory_limit_bytes", limit)
	}
	log.Info("Go runtime", attrs...)
}

// forgetProgramPages unmaps what was read of the program file: most of it is
// initialisation that does not run again. What does run comes back from the page
// cache, a fault a page. Of 17 MB that a start had mapped 9 came back at 50,000 events
// a second, and 5 at rest. Only mappings that cannot be written are touched, of which memory and
// file are the same; see MADV_DONTNEED in madvise(2). Not so in a program that was
// relocated when it was loaded (-buildmode=pie), which is left alone.
func forgetProgramPages() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("app: finding the program: %w", err)
	}
	file, err := elf.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("app: reading the program: %w", err)
	}
	_ = file.Close()
	if file.Type != elf.ET_EXEC {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("app: reading the mappings: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line) // proc_pid_maps(5): range, permissions, offset, device, inode, path
		if len(f) != 6 || f[5] != program || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); err != nil {
			return fmt.Errorf("app: mapping %q: %w", f[0], err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("app: mapping %q: %w", f[0], errno)
		}
	}
	return nil
}

// gogc is the growth of the heap, in percent, at which the collector runs.
func gogc() string {
	if text := os.Getenv("GOGC"); text != "" {
		return text
	}
	return "100"
}

// memoryLimit returns the least memory limit of the process's control group and
// those above it, and the file that has it; 0: there is none. Both versions; see
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux. In a
// container the folder of the group itself may not be there, only its root.
func memoryLimit(self, root string) (bytes uint64, file string) {
	text, err := os.ReadFile(self)
	if err != nil {
		return 0, ""
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // id, controllers, path; see cgroups(7)
		if len(f) < 3 {
			continue
		}
		var folder, name string
		switch {
		case f[0] == "0" && f[1] == "":
			folder, name = root, "memory.max"
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			folder, name = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for group := filepath.Clean("/" + f[2]); ; group = filepath.Dir(group) {
			path := filepath.Join(folder, group, name)
			if n, err := readLimit(path); err == nil && n < noLimit && (bytes == 0 || n < bytes) {
				bytes, file = n, path
			}
			if group == "/" {
				break
			}
		}
	}
	return bytes, file
}

// noLimit is less than what version 1 writes where nothing is limited, and more than
// any machine has, in bytes.
const noLimit = 1 << 62

func readLimit(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("app: %s: no limit: %w", path, err) // "max"
	}
	return n, nil
}
