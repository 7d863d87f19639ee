package metadata

import (
	"fmt"
	"os"
	"sync"
	"syscall"
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
	// Started is when the process began: with the host's name it names one start of an
	// agent, whatever it says of itself and to whom. Zero: not stated.
	Started time.Time
	// Labels are the user's, and facts that Sources.More read. Nobody changes the
	// map once it is here.
	Labels map[string]string
}

// Sources says where the facts about this host and process come from. A nil
// field reads the real thing.
type Sources struct {
	Hostname func() (string, error)
	Kernel   func() (string, error)
	PID      func() int
	// More are facts beyond those. They become labels.
	More []Fact
}

// Fact is something more that an agent_init can state.
type Fact struct {
	Name string // as of a label
	// Read returns it. An error, and an empty fact, leave the label out. Other
	// sources are read at the same time.
	Read func() (string, error)
}

// Read asks each source once, all side by side: the slowest sets the time. A
// source that fails leaves its fact unknown: an agent that cannot read its name
// still says that it exists.
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
	f := Facts{PID: s.PID(), Started: processStart}
	more := make([]string, len(s.More))
	var reading sync.WaitGroup
	ask := func(to *string, read func() (string, error)) {
		reading.Go(func() {
			if fact, err := read(); err == nil {
				*to = fact
			}
		})
	}
	ask(&f.Hostname, s.Hostname)
	ask(&f.KernelVersion, s.Kernel)
	for i, fact := range s.More {
		ask(&more[i], fact.Read)
	}
	reading.Wait()
	for i, fact := range s.More {
		if more[i] == "" {
			continue
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[fact.Name] = tidy(more[i])
	}
	return f
}

// processStart is when this process began, but for what the runtime did before.
var processStart = time.Now()

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

// readKernel returns what uname -r prints. It asks the kernel, not /proc, of which
// systemd's ProcSubset=pid leaves nothing but the processes.
func readKernel() (string, error) {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		return "", fmt.Errorf("metadata: uname: %w", err)
	}
	var release []byte
	for _, c := range name.Release { // of int8 or uint8, by the architecture
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	return string(release), nil
}
