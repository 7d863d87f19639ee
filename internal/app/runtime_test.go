package app

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestForgetProgramPages: the program's pages leave the memory, and come back as they
// are needed.
func TestForgetProgramPages(t *testing.T) {
	resident := func() (kib int) {
		t.Helper()
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); f[0] == "RssFile:" {
				kib, _ = strconv.Atoi(f[1])
			}
		}
		return kib
	}
	before := resident()
	if err := forgetProgramPages(); err != nil {
		t.Fatal(err)
	}
	if after := resident(); before == 0 || after > before/2 {
		t.Errorf("%d KiB of files were in memory, then %d", before, after)
	}
}

// TestMemoryLimit: the least limit on the way from the process's control group to
// the root is the one in force.
func TestMemoryLimit(t *testing.T) {
	root := t.TempDir()
	self := filepath.Join(root, "cgroup")
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := func(want uint64, wantFile string) {
		t.Helper()
		got, file := memoryLimit(self, filepath.Join(root, "fs"))
		if wantFile != "" {
			wantFile = filepath.Join(root, wantFile)
		}
		if got != want || file != wantFile {
			t.Errorf("limit %d from %s, want %d from %s", got, file, want, wantFile)
		}
	}
	f(0, "")
	put("cgroup", "12:pids:/x\n0::/a/b\n")
	f(0, "")
	put("fs/a/b/memory.max", "max\n")
	f(0, "")
	put("fs/a/memory.max", "201326592\n")
	f(201326592, "fs/a/memory.max")
	put("fs/a/b/memory.max", "100\n")
	f(100, "fs/a/b/memory.max")
	put("fs/memory.max", "50\n")
	f(50, "fs/memory.max")
	put("cgroup", "0::/\n")
	f(50, "fs/memory.max")

	// Version 1, and both side by side.
	put("cgroup", "4:memory:/docker/c\n3:cpu,cpuacct:/docker/c\n")
	f(0, "")
	put("fs/memory/memory.limit_in_bytes", "9223372036854771712\n")
	f(0, "")
	put("fs/memory/memory.limit_in_bytes", "4096\n") // as a container sees its own
	f(4096, "fs/memory/memory.limit_in_bytes")
	put("fs/memory/docker/c/memory.limit_in_bytes", "1024\n")
	f(1024, "fs/memory/docker/c/memory.limit_in_bytes")
	put("cgroup", "4:memory:/docker/c\n0::/\n")
	f(50, "fs/memory.max")
}
