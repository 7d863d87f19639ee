package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tetracast/datagram"
	"tetracast/internal/replay"
	"tetracast/internal/udp/impair"
	"tetracast/ledger"
)

// live is a Tetragon in which events happen all the time, whoever listens: as the
// real one does, it puts them into a queue for each client. It waits where that
// would overflow, so that none is lost here.
type live struct {
	*replay.Server
	perSecond int

	mu      sync.Mutex
	clients []chan *tetragon.GetEventsResponse
}

// happen makes events until ctx ends. The exec_id is the event's number, from 1.
func (l *live) happen(ctx context.Context) {
	begin := time.Now()
	for n := 1; ctx.Err() == nil; n++ {
		if ahead := time.Duration(n)*time.Second/time.Duration(l.perSecond) - time.Since(begin); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		l.mu.Lock()
		event := &tetragon.GetEventsResponse{NodeName: "n", Time: timestamppb.Now(), Event: &tetragon.GetEventsResponse_ProcessExec{
			ProcessExec: &tetragon.ProcessExec{Process: &tetragon.Process{ExecId: strconv.Itoa(n), Binary: "/bin/true", Arguments: strings.Repeat("x", n%200)}}}}
		for _, client := range l.clients {
			for len(client) == cap(client) && ctx.Err() == nil && slices.Contains(l.clients, client) {
				l.mu.Unlock()
				time.Sleep(time.Millisecond)
				l.mu.Lock()
			}
			select {
			case client <- event:
			default: // it has gone
			}
		}
		l.mu.Unlock()
	}
}

func (l *live) GetEvents(_ *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	client := make(chan *tetragon.GetEventsResponse, 10_000)
	l.mu.Lock()
	l.clients = append(slices.Clone(l.clients), client)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.clients = slices.DeleteFunc(slices.Clone(l.clients), func(c chan *tetragon.GetEventsResponse) bool { return c == client })
	}()
	for {
		select {
		case event := <-client:
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// serveLive serves at the address until the test ends.
func serveLive(t *testing.T, address string, perSecond int) {
	t.Helper()
	as, err := replay.New(replay.Config{})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := replay.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	l := &live{Server: as, perSecond: perSecond}
	server := grpc.NewServer()
	tetragon.RegisterFineGuidanceSensorsServer(server, l)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	serving.Go(func() { l.happen(ctx) })
	t.Cleanup(func() { cancel(); server.Stop(); serving.Wait() })
}

// witness subscribes and is never interrupted. It returns when each event happened,
// by number, after stop was called.
func witness(t *testing.T, address string) (stop func() map[int]time.Time) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events, err := tetragon.NewFineGuidanceSensorsClient(conn).GetEvents(ctx, &tetragon.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]time.Time{}
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			event, err := events.Recv()
			if err != nil {
				return
			}
			seen[numberOf(event)] = event.Time.AsTime()
		}
	})
	return func() map[int]time.Time {
		cancel()
		watching.Wait()
		_ = conn.Close()
		return seen
	}
}

func numberOf(event *tetragon.GetEventsResponse) int {
	n, _ := strconv.Atoi(event.GetProcessExec().GetProcess().GetExecId())
	return n
}

// relayed is what a relay that reads frames by itself saw of a stream.
type relayed struct {
	stream  string
	numbers ledger.Ranges // of events that were sent
	passed  ledger.Ranges // of those that were passed on
	first   int           // event of the lowest number
	at      uint64        // that number
	wrong   int           // events that are not as far from first as their numbers say
	order   int           // among the streams, by the first frame
}

// relay passes datagrams on, drops a share of them, and counts the events in them.
type relay struct {
	mu      sync.Mutex
	streams map[uint64]*relayed
	reader  *datagram.FrameReader
	faults  int
}

func (r *relay) watch(d []byte, times int, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var h datagram.Header
	body, err := r.reader.Open(d, &h)
	if err != nil {
		r.faults++
		return
	}
	s := r.streams[h.Stream]
	if s == nil {
		s = &relayed{stream: string(datagram.AppendStreamID(nil, h.Stream)), order: len(r.streams)}
		r.streams[h.Stream] = s
	}
	if h.Kind != datagram.KindEvent {
		return
	}
	if h.Fragment.Total > 0 {
		r.faults++ // the events are short
	}
	err = r.reader.Read(&h, body, time.Now(), func(number uint64, wire []byte) {
		s.numbers.Add(ledger.Range{First: number, Last: number})
		if times > 0 {
			s.passed.Add(ledger.Range{First: number, Last: number})
		}
		var event tetragon.GetEventsResponse
		if proto.Unmarshal(wire, &event) != nil {
			r.faults++
			return
		}
		n := numberOf(&event)
		if s.at == 0 {
			s.at, s.first = number, n
		}
		if n-s.first != int(number)-int(s.at) {
			s.wrong++
		}
	})
	if err != nil {
		r.faults++
	}
}

// events returns how many events of streams passed so far.
func (r *relay) events() (n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		n += s.numbers.Count()
	}
	return n
}

// restarts is how often a run is ended: a few times, or as TETRACAST_RESTARTS says.
func restarts(t *testing.T) int {
	text := os.Getenv("TETRACAST_RESTARTS")
	if text == "" {
		return 4
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKills ends export with SIGKILL under load, again and again, some of it before it
// could say anything. Every event that somebody saw who was never interrupted was
// sent, lost for a stated reason, or happened while a run was blind, and says so.
func TestKills(t *testing.T) { endsAndBegins(t, syscall.SIGKILL, true, 0) }

// TestKillsOverALossyPath: what is lost on the way is missing, and nothing else is.
func TestKillsOverALossyPath(t *testing.T) { endsAndBegins(t, syscall.SIGKILL, true, 0.05) }

// TestRestarts is likewise with orderly ends.
func TestRestarts(t *testing.T) { endsAndBegins(t, syscall.SIGTERM, true, 0) }

// TestRestartsWithoutState: what one run does not know of the other, the collector does.
func TestRestartsWithoutState(t *testing.T) { endsAndBegins(t, syscall.SIGTERM, false, 0) }

func endsAndBegins(t *testing.T, signal syscall.Signal, state bool, drop float64) {
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	perSecond := 4000
	if os.Getenv("TETRACAST_RESTARTS") != "" {
		perSecond = 50_000 // more than there is room for
	}
	serveLive(t, address, perSecond)
	stopWitness := witness(t, address)
	collect := startCollect(t)
	r := &relay{streams: map[uint64]*relayed{}, reader: datagram.NewFrameReader(datagram.FrameReaderConfig{})}
	proxy, err := impair.New(netip.MustParseAddrPort(collect.address), impair.Config{Seed: 1, Drop: drop, Watch: r.watch})
	if err != nil {
		t.Fatal(err)
	}
	relaying, stopRelay := context.WithCancel(context.Background())
	defer stopRelay()
	relayDone := make(chan impair.Truth, 1)
	go func() {
		truth, err := proxy.Run(relaying)
		if err != nil {
			t.Error(err)
		}
		relayDone <- truth
	}()
	args := []string{"export", "--server-address", address, "--tetragon-metrics-address", "", "--udp-destination", "frame://" + proxy.Addr().String()}
	if state {
		args = append(args, "--state-dir", filepath.Join(folder, "made", "here"))
	}
	random := rand.New(rand.NewPCG(1, uint64(signal)))
	times := restarts(t)
	var export *process
	for i := range times + 1 {
		export = run(t, args...)
		before := r.events()
		early := i%5 == 2 && signal == syscall.SIGKILL && i < times // it may not have said anything
		for begin := time.Now(); !early && r.events() == before; time.Sleep(time.Millisecond) {
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("run %d sends nothing:\n%s", i, export.log.String())
			}
		}
		time.Sleep(rand.N(300 * time.Millisecond))
		if i == times {
			time.Sleep(time.Second) // for the reports on those before
			signal = syscall.SIGTERM
		}
		_ = export.cmd.Process.Signal(signal)
		export.wait(20 * time.Second)
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
	}
	happened := stopWitness()
	stopRelay()
	truth := <-relayDone
	time.Sleep(200 * time.Millisecond) // the collector's socket is another process's
	_ = collect.cmd.Process.Signal(syscall.SIGTERM)
	if code := collect.wait(20 * time.Second); code != 0 {
		t.Errorf("collect exited with %d", code)
	}
	account := readJSON[ledger.Collector](t, collect.account)
	if truth.Missed > 0 || account.Observed.SocketDropped > 0 || r.faults > 0 {
		t.Fatalf("the test's own relay missed %d datagrams, could not read %d, and the collector's socket dropped %d", truth.Missed, r.faults, account.Observed.SocketDropped)
	}
	if account.Closes == nil && drop == 0 || account.Closes != nil && !*account.Closes { // the first event of a stream may be lost
		t.Errorf("the account closes: %v", account.Closes)
	}
	audit(t, &account, r, happened, state)
}

// audit holds what the collector says against what the relay and the witness saw.
func audit(t *testing.T, account *ledger.Collector, r *relay, happened map[int]time.Time, state bool) {
	if err := account.Check(); err != nil {
		t.Error(err)
	}
	if len(account.Agents) != 1 {
		t.Fatalf("%d agents", len(account.Agents))
	}
	agent := &account.Agents[0]
	streams := agent.Streams
	slices.SortFunc(streams, func(a, b ledger.AgentStream) int { return a.StartedAt.Compare(*b.StartedAt) })
	var seen, sent, killed, perhaps, dropped, silent, gaps, blind uint64
	var last int             // event that was seen by the run before
	var between, most uint64 // events, and milliseconds, since then
	for i := range streams {
		s := &streams[i]
		id, _ := datagram.ParseStreamID([]byte(s.Stream))
		relayed := r.streams[id]
		if relayed == nil {
			relayed = &relayedNothing
			silent++
		}
		sum := s.Sender["excluded"] + s.Sender["dropped"] + s.Sender["refused"] + s.Sender["sent"]
		switch {
		case s.Ended != ledger.EndedGoodbye:
			t.Errorf("nobody told how stream %s ended", s.Stream)
		case s.Sender["seen"] != sum:
			t.Errorf("stream %s: seen %d, found %d: %v, %v", s.Stream, s.Sender["seen"], sum, s.Sender, s.SenderDropped)
		case s.Received+*s.Missing != s.Sender["sent"]:
			t.Errorf("stream %s: received %d + missing %d, sent %d", s.Stream, s.Received, *s.Missing, s.Sender["sent"])
		case s.Received != relayed.passed.Count():
			t.Errorf("stream %s: received %d, the relay passed %d on", s.Stream, s.Received, relayed.passed.Count())
		case relayed.wrong > 0 || s.SenderDropped["killed"]+s.Sender["sent"]+s.SenderDropped["shutdown"] != s.Sender["seen"]:
			t.Errorf("stream %s: other drops than by the kill: %v", s.Stream, s.SenderDropped)
		}
		if n := relayed.numbers.Count(); n != s.Sender["sent"] {
			// A datagram that was lost on the way, of the last call before a kill, and none
			// behind it came: it counts as killed, and is among those that may have been sent.
			if s.Offered == nil || n < s.Sender["sent"] || n-s.Sender["sent"] > s.Offered.Events-s.Offered.Sent || relayed.passed.Count() == n {
				t.Errorf("stream %s: sent %d, the relay saw %d; offered %+v", s.Stream, s.Sender["sent"], n, s.Offered)
			}
			perhaps += n - s.Sender["sent"]
		}
		most += s.Sender["blind_ms"]
		if relayed.at > 0 {
			first := relayed.first - int(relayed.at-1)
			if last > 0 && first <= last {
				t.Errorf("stream %s begins with event %d, but %d was seen before it: seen is too much", s.Stream, first, last)
			}
			if last > 0 {
				unseen := uint64(first-last-1) - between
				gaps += unseen
				span := happened[first-1].Sub(happened[last])
				if limit := time.Duration(most)*time.Millisecond + 2*time.Millisecond; state && unseen > 0 && span > limit {
					t.Errorf("before stream %s %d events were not seen within %v, and only %v are said to have been blind", s.Stream, unseen, span, limit)
				}
			}
			last, between, most = first+int(s.Sender["seen"])-1, 0, 0
		} else {
			between += s.Sender["seen"]
		}
		seen += s.Sender["seen"]
		sent += s.Sender["sent"]
		killed += s.SenderDropped["killed"]
		dropped += s.SenderDropped["shutdown"]
		blind += s.Sender["blind_ms"]
	}
	if want := uint64(len(streams) - 1); agent.Away.Times == 0 || agent.Away.Times > want {
		t.Errorf("away %d times, in %d runs", agent.Away.Times, len(streams))
	}
	var least time.Duration // of the events that nobody saw
	if !state {
		var before int
		for i := range streams {
			id, _ := datagram.ParseStreamID([]byte(streams[i].Stream))
			relayed := r.streams[id]
			first := relayed.first - int(relayed.at-1)
			if before > 0 {
				least += happened[first-1].Sub(happened[before+1])
			}
			before = first + int(streams[i].Sender["seen"]) - 1
		}
		if stated := time.Duration(agent.Away.MS+blind) * time.Millisecond; least > stated {
			t.Errorf("events of %v were not seen, but the host is said to have been away and blind for %v", least, stated)
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %d runs (%d silent), happened %d: seen %d = sent %d + killed %d + shutdown %d; %d lost on the way, %d perhaps sent; %d unseen, blind %d ms, away %+v\n",
		t.Name(), len(streams), silent, len(happened), seen, sent, killed, dropped, sent-account.Received, perhaps, gaps, blind, agent.Away)
}

var relayedNothing relayed
