// Package netns makes pairs of network namespaces for tests: a sender and a
// receiver joined by a veth pair, all of whose traffic stays between them. Links
// can be made narrow, slow or dead there without touching the host's network. It
// needs root and iproute2; a test without them is skipped loudly.
package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Link is two network namespaces joined by a veth pair. They are gone with the
// test.
//
//	sender 198.18.0.1 (va) ------ (vb) 198.18.0.2 receiver
type Link struct {
	t                testing.TB
	Sender, Receiver string // names of the namespaces
}

var linkNumber atomic.Int32

// The addresses of the two ends, from the block for benchmarks (RFC 2544).
const SenderIP, ReceiverIP = "198.18.0.1", "198.18.0.2"

// New makes the namespaces, and skips the test loudly where it cannot, or where a
// tool is not installed.
func New(t testing.TB, tools ...string) *Link {
	t.Helper()
	if os.Geteuid() != 0 {
		SkipLoudly(t, "network namespaces need root")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			SkipLoudly(t, fmt.Sprintf("%s is not installed", tool))
		}
	}
	n := linkNumber.Add(1)
	l := &Link{t: t, Sender: fmt.Sprintf("tcs%d-%d", os.Getpid(), n), Receiver: fmt.Sprintf("tcr%d-%d", os.Getpid(), n)}
	for _, ns := range []string{l.Sender, l.Receiver} {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			SkipLoudly(t, fmt.Sprintf("ip netns add: %v: %s", err, out))
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", ns).Run() })
	}
	l.Sh(l.Sender, "ip link add va type veth peer name vb netns "+l.Receiver)
	l.Sh(l.Sender, "ip addr add "+SenderIP+"/24 dev va && ip link set va up && ip link set lo up")
	l.Sh(l.Receiver, "ip addr add "+ReceiverIP+"/24 dev vb && ip link set vb up && ip link set lo up")
	return l
}

// SkipLoudly skips a test that this machine cannot run, unless it has to.
func SkipLoudly(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
		t.Fatalf("TETRACAST_REQUIRE_ROOT_TESTS is set, but %s", why)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", why)
}

// Sh runs a shell command in a namespace and returns its output.
func (l *Link) Sh(ns, command string) string {
	l.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "sh", "-c", command).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// In runs f on a thread that is in the namespace. Sockets that f opens stay there.
func (l *Link) In(ns string, f func()) {
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
