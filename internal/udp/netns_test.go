package udp

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// link is two network namespaces joined by a veth pair. All traffic stays
// between them.
//
//	sender 198.18.0.1 (va) ------ (vb) 198.18.0.2 receiver
type link struct {
	t                *testing.T
	sender, receiver string // names of the namespaces
}

var linkNumber atomic.Int32

const senderIP, receiverIP = "198.18.0.1", "198.18.0.2"

// newLink makes the namespaces, and skips the test loudly where it cannot.
func newLink(t *testing.T, tools ...string) *link {
	t.Helper()
	if os.Geteuid() != 0 {
		skipLoudly(t, "network namespaces need root")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			skipLoudly(t, fmt.Sprintf("%s is not installed", tool))
		}
	}
	n := linkNumber.Add(1)
	l := &link{t: t, sender: fmt.Sprintf("tcs%d-%d", os.Getpid(), n), receiver: fmt.Sprintf("tcr%d-%d", os.Getpid(), n)}
	for _, ns := range []string{l.sender, l.receiver} {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			skipLoudly(t, fmt.Sprintf("ip netns add: %v: %s", err, out))
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", ns).Run() })
	}
	l.sh(l.sender, "ip link add va type veth peer name vb netns "+l.receiver)
	l.sh(l.sender, "ip addr add "+senderIP+"/24 dev va && ip link set va up && ip link set lo up")
	l.sh(l.receiver, "ip addr add "+receiverIP+"/24 dev vb && ip link set vb up && ip link set lo up")
	return l
}

// skipLoudly skips a test that this machine cannot run, unless it has to.
func skipLoudly(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
		t.Fatalf("TETRACAST_REQUIRE_ROOT_TESTS is set, but %s", why)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", why)
}

// sh runs a shell command in a namespace.
func (l *link) sh(ns, command string) string {
	l.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "sh", "-c", command).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// in runs f on a thread that is in the namespace. Sockets that f opens stay
// there.
func (l *link) in(ns string, f func()) {
	l.t.Helper()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = own.Close() }()
	other, err := os.Open("/var/run/netns/" + ns)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		l.t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			l.t.Fatal(err) // and the thread, still locked, ends with the goroutine
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// listen opens a socket in the receiver's namespace, dial one in the sender's.
func (l *link) listen(options ListenOptions) (listener *Listener) {
	l.t.Helper()
	l.in(l.receiver, func() {
		var err error
		if listener, err = Listen(receiverIP+":7514", options); err != nil {
			l.t.Fatal(err)
		}
	})
	l.t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func (l *link) dial(options Options) (conn *Conn) {
	l.t.Helper()
	l.in(l.sender, func() {
		var err error
		if conn, err = Dial(netip.MustParseAddrPort(receiverIP+":7514"), options); err != nil {
			l.t.Fatal(err)
		}
	})
	l.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// drain reads what there is and counts it.
func drain(t testing.TB, l *Listener) (n int) {
	t.Helper()
	for {
		_ = l.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		batch, err := l.Receive()
		if err != nil {
			return n
		}
		n += len(batch)
	}
}

// snmp returns a counter of a namespace's UDP.
func (l *link) snmp(ns, name string) (value int) {
	l.t.Helper()
	var names, values []string
	for line := range strings.Lines(l.sh(ns, "cat /proc/net/snmp")) {
		if fields := strings.Fields(line); fields[0] == "Udp:" {
			names, values = values, fields
		}
	}
	for i, n := range names {
		if n == name {
			_, _ = fmt.Sscan(values[i], &value)
		}
	}
	return value
}

func mustDial(t testing.TB, address string, options Options) *Conn {
	t.Helper()
	c, err := Dial(netip.MustParseAddrPort(address), options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
