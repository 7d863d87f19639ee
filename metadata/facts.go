package metadata

import (
	"os"
	"strings"
	"sync"
	"time"
)

// Facts is what an agent_init states. The zero value of each field is unknown,
// except as said.
type Facts struct {
	Time            time.Time // when the record is made; zero: the time of making
	TetragonVersion string
	BuildCommit     string // empty: left out
	BuildDate       string // empty: left out
	Hostname        string
	KernelVersion   string
	PID             int
	UDPDestination  string // host:port
	UDPBufferSize   int    // bytes
}

// Sources says where the facts about this host and process come from. A nil
// field reads the real thing.
type Sources struct {
	Hostname func() (string, error)
	Kernel   func() (string, error)
	PID      func() int
}

// Read asks each source once. A source that fails leaves its fact unknown: an
// agent that cannot read its name still says that it exists.
func (s Sources) Read() Facts {
	if s.Hostname == nil {
		s.Hostname = readHostname
	}
	if s.Kernel == nil {
		s.Kernel = readKernel
	}
	if s.PID == nil {
		s.PID = os.Getpid
	}
	var f Facts
	f.PID = s.PID()
	if name, err := s.Hostname(); err == nil {
		f.Hostname = name
	}
	if release, err := s.Kernel(); err == nil {
		f.KernelVersion = release
	}
	return f
}

// HostFacts returns what this host and process say of themselves. Hostname and
// kernel are read at the first call and kept for the life of the process.
func HostFacts() Facts { return hostFacts() }

var hostFacts = sync.OnceValue(Sources{}.Read)

// readHostname prefers NODE_NAME, which Kubernetes' downward API sets to the
// name under which the events name the node; a pod's own host name is the
// pod's.
func readHostname() (string, error) {
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name, nil
	}
	return os.Hostname()
}

// readKernel returns what uname -r prints; see proc_sys_kernel(5).
func readKernel() (string, error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(release)), err
}
