package exporter

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
)

// killed copies what a process that is killed now leaves, and returns the copy's path.
func killed(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "counters")
	if err := os.WriteFile(left, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return left
}

// unreachable is a configuration whose only destination has no address yet.
func unreachable(path string) Config {
	return Config{Destinations: []Destination{{Address: "not-yet.invalid:7514"}}, CountersFile: path}
}

// TestChainOfKills: processes that are killed before they reach their destination,
// each after it took some events. The first one that reaches it tells of each, and
// then of none; of those beyond maxPredecessors it tells the sum.
func TestChainOfKills(t *testing.T) {
	for _, chain := range []int{1, 3, maxPredecessors + 7} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "counters")
			want := map[string]uint64{} // seen, by stream
			for i := range chain {
				e, err := NewUDPExporter(unreachable(path))
				if err != nil {
					t.Fatal(err)
				}
				if err := e.SendBatch(wires(0, 1+i)); err != nil {
					t.Fatal(err)
				}
				want[check(t, e).Streams[0].Stream] = uint64(1 + i)
				path = killed(t, path)
				_ = e.Close()
			}
			// One that saw nothing and said nothing is not worth a word.
			e, err := NewUDPExporter(unreachable(path))
			if err != nil {
				t.Fatal(err)
			}
			path = killed(t, path)
			_ = e.Close()

			var socket fakeSocket
			last := newTestExporter(t, Config{CountersFile: path, StatsInterval: time.Hour}, &socket)
			stop := start(t, last)
			if err := last.SendWire(wire(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			told := map[string]int{}
			var seen, streams uint64
			for _, s := range socket.stats(t) {
				if told[s.Stream]++; told[s.Stream] > 1 {
					continue
				}
				seen += s.Seen
				streams += max(1, s.Streams)
				if s.Dropped["killed"] != s.Seen || s.Sent != 0 || s.LastNumber != 0 || !s.Goodbye || s.ReportedBy == "" {
					t.Errorf("%+v", s)
				}
				if s.Streams == 0 && s.Seen != want[s.Stream] {
					t.Errorf("stream %s saw %d, want %d", s.Stream, s.Seen, want[s.Stream])
				}
			}
			for stream, times := range told {
				if times != goodbyes {
					t.Errorf("stream %q was told of %d times, want %d", stream, times, goodbyes)
				}
			}
			if want := uint64(chain * (chain + 1) / 2); seen != want || streams != uint64(chain) || len(told) != min(chain, maxPredecessors) {
				t.Errorf("told of %d streams in %d reports with %d events, want %d and %d", streams, len(told), seen, chain, want)
			}
			next := killed(t, path)
			stop()
			after := newTestExporter(t, Config{CountersFile: next}, &fakeSocket{})
			if p := after.worker.streams[0].predecessors; len(p) != 1 || streamIDText(p[0].Stream) != check(t, last).Streams[0].Stream {
				t.Errorf("%d streams to tell of, want the last one's alone", len(p))
			}
		})
	}
}

// TestPredecessorOfTwoDestinations: each collector is told of the stream that it may
// have heard of, and another one is told if the destination is not configured any
// more. It is kept until it was told.
func TestPredecessorOfTwoDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counters")
		var one, two fakeSocket
		first := newTestExporter(t, Config{CountersFile: path}, &one, &two)
		if err := first.SendBatch(wires(0, 3)); err != nil {
			t.Fatal(err)
		}
		path = killed(t, path)
		var ids []string
		for _, s := range check(t, first).Streams {
			ids = append(ids, s.Stream)
		}
		two.setFail(func(int) error { return &udp.SendError{Class: udp.ErrUnreachable} })
		one, two.taken = fakeSocket{}, nil
		second := newTestExporter(t, Config{CountersFile: path, StatsInterval: time.Hour}, &one, &two)
		stop := start(t, second)
		if err := second.SendWire(wire(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if all := one.stats(t); len(all) != goodbyes || all[0].Stream != ids[0] {
			t.Errorf("the first destination was told %d times", len(all))
		}
		path = killed(t, path)
		stop()
		var alone fakeSocket
		third := newTestExporter(t, Config{CountersFile: path, StatsInterval: time.Hour, Destinations: []Destination{{Address: "127.0.0.1:41000"}}}, &alone)
		for _, p := range third.worker.streams[0].predecessors {
			if id := streamIDText(p.Stream); id == ids[0] {
				t.Errorf("stream %s is told of again", id)
			} else if id == ids[1] {
				return
			}
		}
		t.Errorf("nobody tells of stream %s", ids[1])
	})
}

// TestDamagedPage: of a page that cannot be read, or whose intake is damaged, nothing
// is told, and least of all that nothing was seen.
func TestDamagedPage(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"intake":             func(text []byte) []byte { text[1024] ^= 1; return text },
		"earlier release":    func(text []byte) []byte { return append([]byte("tcstate1"), text[8:]...) },
		"empty":              func([]byte) []byte { return nil },
		"header":             func(text []byte) []byte { text[9] ^= 1; return text },
		"all but the header": func(text []byte) []byte { clear(text[1024:]); return text },
	} {
		path := filepath.Join(t.TempDir(), "counters")
		first := newTestExporter(t, Config{CountersFile: path}, &fakeSocket{})
		if err := first.SendBatch(wires(0, 3)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+"2", damage(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		second := newTestExporter(t, Config{CountersFile: path + "2", Logger: testLogger(&log)}, &fakeSocket{})
		if n := len(second.worker.streams[0].predecessors); n != 0 {
			t.Errorf("%s: %d streams are told of", name, n)
		}
		if gap, known := second.Gap(); known {
			t.Errorf("%s: the gap is said to be %v", name, gap)
		}
		if !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("%s: nothing in the log", name)
		}
		if _, err := os.Stat(path + "2.unreadable"); (err == nil) != (name != "intake" && name != "all but the header") {
			t.Errorf("%s: set aside: %v", name, err)
		}
	}
}

// TestGap: the successor's blind time begins where its predecessor last counted,
// however that ended, and nothing of a chain that never subscribed is lost.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		real := monotonicClock
		monotonicClock = func() time.Duration { return time.Since(began) + time.Hour }
		defer func() { monotonicClock = real }()
		path := filepath.Join(t.TempDir(), "counters")
		blind := time.Duration(0)
		config := func() Config {
			return Config{CountersFile: path, StatsInterval: time.Hour, Upstream: func() Upstream { return Upstream{BlindTime: blind} }}
		}
		want := func(e *UDPExporter, gap time.Duration) {
			t.Helper()
			if got, known := e.Gap(); got != gap || !known {
				t.Errorf("a gap of %v, %v; want %v", got, known, gap)
			}
		}
		e := newTestExporter(t, config(), &fakeSocket{})
		want(e, 0)
		e.SetTetragon(Tetragon{Version: "v1"})
		stop := start(t, e)
		time.Sleep(10 * time.Second)
		event := func(age time.Duration) []byte {
			b, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: "n", Time: timestamppb.New(time.Now().Add(-age))})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		_ = e.SendWire(event(300 * time.Millisecond)) // more such were on their way
		stop()
		time.Sleep(2 * time.Second)
		e = newTestExporter(t, config(), &fakeSocket{})
		want(e, 2340*time.Millisecond)
		// Killed, before it was subscribed and said anything; so is the next.
		blind, _ = e.Gap()
		path = killed(t, path)
		time.Sleep(3 * time.Second)
		e = newTestExporter(t, config(), &fakeSocket{})
		want(e, 5340*time.Millisecond)
		blind, _ = e.Gap()
		path = killed(t, path)
		time.Sleep(time.Second)
		e = newTestExporter(t, config(), &fakeSocket{})
		want(e, 6340*time.Millisecond)
		// This one subscribes, is quiet for long, and is killed.
		blind, _ = e.Gap()
		e.SetTetragon(Tetragon{Version: "v1"})
		_ = e.SendWire(event(24 * time.Hour)) // a recording's
		path = killed(t, path)
		time.Sleep(time.Second)
		next := newTestExporter(t, config(), &fakeSocket{})
		want(next, time.Second)
		if p := next.worker.streams[0].predecessors; len(p) != 1 || p[0].Before.BlindTime != 6340*time.Millisecond {
			t.Errorf("the killed one's own blind time is not told: %d", len(p))
		}
	})
}

// TestUnsent compares with a plain list of numbers.
func TestUnsent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		u, last := unsent{next: 1}, uint64(0)
		var model []uint64
		for range 100 {
			n := uint64(random.IntN(5))
			switch random.IntN(3) {
			case 0: // packed
				for range n {
					last++
					model = append(model, last)
				}
			case 1:
				n = min(n, uint64(len(model)))
				u.pass(n)
				model = model[n:]
			case 2: // behind those, nothing was refused before
				if len(u.refused) > 0 && len(model) > 0 && model[len(model)-1] < u.refused[len(u.refused)-1].Last {
					continue
				}
				first := uint64(0)
				for first < uint64(len(model)) && len(u.refused) > 0 && model[first] < u.refused[len(u.refused)-1].Last {
					first++
				}
				first += uint64(random.IntN(1 + len(model) - int(first)))
				n = min(n, uint64(len(model))-first)
				u.refuse(first, n)
				model = append(model[:first:first], model[first+n:]...)
			}
			for i, number := range model {
				if got := u.at(uint64(i + 1)); got != number {
					t.Fatalf("unsent number %d is %d, want %d; %+v", i, got, number, u)
				}
				if got := u.upTo(number); got != uint64(i+1) {
					t.Fatalf("%d unsent up to %d, want %d; %+v", got, number, i+1, u)
				}
			}
		}
	}
}

// TestKilledInACall: the process is killed inside a call that has taken some of its
// datagrams, or before or after it, while the destination takes some, waits, and
// refuses others. What its successor tells and what came add up, without a rest: each
// event was sent, dropped for a reason, or killed; and what was sent came.
func TestKilledInACall(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) { killedInACall(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func killedInACall(t *testing.T, random *rand.Rand) {
	path := filepath.Join(t.TempDir(), "counters")
	socket := &killingSocket{random: rand.New(rand.NewPCG(random.Uint64(), 0)), kill: 1 + random.IntN(300), killNow: func() string { return killed(t, path) }}
	e, err := NewUDPExporter(Config{CountersFile: path, StatsInterval: -1, QueueBytes: 20_000,
		Destinations: []Destination{{Address: "127.0.0.1:40000", Format: "json", JSONSequence: true, QueueBytes: 3000, DropOldest: random.IntN(2) == 0}}})
	if err != nil {
		t.Fatal(err)
	}
	s := e.worker.streams[0]
	_ = s.conn.Close()
	s.conn = socket
	stop := start(t, e)
	for !socket.ended() {
		_ = e.SendBatch(wires(0, 1+random.IntN(60)))
		if random.IntN(3) == 0 {
			time.Sleep(time.Millisecond)
		}
		if random.IntN(100) == 0 {
			socket.end() // between two calls
		}
	}
	stop()
	left, err := ledger.ReadPage(socket.left)
	if err != nil {
		t.Fatal(err)
	}
	c := left[streamSlot]
	c.Perish(&left[intakeSlot])
	var audit ledger.Audit
	for _, number := range socket.numbers {
		audit.Announce(number, ledger.Sums{})
		audit.Receive(number, 1)
	}
	audit.Offered = c.Offered
	stats := s.statsOf(&c, &intake{}, time.Now())
	audit.Announce(c.LastNumber, stats.Sums())
	f := audit.Figures()
	sent := c.Sent + f.Sent
	if f.Received+f.Missing != sent || f.Missing != 0 || f.Received != uint64(len(socket.numbers)) {
		t.Errorf("received %d + missing %d, sent %d + %d of %+v; the socket took %d", f.Received, f.Missing, c.Sent, f.Sent, c.Offered, len(socket.numbers))
	}
	if found := sent + c.Dropped.Total() - f.Sent + c.Excluded; found != c.Seen {
		t.Errorf("seen %d, found %d: %+v", c.Seen, found, c)
	}
}

// killingSocket takes what it likes, and copies the page in the middle of it.
type killingSocket struct {
	mu      sync.Mutex
	random  *rand.Rand
	kill    int // so many datagrams before the end
	killNow func() string
	left    string   // the page of then
	numbers []uint64 // that were taken before
}

func (k *killingSocket) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.endLocked()
}

func (k *killingSocket) endLocked() {
	if k.left == "" {
		k.left = k.killNow()
	}
}

func (k *killingSocket) ended() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.left != ""
}

func (k *killingSocket) Send(datagrams [][]byte) (sent int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range datagrams {
		if k.left != "" {
			return len(datagrams), nil
		}
		if k.kill--; k.kill == 0 {
			k.endLocked()
			return len(datagrams), nil
		}
		switch k.random.IntN(40) {
		case 0:
			return sent, &udp.SendError{Class: udp.ErrWouldBlock}
		case 1:
			return sent, &udp.SendError{Class: udp.ErrNotPermitted}
		}
		if p, err := datagram.UnpackJSON(d); err == nil && p.Mark.Number > 0 {
			k.numbers = append(k.numbers, p.Mark.Number)
		}
		sent++
	}
	return sent, nil
}

func (k *killingSocket) SendParts([][]byte) error { return nil }
func (k *killingSocket) Close() error             { return nil }

func BenchmarkSendWithPage(b *testing.B) {
	for _, path := range []string{"", "counters"} {
		if path != "" {
			path = filepath.Join(b.TempDir(), path)
		}
		e, err := NewUDPExporter(Config{CountersFile: path, Destinations: []Destination{{Address: "127.0.0.1:40000"}}})
		if err != nil {
			b.Fatal(err)
		}
		e.worker.streams[0].conn = discard{}
		event := wires(0, 1)
		b.Run(fmt.Sprintf("page=%v", path != ""), func(b *testing.B) {
			for b.Loop() {
				_ = e.SendBatch(event)
			}
		})
		_ = e.Close()
	}
}
