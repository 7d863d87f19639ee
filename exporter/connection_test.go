package exporter

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
)

// onSocket is a hook event with a socket among its arguments, in which the other
// arguments come before and behind it.
func onSocket(process *tetragon.Process, function string, action tetragon.KprobeAction, source, destination string) *tetragon.GetEventsResponse {
	from, to := netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)
	return &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{
		Process: process, FunctionName: function, Action: action, Args: []*tetragon.KprobeArgument{
			{Arg: &tetragon.KprobeArgument_IntArg{IntArg: 7}},
			{Arg: &tetragon.KprobeArgument_SockArg{SockArg: &tetragon.KprobeSock{Family: "AF_INET", Type: "SOCK_STREAM", Protocol: "IPPROTO_TCP", Mark: 1,
				Saddr: from.Addr().String(), Daddr: to.Addr().String(), Sport: uint32(from.Port()), Dport: uint32(to.Port()), Cookie: 1 << 60}}},
			{Arg: &tetragon.KprobeArgument_BytesArg{BytesArg: make([]byte, 300)}, Label: "x"},
		}}}}
}

// onPacket is the same with a packet.
func onPacket(source, destination string) *tetragon.GetEventsResponse {
	from, to := netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)
	return &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessTracepoint{ProcessTracepoint: &tetragon.ProcessTracepoint{
		Subsys: "net", Event: "net_dev_queue", Action: tetragon.KprobeAction_KPROBE_ACTION_POST, Args: []*tetragon.KprobeArgument{
			{Arg: &tetragon.KprobeArgument_SkbArg{SkbArg: &tetragon.KprobeSkb{Hash: 9, Len: 60, Saddr: from.Addr().String(), Daddr: to.Addr().String(),
				Sport: uint32(from.Port()), Dport: uint32(to.Port()), Proto: 6}}},
		}}}}
}

// TestOwnConnection: on an own connection the hook events of whoever it is are excluded,
// in both directions; one other port, address, kind or action, and it is sent.
func TestOwnConnection(t *testing.T) {
	const post = tetragon.KprobeAction_KPROBE_ACTION_POST
	const us, them = "127.0.0.1:40001", "127.0.0.1:54321"
	server := hook{pid: 77, binary: "/usr/bin/tetragon"}.process()
	bare := (&tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{}}).ProcessKprobe.Process // --disable-process-cache
	for _, self := range []*Self{{process: process{pid: 4242}}, {process: process{binary: "/usr/bin/tetracast"}}, {}} {
		f := func(what string, want bool, event *tetragon.GetEventsResponse) {
			t.Helper()
			wire, err := proto.Marshal(event)
			if err != nil {
				t.Fatal(err)
			}
			if got := self.Caused(wire); got != want {
				t.Errorf("%s: excluded %v, want %v", what, got, want)
			}
		}
		f("before there is a connection", false, onSocket(server, "tcp_sendmsg", post, them, us))
		self.Connected(netip.MustParseAddrPort(us), netip.MustParseAddrPort(them))
		self.Connected(netip.MustParseAddrPort("[fd00::2]:40002"), netip.MustParseAddrPort("[fd00::1]:54321"))
		f("Tetragon sends to us", true, onSocket(server, "tcp_sendmsg", post, them, us))
		f("we send to Tetragon", true, onSocket(server, "tcp_sendmsg", post, us, them))
		f("of a process without details", true, onSocket(bare, "tcp_sendmsg", post, them, us))
		f("a function that no list has", true, onSocket(server, "lock_sock_nested", post, them, us))
		f("on a socket of both families", true, onSocket(server, "tcp_sendmsg", post, "[::ffff:127.0.0.1]:54321", "[::ffff:127.0.0.1]:40001"))
		f("over IPv6", true, onSocket(server, "tcp_sendmsg", post, "[fd00::1]:54321", "[fd00::2]:40002"))
		f("a packet of it", true, onPacket(them, us))
		f("an acknowledgement", true, onPacket(us, them))
		f("another client of Tetragon", false, onSocket(server, "tcp_sendmsg", post, them, "127.0.0.1:40003"))
		f("from our port elsewhere", false, onSocket(server, "tcp_sendmsg", post, us, "192.0.2.1:54321"))
		f("between our ports on another host", false, onSocket(server, "tcp_sendmsg", post, "192.0.2.2:40001", "192.0.2.1:54321"))
		f("over one another's ports", false, onSocket(server, "tcp_sendmsg", post, "[fd00::1]:54321", "[fd00::2]:40001"))
		f("from our port to itself", false, onSocket(server, "tcp_sendmsg", post, us, us))
		f("another packet", false, onPacket(us, "127.0.0.1:443"))
		f("the connection is blocked", false, onSocket(server, "tcp_sendmsg", tetragon.KprobeAction_KPROBE_ACTION_OVERRIDE, them, us))
		f("the server is killed", false, onSocket(server, "tcp_sendmsg", tetragon.KprobeAction_KPROBE_ACTION_SIGKILL, them, us))
		kprobe := onSocket(server, "socket_sendmsg", post, them, us).GetProcessKprobe()
		f("an LSM hook", false, &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessLsm{ProcessLsm: &tetragon.ProcessLsm{
			Process: server, FunctionName: "socket_sendmsg", Action: post, Args: kprobe.Args}}})
	}
}

// TestClosedConnection: the last packets of a connection that was closed are its own yet;
// after that its ports may be anybody's.
func TestClosedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const us, them = "127.0.0.1:40001", "127.0.0.1:54321"
		wire, _ := proto.Marshal(onPacket(them, us))
		var self Self
		for range 100 {
			closed := self.Connected(netip.MustParseAddrPort(us), netip.MustParseAddrPort(them))
			closed()
			time.Sleep(lingering / 2)
			if !self.Caused(wire) {
				t.Fatal("the last packet is not excluded")
			}
			closed()
			time.Sleep(lingering/2 + 1)
			if self.Caused(wire) {
				t.Fatal("excluded for ever")
			}
		}
		if n := len(*self.connections.Load()); n > 2 {
			t.Errorf("%d connections are kept", n)
		}
	})
}

// TestLooping: it is told once that a connection has many events of its own.
func TestLooping(t *testing.T) {
	self := Self{looping: make(chan struct{}, 1)}
	self.Connected(netip.MustParseAddrPort("127.0.0.1:40001"), netip.MustParseAddrPort("127.0.0.1:54321"))
	wire, _ := proto.Marshal(onPacket("127.0.0.1:40001", "127.0.0.1:54321"))
	for i := range 3 * loopEvents {
		if told := len(self.Looping()) == 1; told != (i >= loopEvents) {
			t.Fatalf("after %d events: told %v", i, told)
		}
		self.Caused(wire)
	}
	if n := testing.AllocsPerRun(100, func() { self.Caused(wire) }); n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}
