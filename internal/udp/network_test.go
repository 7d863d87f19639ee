package udp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// sendAll sends each datagram, waiting where the class says so, and counts what
// was taken and what was refused by class.
func sendAll(t testing.TB, c *Conn, datagrams [][]byte) (taken int, refused map[error]int) {
	t.Helper()
	refused = map[error]int{}
	for deadline := time.Now().Add(20 * time.Second); len(datagrams) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d datagrams are left after 20 s: %v", len(datagrams), refused)
		}
		sent, err := c.Send(datagrams)
		taken += sent
		datagrams = datagrams[sent:]
		var sendErr *SendError
		if !errors.As(err, &sendErr) {
			continue
		}
		refused[sendErr.Class]++
		if sendErr.Class == ErrWouldBlock || sendErr.Class == ErrNoBuffers {
			time.Sleep(time.Millisecond)
			continue
		}
		datagrams = datagrams[1:]
	}
	return taken, refused
}

// TestDeviceQueueFull (S3, S4): a device queue that overflows is told as
// ErrNoBuffers, and what is sent again arrives: every datagram that was taken
// arrives, and no other is counted as taken. The namespace's own counter tells
// the refusals.
func TestDeviceQueueFull(t *testing.T) {
	l := newLink(t, "tc")
	listener := l.listen(ListenOptions{ReceiveBufferBytes: 16 << 20})
	l.Sh(l.Sender, "tc qdisc add dev va root tbf rate 20mbit burst 5kb limit 6000")
	before := l.snmp(l.Sender, "SndbufErrors")
	c := l.dial(Options{SendBufferBytes: 4 << 20})
	taken, refused := sendAll(t, c, slices.Repeat(sized(1000), 500))
	if taken != 500 || refused[ErrNoBuffers] == 0 {
		t.Errorf("taken %d, refused %v; want 500 and some for want of buffers", taken, refused)
	}
	if n := drain(t, listener); n != 500 {
		t.Errorf("%d of 500 arrived", n)
	}
	observed := l.snmp(l.Sender, "SndbufErrors") - before
	if observed < refused[ErrNoBuffers] {
		t.Errorf("the namespace counted %d, Send told of %d", observed, refused[ErrNoBuffers])
	}
}

// TestNeverFits (S3): a datagram with more IP fragments than the device's queue takes
// is told so after a few tries, each when the queue is empty, so that little leaves for
// nothing; one that fits passes, whatever waited before it.
func TestNeverFits(t *testing.T) {
	l := newLink(t, "tc")
	listener := l.listen(ListenOptions{ReceiveBufferBytes: 16 << 20})
	l.Sh(l.Sender, "tc qdisc add dev va root tbf rate 20mbit burst 5kb limit 6000")
	c := l.dial(Options{})
	fits := slices.Repeat(sized(4000), 40)
	for round := range 3 {
		if taken, refused := sendAll(t, c, fits); taken != len(fits) {
			t.Fatalf("taken %d, refused %v", taken, refused)
		}
		calls := c.Stats().Calls
		for tries := 1; ; tries++ {
			sent, err := c.Send(sized(20000))
			var sendErr *SendError
			if sent != 0 || !errors.As(err, &sendErr) || sendErr.Class != ErrNoBuffers || tries > 1000 {
				t.Fatalf("20,000 bytes into a queue of 6,000: sent %d, %v, at the %dth try", sent, err, tries)
			}
			if sendErr.Never {
				break
			}
			time.Sleep(time.Millisecond)
		}
		want := uint64(maxAlone)
		if round > 0 {
			want = 0 // it is known by now
		}
		if n := c.Stats().Calls - calls; n > want+1 {
			t.Errorf("it was offered %d times, want %d", n, want)
		}
	}
	if n := drain(t, listener); n != 3*len(fits) {
		t.Errorf("%d of %d arrived", n, 3*len(fits))
	}
}

// TestQueueCuts (S3): auto does without GSO while a device, be it the one below a
// bridge, has a queue that cuts messages, at the root or inside of another, and takes
// it where queues leave messages whole. It looks again with another socket, and once a
// minute.
func TestQueueCuts(t *testing.T) {
	l := newLink(t, "tc")
	f := func(queue string, want bool) {
		t.Helper()
		l.Sh(l.Sender, "tc qdisc del dev va root 2>/dev/null; "+queue)
		c := l.dial(Options{})
		if got := c.Stats().GSO; got != want {
			t.Errorf("%s: GSO %v, want %v", queue, got, want)
		}
		l.Sh(l.Sender, "tc qdisc del dev va root 2>/dev/null; true")
		l.In(l.Sender, func() {
			if err := c.Rotate(); err != nil {
				t.Fatal(err)
			}
			if !c.Stats().GSO {
				t.Errorf("%s: no GSO with a new socket when the queue is gone", queue)
			}
			l.Sh(l.Sender, queue)
			if c.MaxPayload(time.Now().Add(2 * gsoLook)); c.Stats().GSO != want {
				t.Errorf("%s, while the socket is open: GSO %v, want %v", queue, c.Stats().GSO, want)
			}
		})
		if !l.dial(Options{GSO: On}).Stats().GSO {
			t.Errorf("%s: no GSO although it was asked for", queue)
		}
	}
	if !l.dial(Options{}).Stats().GSO {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no UDP_SEGMENT that can be trusted")
	}
	const htb = "tc qdisc add dev va root handle 1: htb default 1 && tc class add dev va parent 1: classid 1:1 htb rate 20mbit"
	const tbf = "handle 9: tbf rate 20mbit burst 5kb limit 6000"
	f("true", true)
	f("tc qdisc add dev va root pfifo limit 2", true)
	f(htb+" && tc qdisc add dev va parent 1:1 pfifo limit 2", true)
	f("tc qdisc add dev va root "+tbf, false)
	f("tc qdisc add dev va root "+tbf+" && tc qdisc add dev va parent 9:1 pfifo limit 2", false)
	f(htb+" && tc qdisc add dev va parent 1:1 "+tbf, false)
	l.Sh(l.Sender, "ip link add br0 type bridge && ip link set va master br0 && ip addr flush dev va && ip addr add "+senderIP+"/24 dev br0 && ip link set br0 up")
	f("true", true)
	f("tc qdisc add dev va root "+tbf, false)
}

// TestNobodyAnswersARP (S5): a neighbour that is not there never holds a Send,
// and its error queue is emptied.
func TestNobodyAnswersARP(t *testing.T) {
	l := newLink(t)
	l.Sh(l.Receiver, "ip addr flush dev vb")
	c := l.dial(Options{GSO: Off})
	var slowest time.Duration
	datagram := sized(100)
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		begin := time.Now()
		_, err := c.Send(datagram)
		slowest = max(slowest, time.Since(begin))
		if err != nil && !errors.Is(err, ErrWouldBlock) && !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
	}
	if slowest > 500*time.Millisecond { // a blocking socket takes three seconds
		t.Errorf("a Send took %v", slowest)
	}
	if s := c.Stats(); s.Drained == 0 {
		t.Errorf("nothing was taken from the error queue: %+v", s)
	}
}

// TestPathMTU (S6): with DF set a datagram that no longer fits is refused with
// the path MTU; smaller ones go; without DF it goes in fragments. A shrunk path
// MTU comes back after its time.
func TestPathMTU(t *testing.T) {
	l := newLink(t)
	listener := l.listen(ListenOptions{ReceiveBufferBytes: 4 << 20})
	c := l.dial(Options{DontFragment: true, GSO: On})
	now := time.Now()
	if got := c.MaxPayload(now); got != 1472 {
		t.Errorf("the largest payload is %d, want 1472", got)
	}
	if taken, refused := sendAll(t, c, sized(1472, 1472, 1473, 1472)); taken != 3 || refused[ErrTooLarge] != 1 {
		t.Errorf("taken %d, refused %v", taken, refused)
	}
	l.Sh(l.Sender, "ip link set va mtu 1300")
	_, err := c.Send(sized(1400, 1400))
	var sendErr *SendError
	if !errors.As(err, &sendErr) || sendErr.Class != ErrTooLarge || sendErr.MTU != 1300 {
		t.Errorf("over a link of 1300: %v", err)
	}
	if got := c.MaxPayload(now); got != 1272 {
		t.Errorf("the largest payload is %d, want 1272", got)
	}
	if taken, _ := sendAll(t, c, sized(1272, 1272)); taken != 2 {
		t.Errorf("%d of two that fit were taken", taken)
	}
	l.Sh(l.Sender, "ip link set va mtu 1500")
	if got := c.MaxPayload(now.Add(mtuMemory - time.Minute)); got != 1272 {
		t.Errorf("it grew to %d before its time", got)
	}
	if got := c.MaxPayload(time.Now().Add(mtuMemory)); got != 1472 {
		t.Errorf("it came back as %d, want 1472", got)
	}
	whole := l.dial(Options{})
	if taken, refused := sendAll(t, whole, sized(9000)); taken != 1 {
		t.Errorf("without DF: taken %d, refused %v", taken, refused)
	}
	if n := drain(t, listener); n != 3+2+1 {
		t.Errorf("%d arrived, want 6", n)
	}
	if s := c.Stats(); s.Shrinks != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestPathMTU6 (S6): the same over IPv6, whose headers are longer and which only
// the sender cuts into fragments.
func TestPathMTU6(t *testing.T) {
	l := newLink(t)
	l.Sh(l.Sender, "ip addr add fd00:198::1/64 dev va nodad")
	l.Sh(l.Receiver, "ip addr add fd00:198::2/64 dev vb nodad")
	const address = "[fd00:198::2]:7514"
	var listener *Listener
	var fit, whole *Conn
	var err error
	l.In(l.Receiver, func() { listener, err = Listen(address, ListenOptions{ReceiveBufferBytes: 4 << 20}) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dial := func(options Options) (c *Conn) {
		l.In(l.Sender, func() { c, err = Dial(netip.MustParseAddrPort(address), options) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	fit, whole = dial(Options{DontFragment: true, GSO: On}), dial(Options{GSO: On})
	if got := fit.MaxPayload(time.Now()); got != 1452 {
		t.Errorf("the largest payload is %d, want 1452", got)
	}
	if taken, refused := sendAll(t, fit, sized(1452, 1452, 1453, 1452)); taken != 3 || refused[ErrTooLarge] != 1 {
		t.Errorf("taken %d, refused %v", taken, refused)
	}
	l.Sh(l.Sender, "ip link set va mtu 1300")
	_, err = fit.Send(sized(1400, 1400))
	var sendErr *SendError
	if !errors.As(err, &sendErr) || sendErr.Class != ErrTooLarge || sendErr.MTU != 1300 {
		t.Errorf("over a link of 1300: %v", err)
	}
	if got := fit.MaxPayload(time.Now()); got != 1252 {
		t.Errorf("the largest payload is %d, want 1252", got)
	}
	if taken, refused := sendAll(t, whole, sized(1400, 1400, 9000)); taken != 3 {
		t.Errorf("without DF: taken %d, refused %v", taken, refused)
	}
	if n := drain(t, listener); n != 3+3 {
		t.Errorf("%d arrived, want 6", n)
	}
}

// TestICMPFragmentationNeeded (S6): a router on the way tells a smaller path
// MTU by ICMP.
func TestICMPFragmentationNeeded(t *testing.T) {
	l := newLink(t)
	// Behind the receiver's namespace, which becomes the router, is a narrow link
	// to itself.
	l.Sh(l.Receiver, "sysctl -qw net.ipv4.ip_forward=1 && ip link add vc type veth peer name vd && ip addr add 198.18.1.1/24 dev vc && "+
		"ip link set vc mtu 1300 up && ip link set vd mtu 1300 up && ip neigh add 198.18.1.2 lladdr 02:00:00:00:00:02 dev vc")
	l.Sh(l.Sender, "ip route add 198.18.1.0/24 via "+receiverIP)
	var c *Conn
	l.In(l.Sender, func() { c = mustDial(t, "198.18.1.2:7514", Options{DontFragment: true, GSO: On}) })
	defer func() { _ = c.Close() }()
	deadline := time.Now().Add(5 * time.Second)
	for c.MTU() != 1300 {
		if time.Now().After(deadline) {
			t.Fatalf("the path MTU is still %d", c.MTU())
		}
		_, err := c.Send(sized(1400))
		if err != nil && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // for the ICMP to come
	}
	if sent, err := c.Send(sized(1272)); sent != 1 {
		t.Errorf("one that fits: %v", err)
	}
}

// TestPacketFilter (S10): what the host's own filter refuses is told, twice
// offered, and ends nothing; when the rule goes datagrams go.
func TestPacketFilter(t *testing.T) {
	l := newLink(t, "nft")
	listener := l.listen(ListenOptions{})
	c := l.dial(Options{GSO: Off})
	l.Sh(l.Sender, "nft add table ip f && nft add chain ip f o '{ type filter hook output priority 0; }' && nft add rule ip f o udp dport 7514 drop")
	taken, refused := sendAll(t, c, sized(100, 200, 300))
	if taken != 0 || refused[ErrNotPermitted] != 3 {
		t.Errorf("with the rule: taken %d, refused %v", taken, refused)
	}
	l.Sh(l.Sender, "nft delete table ip f")
	if taken, refused := sendAll(t, c, sized(100, 200, 300)); taken != 3 {
		t.Errorf("without it: taken %d, refused %v", taken, refused)
	}
	if n := drain(t, listener); n != 3 {
		t.Errorf("%d arrived, want 3", n)
	}
}

// TestLinkFlap (S11): while the link is down every datagram is refused as
// unreachable; with the link the same socket works again.
func TestLinkFlap(t *testing.T) {
	l := newLink(t)
	listener := l.listen(ListenOptions{})
	c := l.dial(Options{GSO: Off})
	sendAll(t, c, sized(100))
	l.Sh(l.Sender, "ip link set va down")
	l.In(l.Sender, func() {
		taken, refused := sendAll(t, c, sized(100, 200))
		if taken != 0 || refused[ErrUnreachable]+refused[ErrLinkDown] != 2 {
			t.Errorf("without the link: taken %d, refused %v", taken, refused)
		}
	})
	l.Sh(l.Sender, "ip link set va up")
	awaitCarrier(l)
	l.In(l.Sender, func() {
		if taken, refused := sendAll(t, c, sized(100, 200)); taken != 2 {
			t.Errorf("with the link again: taken %d, refused %v", taken, refused)
		}
	})
	if n := drain(t, listener); n != 3 {
		t.Errorf("%d arrived, want 3", n)
	}
}

// awaitCarrier waits until the sender's device has a carrier.
func awaitCarrier(l *link) {
	l.Sh(l.Sender, "for i in $(seq 100); do ip -o link show va | grep -q LOWER_UP && exit 0; sleep 0.02; done; exit 1")
}

// TestOwnAddressGone (S12): a socket whose source address was replaced never
// heals, so a new one takes its place, at most one in five seconds.
func TestOwnAddressGone(t *testing.T) {
	l := newLink(t)
	listener := l.listen(ListenOptions{})
	c := l.dial(Options{GSO: Off})
	sendAll(t, c, sized(100))
	l.Sh(l.Sender, "ip addr del "+senderIP+"/24 dev va")
	l.In(l.Sender, func() {
		for range 100 {
			if taken, _ := sendAll(t, c, sized(100)); taken != 0 {
				t.Fatal("sent without an address")
			}
		}
	})
	l.Sh(l.Sender, "ip addr add 198.18.0.9/24 dev va")
	c.rebindNext = time.Time{} // five seconds later
	l.In(l.Sender, func() {
		if taken, refused := sendAll(t, c, sized(100, 200)); taken != 2 {
			t.Errorf("with another address: taken %d, refused %v", taken, refused)
		}
	})
	if s := c.Stats(); s.Rebinds != 1 {
		t.Errorf("stats %+v", s)
	}
	if n := drain(t, listener); n != 3 {
		t.Errorf("%d arrived, want 3", n)
	}
}

// TestPacedPath (S22): over a path of 10 Mbit/s with a small queue, a paced
// sender loses nothing and is never refused.
func TestPacedPath(t *testing.T) {
	l := newLink(t, "tc")
	listener := l.listen(ListenOptions{ReceiveBufferBytes: 4 << 20})
	l.Sh(l.Sender, "tc qdisc add dev va root tbf rate 10mbit burst 15kb limit 30000")
	c := l.dial(Options{BytesPerSecond: 1_000_000, GSO: Off})
	datagrams := slices.Repeat(sized(1000), 600)
	for len(datagrams) > 0 {
		sent, err := c.Send(datagrams)
		datagrams = datagrams[sent:]
		var sendErr *SendError
		if errors.As(err, &sendErr) {
			if sendErr.Class != ErrPaced {
				t.Fatal(err)
			}
			time.Sleep(sendErr.After)
		}
	}
	if n := drain(t, listener); n != 600 {
		t.Errorf("%d of 600 arrived", n)
	}
}

// TestGSOWithoutDeviceSupport (S8): on a device that can neither segment nor
// checksum, every datagram of a run arrives.
func TestGSOWithoutDeviceSupport(t *testing.T) {
	l := newLink(t, "ethtool")
	listener := l.listen(ListenOptions{ReceiveBufferBytes: 4 << 20})
	c := l.dial(Options{GSO: On})
	for _, state := range []string{"tx-udp-segmentation off", "sg off", "tx off"} {
		l.Sh(l.Sender, "ethtool -K va "+state)
		datagrams := sized(1400, 1400, 1400, 1400, 77)
		if taken, refused := sendAll(t, c, datagrams); taken != 5 {
			t.Errorf("%s: taken %d, refused %v", state, taken, refused)
		}
		receiveAll(t, listener, datagrams)
	}
}
