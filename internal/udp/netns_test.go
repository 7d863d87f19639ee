package udp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tetracast/internal/udp/netns"
)

// link is a pair of namespaces, with sockets of ours in them.
type link struct {
	*netns.Link
	t *testing.T
}

const senderIP, receiverIP = netns.SenderIP, netns.ReceiverIP

func newLink(t *testing.T, tools ...string) *link {
	t.Helper()
	return &link{netns.New(t, tools...), t}
}

// listen opens a socket in the receiver's namespace, dial one in the sender's.
func (l *link) listen(options ListenOptions) (listener *Listener) {
	l.t.Helper()
	l.In(l.Receiver, func() {
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
	l.In(l.Sender, func() {
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
	for line := range strings.Lines(l.Sh(ns, "cat /proc/net/snmp")) {
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
