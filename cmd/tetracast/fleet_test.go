package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
)

// TestFleet: two hundred agents send to three collectors, between which each of
// them moves, with other source ports each time. Every collector is restarted
// once in order, and one is killed. What the three together say is the truth of
// the network that stood between.
func TestFleet(t *testing.T) {
	agents, rounds := 200, 90
	if testing.Short() {
		agents, rounds = 40, 60
	}
	f := newFleet(t, 3, nil)
	for i := range agents {
		f.startAgent(exporter.Config{}, fmt.Sprintf("node-%03d", i%(agents-1))) // two on one host
	}
	for round := range rounds {
		switch round { // the first thirds belong to restarts, the last to a kill
		case rounds * 1 / 6:
			f.restart(0, syscall.SIGTERM)
		case rounds * 2 / 6:
			f.restart(1, syscall.SIGTERM)
		case rounds * 3 / 6:
			f.restart(2, syscall.SIGTERM)
		case rounds * 4 / 6:
			f.restart(1, syscall.SIGKILL)
		}
		f.sendRound(round)
	}
	f.hold(f.end())
}

func fleetEvent(t *testing.T, agent, round, n int) []byte {
	t.Helper()
	wire, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: fmt.Sprintf("node-%d-%d-%d", agent, round, n)})
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// fleet is a network with collectors behind it, and agents before it.
type fleet struct {
	t  *testing.T
	in *udp.Listener

	agents      []*exporter.UDPExporter
	stopAgents  context.CancelFunc
	agentsCtx   context.Context
	sending     sync.WaitGroup
	routed      chan error
	stopRouting chan struct{}
	// loseNoAgentInit spares the datagrams by which agents say who they are.
	loseNoAgentInit bool

	mu         sync.Mutex // guards what follows
	collectors []*fleetCollector
	random     *rand.Rand
	reader     *datagram.FrameReader
	streams    map[uint64]*fleetStream
}

type fleetCollector struct {
	*process
	address, folder string
	args            []string
	up              bool
	ports           []*udp.Conn // from which it is sent to
}

// fleetStream is the truth of one stream.
type fleetStream struct {
	passed    map[uint64]bool // events that a collector was given
	announced uint64
	refused   uint64
	goodbye   bool
	home      int // the collector it is sent to now
	port      int
	stay      int // so many datagrams more
}

// newFleet starts the network and the collectors, with arguments of their own.
func newFleet(t *testing.T, collectors int, args func(i int) []string) *fleet {
	in, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	f := &fleet{t: t, in: in, random: rand.New(rand.NewPCG(1, 1)), streams: map[uint64]*fleetStream{},
		reader: datagram.NewFrameReader(datagram.FrameReaderConfig{}), routed: make(chan error, 1), stopRouting: make(chan struct{})}
	f.agentsCtx, f.stopAgents = context.WithCancel(context.Background())
	for i := range collectors {
		c := &fleetCollector{address: freeUDP(t), folder: t.TempDir()}
		if args != nil {
			c.args = args(i)
		}
		f.collectors = append(f.collectors, c)
		f.start(c)
		for range 4 {
			conn, err := udp.Dial(netip.MustParseAddrPort(c.address), udp.Options{SendBufferBytes: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			c.ports = append(c.ports, conn)
		}
	}
	go func() { f.routed <- f.route(f.stopRouting) }()
	return f
}

// startAgent starts one that calls its host so.
func (f *fleet) startAgent(config exporter.Config, hostname string) {
	f.t.Helper()
	config.Destinations = []exporter.Destination{{Address: f.in.LocalAddr().String(), Format: "frame", MaxDatagram: 1232, Compression: datagram.CompressionS2}}
	config.Host = metadata.Sources{Hostname: func() (string, error) { return hostname, nil }}
	e, err := exporter.NewUDPExporter(config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.agents = append(f.agents, e)
	f.sending.Go(func() { _ = e.Run(f.agentsCtx) })
}

// sendRound has each agent send some events.
func (f *fleet) sendRound(round int) {
	for i, e := range f.agents {
		for n := range 1 + (i+round)%4 {
			if err := e.SendWire(fleetEvent(f.t, i, round, n)); err != nil {
				f.t.Error(err)
			}
		}
	}
	time.Sleep(40 * time.Millisecond)
}

func (f *fleet) start(c *fleetCollector) {
	f.t.Helper()
	c.process = run(f.t, append([]string{"collect", "--listen", c.address, "--write", filepath.Join(c.folder, "out.jsonl"),
		"--account", filepath.Join(c.folder, "account.json"), "--state-dir", c.folder}, c.args...)...)
	c.waitLog("Listening")
	f.mu.Lock()
	c.up = true
	f.mu.Unlock()
}

// restart takes a collector out of the network, ends it with the signal, and
// starts it again.
func (f *fleet) restart(i int, signal syscall.Signal) {
	f.t.Helper()
	f.stop(i, signal)
	f.start(f.collectors[i])
}

// stop takes a collector out of the network and ends it.
func (f *fleet) stop(i int, signal syscall.Signal) {
	f.t.Helper()
	c := f.collectors[i]
	f.mu.Lock()
	c.up = false
	f.mu.Unlock()
	if err := c.cmd.Process.Signal(signal); err != nil {
		f.t.Fatal(err)
	}
	c.wait(20 * time.Second)
}

// end ends the agents, then the collectors, and returns what these say together.
func (f *fleet) end() ledger.Collector {
	t := f.t
	t.Helper()
	f.stopAgents()
	f.sending.Wait()
	close(f.stopRouting)
	if err := <-f.routed; err != nil {
		t.Fatal(err)
	}
	for _, e := range f.agents {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	var files []string
	for _, c := range f.collectors {
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := c.wait(20 * time.Second); code != 0 {
			t.Errorf("a collector ended with %d", code)
		}
		files = append(files, filepath.Join(c.folder, "account.json"))
	}
	merge := run(t, append([]string{"account", "merge"}, files...)...)
	if code := merge.wait(20 * time.Second); code != 0 {
		t.Fatalf("account merge ended with %d: %s", code, merge.log.String())
	}
	path := filepath.Join(t.TempDir(), "merged.json")
	if err := os.WriteFile(path, merge.out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return readJSON[ledger.Collector](t, path)
}

// route passes each datagram to the collector that its stream is at, but for some
// that it loses, until stopped and nothing comes any more.
func (f *fleet) route(stop chan struct{}) error {
	for {
		_ = f.in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		batch, err := f.in.Receive()
		for _, d := range batch {
			if err := f.pass(d.Payload); err != nil {
				return err
			}
		}
		if err == nil {
			continue
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

func (f *fleet) pass(d []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var h datagram.Header
	if _, err := f.reader.Open(d, &h); err != nil {
		return err
	}
	s := f.streams[h.Stream]
	if s == nil {
		s = &fleetStream{passed: map[uint64]bool{}}
		f.streams[h.Stream] = s
	}
	if s.stay--; s.stay < 0 || !f.collectors[s.home].up {
		s.stay, s.port = 3+f.random.IntN(10), f.random.IntN(4)
		for s.home = f.random.IntN(len(f.collectors)); !f.collectors[s.home].up; {
			s.home = f.random.IntN(len(f.collectors))
		}
	}
	if f.random.IntN(20) == 0 && !h.Goodbye && !(f.loseNoAgentInit && h.Kind == datagram.KindAgentInit) {
		return nil // lost
	}
	s.announced, s.refused = max(s.announced, h.Last()), max(s.refused, h.Refused)
	s.goodbye = s.goodbye || h.Goodbye
	for n := h.First; n <= h.Last() && h.Kind == datagram.KindEvent; n++ {
		s.passed[n] = true
	}
	for {
		_, err := f.collectors[s.home].ports[s.port].Send([][]byte{bytes.Clone(d)})
		if err == nil {
			return nil
		}
		time.Sleep(time.Millisecond) // refused for the last one that was sent before a restart
	}
}

// hold asserts that the united account is the truth.
func (f *fleet) hold(c ledger.Collector) {
	t := f.t
	t.Helper()
	if c.Observed.SocketDropped > 0 {
		if os.Getenv("TETRACAST_REQUIRE_RECEIVED") != "" {
			t.Fatalf("the sockets dropped %d datagrams", c.Observed.SocketDropped)
		}
		t.Skipf("SKIPPED, NOT TESTED: the sockets dropped %d datagrams, for the machine is too busy", c.Observed.SocketDropped)
	}
	found := map[string]ledger.AgentStream{}
	for _, a := range c.Agents {
		for _, s := range a.Streams {
			found[s.Stream] = s
		}
	}
	var passed, missing, unknown uint64
	for _, e := range f.agents {
		account := e.Account()
		sent := account.Streams[0]
		s, ok := found[sent.Stream]
		if !ok {
			t.Errorf("stream %s is in no account", sent.Stream)
			continue
		}
		var id uint64
		if _, err := fmt.Sscanf(sent.Stream, "%x", &id); err != nil {
			t.Fatal(err)
		}
		truth := f.streams[id]
		if *s.Announced != truth.announced || s.Ended != ledger.EndedGoodbye {
			t.Errorf("stream %s: announced %d, ended %s; sent %d", s.Stream, *s.Announced, s.Ended, truth.announced)
		}
		var lost uint64
		for n := uint64(1); n <= truth.announced; n++ {
			got, dark := s.Numbers.Has(n), s.UnknownNumbers.Has(n)
			switch {
			case got && !truth.passed[n]:
				t.Errorf("stream %s: event %d was received, but never passed on", s.Stream, n)
			case truth.passed[n] && !got && !dark:
				t.Errorf("stream %s: event %d was passed on, but is missing", s.Stream, n)
			case !truth.passed[n] && !dark:
				lost++
			}
		}
		if *s.Missing+*s.RefusedBySender != lost {
			t.Errorf("stream %s: missing %d, refused %d, but the network lost %d", s.Stream, *s.Missing, *s.RefusedBySender, lost)
		}
		passed += uint64(len(truth.passed))
		missing += *s.Missing
		unknown += *s.Unknown
	}
	if unknown > c.Received/4 {
		t.Errorf("%d of %d unknown: a kill may cost some seconds", unknown, c.Received)
	}
	t.Logf("%d streams, %d events passed on, %d received, %d missing, %d unknown after the kill, %d received twice",
		len(f.agents), passed, c.Received-c.Overlap, missing, unknown, c.Overlap)
}
