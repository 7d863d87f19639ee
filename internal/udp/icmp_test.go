package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"tetracast/internal/udp/netns"
)

// kind is a kind of ICMP error, and the class that an answer of it has.
type kind struct {
	kind, code uint8
	class      AnswerClass
	ignored    bool // the kernel passes none on
}

// TestICMPAnswers (S1, S6): whatever ICMP says of earlier datagrams, forged before
// every single send, costs none of those at hand, and is counted under its class.
func TestICMPAnswers(t *testing.T) {
	four := []kind{{4, 0, 0, true}, {11, 0, Unreachable, false}, {11, 1, 0, true}, {12, 0, OtherAnswer, false}, {12, 1, OtherAnswer, false}}
	for code := range uint8(16) {
		k := kind{3, code, Unreachable, false}
		switch code {
		case 3:
			k.class = PortUnreachable
		case 4:
			k.class = TooBig
		}
		four = append(four, k)
	}
	six := []kind{{2, 0, TooBig, false}, {3, 0, Unreachable, false}, {3, 1, Unreachable, false}, {4, 0, OtherAnswer, false}, {4, 1, OtherAnswer, false}, {4, 2, OtherAnswer, false}}
	for code := range uint8(8) {
		k := kind{1, code, Unreachable, false}
		switch code {
		case 4:
			k.class = PortUnreachable
		case 7: // the kernel knows no more of it than that it is an error
			k.class = OtherAnswer
		}
		six = append(six, k)
	}
	l := newLink(t)
	l.Sh(l.Sender, "ip addr add fd00:198::1/64 dev va nodad")
	l.Sh(l.Receiver, "ip addr add fd00:198::2/64 dev vb nodad")
	for _, dontFragment := range []bool{true, false} { // as in frames, and in json
		l.answer(netip.MustParseAddrPort(receiverIP+":7514"), dontFragment, four)
		l.answer(netip.MustParseAddrPort("[fd00:198::2]:7514"), dontFragment, six)
	}
}

// answer forges each kind of ICMP error before each of some sends.
func (l *link) answer(to netip.AddrPort, dontFragment bool, kinds []kind) {
	t := l.t
	var listener *Listener
	var c *Conn
	l.In(l.Receiver, func() {
		var err error
		if listener, err = Listen(to.String(), ListenOptions{ReceiveBufferBytes: 16 << 20}); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { _ = listener.Close() }()
	l.In(l.Sender, func() { c = mustDial(t, to.String(), Options{DontFragment: dontFragment}) })
	defer func() { _ = c.Close() }()
	forge, from := l.ForgeICMP(to), localAddr(t, c)
	const each = 40
	for _, k := range kinds {
		what := fmt.Sprintf("%v, DF %v, type %d, code %d", to.Addr(), dontFragment, k.kind, k.code)
		for _, d := range numbered(each) {
			forge(from, k.kind, k.code, 1400)
			if sent, err := c.Send([][]byte{d}); sent != 1 || err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		var want Answers
		if !k.ignored && (k.class != TooBig || dontFragment || to.Addr().Is6()) { // of which IPv4 without DF hears nothing
			want[k.class] = each
		}
		n, last := c.Answers()
		// One that comes while a send is under way counts with the next.
		if n.Total() < want.Total()*3/4 || n.Total() > want.Total() || n[k.class] != n.Total() {
			t.Errorf("%s: answers %v, want %v", what, n, want)
		}
		if trouble := want.Total() > 0 && k.class != TooBig; trouble != (last != nil) || trouble && (last.Type != k.kind || last.Code != k.code || last.From != to.Addr()) {
			t.Errorf("%s: the last answer is %v", what, last)
		}
		c.drainErrors() // what came late
		c.Answers()
	}
	if n := drain(t, listener); n != each*len(kinds) {
		t.Errorf("%v, DF %v: %d of %d arrived", to.Addr(), dontFragment, n, each*len(kinds))
	}
}

// TestICMPAndLocalVerdict (S6): a datagram that is too long for the path is told so
// at once, though ICMP says so of earlier ones before each send; and a send to where
// there is no route waits, whatever routers said before.
func TestICMPAndLocalVerdict(t *testing.T) {
	l := &link{netns.New(t), t}
	listener := l.listen(ListenOptions{})
	c := l.dial(Options{DontFragment: true})
	forge, from := l.ForgeICMP(netip.MustParseAddrPort(receiverIP+":7514")), localAddr(t, c)
	for range 20 {
		forge(from, 3, 4, 1400)
		if sent, err := c.Send(sized(1401)); sent != 0 || !errors.Is(err, ErrTooLarge) {
			t.Fatalf("1401 bytes over a path of 1400: sent %d, %v", sent, err)
		}
		forge(from, 3, 4, 1400)
		if sent, err := c.Send(sized(1372)); sent != 1 {
			t.Fatalf("1372 bytes over a path of 1400: %v", err)
		}
	}
	if n := drain(t, listener); n != 20 || c.MTU() != 1400 {
		t.Errorf("%d of 20 arrived, path MTU %d", n, c.MTU())
	}
	for range 20 {
		forge(from, 3, 0, 0)
		time.Sleep(time.Millisecond)
	}
	l.Sh(l.Sender, "ip route flush dev va")
	l.In(l.Sender, func() {
		if sent, err := c.Send(sized(100)); sent != 0 || !errors.Is(err, ErrUnreachable) {
			t.Errorf("without a route: sent %d, %v", sent, err)
		}
	})
	n, last := c.Answers()
	if n[Unreachable] < 19 || last == nil {
		t.Errorf("answers %v, %v", n, last)
	}
}
