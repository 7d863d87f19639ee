package replay

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// listenerEvents is how many events wait for a client, as in Tetragon (newListener in
// pkg/server); what does not fit is dropped.
const listenerEvents = 10_000

// feedback is what happens on the network, as events for every client.
type feedback struct {
	mu      sync.Mutex
	clients map[chan felt]struct{}
	made    atomic.Int64
	dropped atomic.Int64
}

// felt is such an event, with the ports of the connection that it was on; 0: on none.
type felt struct {
	wire       []byte
	local, far int
}

func (f *feedback) tell(event felt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made.Add(1)
	for client := range f.clients {
		select {
		case client <- event:
		default:
			f.dropped.Add(1)
		}
	}
}

// join gives a client the events from now on, until leave.
func (f *feedback) join() (events chan felt, leave func()) {
	events = make(chan felt, listenerEvents)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clients == nil {
		f.clients = map[chan felt]struct{}{}
	}
	f.clients[events] = struct{}{}
	return events, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.clients, events)
	}
}

// playFelt sends events as they come, until the client has gone.
func playFelt(stream grpc.ServerStream, request *tetragon.GetEventsRequest, events <-chan felt, sent *atomic.Int64) error {
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case event := <-events:
			if event.local != 0 && denies(request, event.local, event.far) {
				continue
			}
			if err := stream.SendMsg(wireMessage(event.wire)); err != nil {
				return err
			}
			sent.Add(1)
		}
	}
}

// denies says whether a request denies the events of a connection between these ports.
// It looks for the ports in the CEL expressions and does not evaluate them: what they
// mean is held against Tetragon's own filters, see connectionFilter in internal/source.
func denies(request *tetragon.GetEventsRequest, local, far int) bool {
	for _, filter := range request.GetDenyList() {
		for _, expression := range filter.GetCelExpression() {
			if strings.HasPrefix(expression, "process_kprobe.") &&
				strings.Contains(expression, fmt.Sprintf("sport == %du && a.sock_arg.dport == %du", local, far)) {
				return true
			}
		}
	}
	return false
}

// Inject gives all clients an event, marshalled, with Config.Feedback.
func (s *Server) Inject(wire []byte) { s.feedback.tell(felt{wire: wire}) }

// Felt returns how many events Config.Feedback made, and how many of them clients were
// too slow for.
func (s *Server) Felt() (made, dropped int64) {
	return s.feedback.made.Load(), s.feedback.dropped.Load()
}

// feedbackListener accepts connections on which each write is an event.
type feedbackListener struct {
	net.Listener
	feedback *feedback
}

func (l *feedbackListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	far, both := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !both {
		return conn, nil
	}
	wire, err := proto.Marshal(sendEvent(local, far))
	if err != nil {
		return nil, err
	}
	return &feedbackConn{conn, l.feedback, felt{wire, local.Port, far.Port}}, nil
}

type feedbackConn struct {
	net.Conn
	feedback *feedback
	event    felt
}

func (c *feedbackConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.feedback.tell(c.event)
	return n, err
}

// sendEvent is what Tetragon makes of a send of its own.
func sendEvent(from, to *net.TCPAddr) *tetragon.GetEventsResponse {
	return &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{
		Process:      &tetragon.Process{Pid: wrapperspb.UInt32(uint32(os.Getpid())), Binary: "/usr/bin/tetragon"},
		FunctionName: "tcp_sendmsg", Action: tetragon.KprobeAction_KPROBE_ACTION_POST, PolicyName: "feedback",
		Args: []*tetragon.KprobeArgument{{Arg: &tetragon.KprobeArgument_SockArg{SockArg: &tetragon.KprobeSock{
			Family: "AF_INET", Type: "SOCK_STREAM", Protocol: "IPPROTO_TCP", State: "TCP_ESTABLISHED",
			Saddr: from.AddrPort().Addr().Unmap().String(), Daddr: to.AddrPort().Addr().Unmap().String(), Sport: uint32(from.Port), Dport: uint32(to.Port)}}}},
	}}}
}
