package collector_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/corpus"
	"tetracast/internal/sink"
	"tetracast/internal/source"
	"tetracast/internal/udp/impair"
	"tetracast/internal/udp/netns"
	"tetracast/ledger"
	"tetracast/transcode"
)

// sampleEvents returns the built-in recording, as protobuf.
func sampleEvents(t testing.TB) (events [][]byte) {
	t.Helper()
	r, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	for {
		wire, err := r.Next()
		if err == io.EOF {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, bytes.Clone(wire))
	}
}

func newTranscoder() (*transcode.Transcoder, error) { return exporter.NewTranscoder(1 << 20) }

// truth is what a network did to a stream of frames, event by event.
type truth struct {
	mu              sync.Mutex
	reader          *datagram.FrameReader
	got             map[uint64]bool         // events that were passed on whole
	pieces          map[uint64]map[int]bool // fragments that were passed on, by event
	figures         ledger.Figures
	again           uint64 // events passed on twice
	frames, damaged int
}

func newTruth() *truth {
	return &truth{reader: datagram.NewFrameReader(datagram.FrameReaderConfig{}), got: map[uint64]bool{}, pieces: map[uint64]map[int]bool{}}
}

// watch notes a datagram's fate.
func (w *truth) watch(d []byte, times int, corrupted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames++
	if corrupted {
		w.damaged++
	}
	if times == 0 || corrupted {
		return
	}
	var h datagram.Header
	if _, err := w.reader.Open(d, &h); err != nil {
		panic(err) // the exporter made it
	}
	if times == 2 && h.Fragment.Index == 0 {
		w.again += uint64(h.Count)
	}
	last := h.Last()
	if h.Fragment.Total > 0 {
		set := w.pieces[h.First]
		if set == nil {
			set = map[int]bool{}
			w.pieces[h.First] = set
		}
		set[h.Fragment.Index] = true
		if len(set) < h.Fragment.Total {
			last = h.First - 1
		}
	}
	w.figures.Announced = max(w.figures.Announced, last)
	w.figures.Refused = max(w.figures.Refused, h.Refused)
	for n := h.First; n <= last && h.Kind == datagram.KindEvent; n++ {
		w.got[n] = true
	}
}

// hold asserts that the account of the one stream is the truth.
func (w *truth) hold(t *testing.T, c ledger.Collector) {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if len(c.Agents) != 1 || len(c.Agents[0].Streams) != 1 {
		t.Fatalf("agents %+v", c.Agents)
	}
	s := c.Agents[0].Streams[0]
	want := w.figures
	want.Received = uint64(len(w.got))
	holes := want.Announced - want.Received
	want.Refused = min(want.Refused, holes)
	want.Missing = holes - want.Refused
	got := ledger.Figures{Announced: *s.Announced, Received: s.Received, Refused: *s.RefusedBySender, Missing: *s.Missing, Unknown: *s.Unknown}
	if got != want || *s.Duplicate != w.again || *s.Late != 0 {
		t.Errorf("the account says %+v, %d duplicate, %d late; the truth is %+v, %d duplicate", got, *s.Duplicate, *s.Late, want, w.again)
	}
	if c.Undecodable.Total() != uint64(w.damaged) {
		t.Errorf("undecodable: %v, but %d were damaged", c.Undecodable.String(), w.damaged)
	}
}

// rig is an exporter and a collector in one process.
type rig struct {
	t         *testing.T
	lines     *lines
	in        *collector.Collector
	out       *exporter.UDPExporter
	stop      []func()
	collected chan error
}

// lines is a sink that keeps what it got.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) Write(b *sink.Batch) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.Len() {
		l.text = append(l.text, strings.TrimSuffix(string(b.Line(i)), "\n"))
	}
	return b.Len(), nil
}

func (l *lines) Close() error { return nil }

// newRig runs a collector, and an exporter that sends to what between returns for
// its address.
func newRig(t *testing.T, to exporter.Destination, listen string, between func(address string) string, inNS, outNS func(func())) *rig {
	t.Helper()
	r := &rig{t: t, lines: new(lines), collected: make(chan error, 1)}
	inNS(func() {
		var err error
		r.in, err = collector.New(collector.Config{Listen: listen, Sink: r.lines, NewTranscoder: newTranscoder})
		if err != nil {
			t.Fatal(err)
		}
	})
	to.Address = between(r.in.Addr().String())
	outNS(func() {
		var err error
		r.out, err = exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{to}, DrainTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { r.collected <- r.in.Run(ctx) }()
	r.stop = append(r.stop, cancel)
	return r
}

// newRigBehind puts a network between them. passed ends it and returns what it did.
func newRigBehind(t *testing.T, to exporter.Destination, config impair.Config) (r *rig, passed func() impair.Truth) {
	t.Helper()
	var network *impair.Proxy
	r = newRig(t, to, "127.0.0.1:0", func(address string) string {
		var err error
		if network, err = impair.New(netipAddr(address), config); err != nil {
			t.Fatal(err)
		}
		return network.Addr().String()
	}, here, here)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan impair.Truth, 1)
	go func() {
		truth, err := network.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		done <- truth
	}()
	return r, func() impair.Truth { cancel(); return <-done }
}

// send sends the events in batches, so that the network is not flooded.
func (r *rig) send(events [][]byte, rounds int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	exported := make(chan error, 1)
	go func() { exported <- r.out.Run(ctx) }()
	for range rounds {
		for rest := events; len(rest) > 0; {
			n := min(32, len(rest))
			if err := r.out.SendBatch(rest[:n]); err != nil {
				r.t.Error(err)
			}
			rest = rest[n:]
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	if err := <-exported; err != nil {
		r.t.Error(err)
	}
}

// end ends the collector and returns both accounts.
func (r *rig) end() (ledger.Exporter, ledger.Collector) {
	r.t.Helper()
	// What is still in the network's queues arrives.
	for last, quiet := uint64(0), 0; quiet < 20; quiet++ {
		if n := r.in.Account().Datagrams; n != last {
			last, quiet = n, 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, stop := range r.stop {
		stop()
	}
	if err := <-r.collected; err != nil {
		r.t.Error(err)
	}
	if err := r.out.Close(); err != nil {
		r.t.Error(err)
	}
	e, c := r.out.Account(), r.in.Account()
	if err := e.Check(); err != nil {
		r.t.Error(err)
	}
	return e, c
}

func here(f func()) { f() }

// modes are the ways of sending that each cell of the matrix is tried with.
var modes = []struct {
	name string
	to   exporter.Destination
}{
	{"plain", exporter.Destination{Format: "frame", MaxDatagram: 1232, GSO: "off"}},
	{"gso", exporter.Destination{Format: "frame", MaxDatagram: 1232, GSO: "on"}},
	{"compressed", exporter.Destination{Format: "frame", MaxDatagram: 1232, Compression: datagram.CompressionS2}},
}

// TestImpairmentMatrix: whatever a network does to frames, the account is the
// truth of that network.
func TestImpairmentMatrix(t *testing.T) {
	cells := []struct {
		name string
		impair.Config
	}{
		{"loss_0.1", impair.Config{Drop: 0.001}},
		{"loss_1", impair.Config{Drop: 0.01}},
		{"loss_10", impair.Config{Drop: 0.1}},
		{"loss_50", impair.Config{Drop: 0.5}},
		{"duplicates_10", impair.Config{Duplicate: 0.1}},
		{"reordering_20", impair.Config{Reorder: 0.2, ReorderBy: 20}},
		{"corruption_1", impair.Config{Corrupt: 0.01}},
		{"all_at_once", impair.Config{Drop: 0.05, Duplicate: 0.05, Corrupt: 0.05, Reorder: 0.1, ReorderBy: 30}},
	}
	events := sampleEvents(t)
	for i, cell := range cells {
		for j, mode := range modes {
			t.Run(cell.name+"/"+mode.name, netns.Twice(func(t *testing.T) (lost string) {
				t.Parallel()
				w := newTruth()
				config := cell.Config
				config.Seed, config.Watch = uint64(100*i+j), w.watch
				r, passed := newRigBehind(t, mode.to, config)
				r.send(events, 2)
				if truth := passed(); truth.Missed > 0 {
					return fmt.Sprintf("the proxy itself lost %d datagrams", truth.Missed)
				}
				e, c := r.end()
				if c.Observed.SocketDropped > 0 {
					return "the collector's socket lost datagrams"
				}
				w.hold(t, c)
				if e.Streams[0].Datagrams != uint64(w.frames) {
					t.Errorf("sent %d datagrams, the network saw %d", e.Streams[0].Datagrams, w.frames)
				}
				t.Logf("%d frames, %d damaged, %d of %d events arrived", w.frames, w.damaged, len(w.got), e.Streams[0].Sent)
				return ""
			}))
		}
	}
}

// TestNarrowAndSlowLinks: on a path with a small MTU, or of 10 Mbit/s, everything
// arrives or is counted, in frames and in JSON.
func TestNarrowAndSlowLinks(t *testing.T) {
	links := []struct{ name, command string }{
		{"mtu_1300", "ip link set va mtu 1300"},
		{"mtu_600", "ip link set va mtu 600"},
		{"10_mbit", "tc qdisc add dev va root tbf rate 10mbit burst 64kb latency 400ms"},
	}
	all := append(modes[:len(modes):len(modes)], struct {
		name string
		to   exporter.Destination
	}{"json", exporter.Destination{Format: "json"}})
	events := sampleEvents(t)
	for _, cell := range links {
		for _, mode := range all {
			t.Run(cell.name+"/"+mode.name, netns.Twice(func(t *testing.T) (lost string) {
				l := netns.New(t, "tc")
				l.Sh(l.Sender, cell.command)
				r := newRig(t, mode.to, netns.ReceiverIP+":7514", func(address string) string { return address },
					func(f func()) { l.In(l.Receiver, f) }, func(f func()) { l.In(l.Sender, f) })
				r.send(events, 1)
				e, c := r.end()
				if err := c.Check(); err != nil {
					t.Error(err)
				}
				s, sent := c.Agents[0].Streams[0], e.Streams[0]
				if s.Announced == nil {
					t.Fatalf("no agent_stats arrived: %+v", s)
				}
				if *s.Announced != sent.Sent+refused(&sent) || s.Received+*s.Missing != sent.Sent || *s.RefusedBySender != refused(&sent) {
					t.Errorf("sent %d, refused %d; the collector says %+v", sent.Sent, refused(&sent), s)
				}
				if mode.name != "json" && *s.Missing > 0 {
					t.Errorf("%d missing of %d: a frame fits the path or is made anew", *s.Missing, sent.Sent)
				}
				if s.Ended != ledger.EndedGoodbye {
					t.Errorf("ended %s", s.Ended)
				}
				t.Logf("seen %d, sent %d in %d datagrams, dropped %s; received %d, missing %d", e.Seen, sent.Sent, sent.Datagrams, sent.Dropped.String(), s.Received, *s.Missing)
				return ""
			}))
		}
	}
}

// refused returns the drops of events that had a number.
func refused(s *ledger.Stream) uint64 {
	d := &s.Dropped
	return d[ledger.DestinationFull] + d[ledger.Refused] + d[ledger.NotPermitted] + d[ledger.TooLarge] + d[ledger.NoBuffers] + d[ledger.SendFailed] + d[ledger.Shutdown]
}

func netipAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
