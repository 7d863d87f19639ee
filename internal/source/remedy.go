package source

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// A subscription can ask for less than its filters say, where a Tetragon could not give
// the rest. It begins with neither remedy, and keeps what it took to.
//
// A control group's name need not be UTF-8, and stands in the docker fields of its
// processes. gRPC's server cannot marshal such an event, and ends the stream: every such
// event is a break. Without these fields it comes.
//
// With a policy on the network path an event that Tetragon sends over TCP is an event,
// which it sends. To leave it out here does not end that; Tetragon must not send it.

// containerPaths are the fields with the name of a control group.
var containerPaths = []string{"process.docker", "parent.docker", "ancestors.docker"}

// breaksForRemedy is how many breaks for a text that is not UTF-8 there are until the
// fields are left out.
const breaksForRemedy = 2

// ends are those of a connection over TCP; zero: it is none.
type ends struct{ local, remote netip.AddrPort }

func endsOf(conn net.Conn) ends {
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	remote, both := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !both {
		return ends{}
	}
	return ends{local.AddrPort(), remote.AddrPort()}
}

// request asks for events over a connection. t is told which remedies it contains.
func (s *Subscription) request(t *Tetragon, over ends) *tetragon.GetEventsRequest {
	f := t.Filters
	request := &tetragon.GetEventsRequest{AllowList: f.Allow, DenyList: f.Deny, FieldFilters: f.Fields}
	if t.WithoutContainers = s.withoutContainers.Load(); t.WithoutContainers {
		request.FieldFilters = append(append([]*tetragon.FieldFilter(nil), f.Fields...), &tetragon.FieldFilter{
			Fields: &fieldmaskpb.FieldMask{Paths: containerPaths}, Action: tetragon.FieldFilterAction_EXCLUDE})
	}
	if t.WithoutOwn = s.withoutOwn.Load() && over != (ends{}) && hasCEL(t.Version) && !s.celRefused.Load(); t.WithoutOwn {
		request.DenyList = append(append([]*tetragon.Filter(nil), f.Deny...), connectionFilter(over))
	}
	return request
}

// hasCEL says whether a release knows Filter.cel_expression and looks only at events that
// the expression is about: v1.5.0 is the first (pkg/filters/cel_expression.go). One that
// does not know it, before v1.3.0, would take such a filter for one that matches all.
func hasCEL(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &major, &minor)
	return n == 2 && (major > 1 || major == 1 && minor >= 5)
}

// connectionFilter matches the hook events, with action POST, that have a connection
// among their arguments: those that an exporter would leave out.
func connectionFilter(over ends) *tetragon.Filter {
	between := func(arg string, a, b netip.AddrPort) string {
		return fmt.Sprintf("%[1]s.sport == %[2]du && %[1]s.dport == %[3]du && %[1]s.saddr in %[4]s && %[1]s.daddr in %[5]s",
			arg, a.Port(), b.Port(), bothForms(a), bothForms(b))
	}
	var ends []string
	for _, arg := range []string{"a.sock_arg", "a.skb_arg"} {
		ends = append(ends, between(arg, over.local, over.remote), between(arg, over.remote, over.local))
	}
	filter := new(tetragon.Filter)
	for _, kind := range []string{"process_kprobe", "process_tracepoint"} {
		filter.CelExpression = append(filter.CelExpression, fmt.Sprintf("%[1]s.action == %[2]d && %[1]s.args.exists(a, %[3]s)",
			kind, tetragon.KprobeAction_KPROBE_ACTION_POST, strings.Join(ends, " || ")))
	}
	return filter
}

// bothForms lists an address as Tetragon writes it, of a socket of its own family and of
// one for both.
func bothForms(a netip.AddrPort) string {
	addr := a.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return fmt.Sprintf("[%q, %q]", addr, netip.AddrFrom16(addr.As16()))
	}
	return fmt.Sprintf("[%q]", addr)
}

// notUTF8 says whether a stream ended because an event could not be marshalled: gRPC's
// server says "grpc: error while marshaling: string field contains invalid UTF-8".
func notUTF8(err error) bool {
	message := status.Convert(err).Message()
	return status.Code(err) == codes.Internal && (strings.Contains(message, "UTF-8") || strings.Contains(message, "error while marshal"))
}

// leaveOutContainers counts a break for a text that is not UTF-8, and decides what is
// asked for from now on.
func (s *Subscription) leaveOutContainers() {
	if s.notUTF8.Add(1) != breaksForRemedy {
		return
	}
	const what = "An event's text is not UTF-8, such as the name of a control group: Tetragon ends the subscription at every such event"
	if !s.config.Remedies {
		s.log.Warn(what, "hint", "--remedies auto asks for events without "+strings.Join(containerPaths, ", "))
		return
	}
	s.withoutContainers.Store(true)
	s.log.Warn(what+"; from now on events come without these fields", "left_out", strings.Join(containerPaths, ","),
		"hint", "rename the control group; --remedies none keeps the fields, and the breaks")
}

// AvoidLoop has Tetragon leave out the events of its own sending to this process. It is
// to be called when there are so many of these that there is a loop. The subscription is
// made anew as [Subscription.SetFilters] does it.
func (s *Subscription) AvoidLoop(ctx context.Context) error {
	const what = "With a tracing policy on the network path every event that Tetragon sends to this exporter over TCP is one more event, without end"
	s.mu.Lock()
	current := s.current
	s.mu.Unlock()
	hint := slog.String("hint", "a unix socket has no such loop: --server-address unix:///var/run/tetragon/tetragon.sock, if Tetragon serves it")
	switch {
	case current == nil || s.withoutOwn.Load():
		return nil // that connection is gone, or all was done
	case !s.config.Remedies || !hasCEL(current.found.Version):
		s.log.Warn(what+"; they are excluded here, but keep both busy", "address", current.found.Address, hint)
		return nil
	}
	s.withoutOwn.Store(true)
	s.log.Warn(what+"; it is asked to leave them out", "address", current.found.Address, hint)
	return s.replace(ctx, func(was *asked) *asked { return &asked{was.filters, was.auto} })
}

// refusedFilter notes that Tetragon ended a session at once because of the filter that
// avoids the loop, so that the next does without it.
func (s *Subscription) refusedFilter(found *Tetragon, err error) {
	code := status.Code(err)
	if !found.WithoutOwn || code != codes.Unknown && code != codes.InvalidArgument && code != codes.Unimplemented {
		return
	}
	s.celRefused.Store(true)
	s.log.Warn("Tetragon does not take the filter that leaves out its own sends to this exporter: they keep both busy", "error", err)
}

// opened tells of a connection over TCP, and returns what tells of its end.
func (c *Config) opened(conn net.Conn) net.Conn {
	e := endsOf(conn)
	if c.Opened == nil || e == (ends{}) {
		return conn
	}
	return &toldConn{conn, c.Opened(e.local, e.remote)}
}

// toldConn tells when it is closed.
type toldConn struct {
	net.Conn
	closed func()
}

func (c *toldConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
