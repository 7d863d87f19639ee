package bench

import (
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where figures come from.
type Machine struct {
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Arch       string `json:"arch"`
	Date       string `json:"date"` // UTC
	Load       string `json:"load"` // of the minute before: how many threads wanted a processor
}

// thisMachine reads what this host is.
func thisMachine() Machine {
	m := Machine{CPU: "unknown", Processors: runtime.NumCPU(), Go: runtime.Version(), Arch: runtime.GOARCH, Date: time.Now().UTC().Format(time.DateOnly)}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load, _, _ = strings.Cut(string(load), " ")
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
