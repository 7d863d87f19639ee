package ledger

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestRanges holds a set of ranges to a plain map of its numbers.
func TestRanges(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s Ranges
		truth := map[uint64]bool{}
		for range 100 {
			first := 1 + random.Uint64N(300)
			r := Range{First: first, Last: first + random.Uint64N(8)}
			var want uint64
			for n := r.First; n <= r.Last; n++ {
				if !truth[n] {
					truth[n] = true
					want++
				}
			}
			if added := s.Add(r); added != want {
				t.Fatalf("adding %v to %v: %d new, want %d", r, s.Runs, added, want)
			}
		}
		if s.Count() != uint64(len(truth)) {
			t.Fatalf("%v holds %d, want %d", s.Runs, s.Count(), len(truth))
		}
		for i, r := range s.Runs {
			if i > 0 && r.First <= s.Runs[i-1].Last+1 || r.First > r.Last {
				t.Fatalf("%v: run %d is not apart", s.Runs, i)
			}
		}
		var holes uint64
		for n := uint64(1); n <= 310; n++ {
			if s.Has(n) != truth[n] {
				t.Fatalf("%v: Has(%d) = %v", s.Runs, n, s.Has(n))
			}
			if !truth[n] {
				holes++
			}
		}
		if got := s.Holes(Range{1, 310}); got != holes {
			t.Fatalf("%v: %d holes, want %d", s.Runs, got, holes)
		}
	}
}

// TestRangesFold: with too many holes the count stays exact and memory bounded.
func TestRangesFold(t *testing.T) {
	var s Ranges
	const n = 10 * MaxRanges
	for i := uint64(1); i <= 2*n; i += 2 {
		if s.Add(Range{i, i}) != 1 {
			t.Fatalf("%d is not new", i)
		}
	}
	if s.Count() != n || len(s.Runs) > MaxRanges || s.Last() != 2*n-1 {
		t.Errorf("count %d, runs %d, last %d", s.Count(), len(s.Runs), s.Last())
	}
	if s.Add(Range{2, 2}) != 0 {
		t.Error("a folded number counts as new")
	}
	other := Ranges{Runs: []Range{{2, 2}}}
	if _, ok := s.Union(&other); ok {
		t.Error("a union with folded numbers claims to be known")
	}
	if got := (&Ranges{}).Add(Range{5, 4}); got != 0 {
		t.Errorf("a range that is none adds %d", got)
	}
	top := Ranges{}
	if top.Add(Range{MaxNumber - 2, math.MaxUint64}) != 3 || top.Add(Range{math.MaxUint64, math.MaxUint64}) != 0 || top.Count() != 3 {
		t.Errorf("at the end of the numbers: %v", top.Runs)
	}
}

// TestAdmit at the beginning, in the middle and at the end of the numbers.
func TestAdmit(t *testing.T) {
	for _, start := range []uint64{1, 1 << 40, MaxNumber - 1<<41} {
		var a Audit
		f := func(step uint64, trusted bool, want Verdict) {
			t.Helper()
			if got := a.Admit(start+step, start+step, trusted); got != want {
				t.Errorf("from %d, number %+d: verdict %d, want %d", start, step, got, want)
			}
		}
		f(0, false, Fresh)
		f(0, false, Duplicate)
		f(20, false, Fresh)
		f(3, false, Fresh)
		f(3, false, Duplicate)
		f(20, false, Duplicate)
		f(WindowDatagrams, false, Fresh)
		f(0, false, Late)
		f(3, false, Duplicate)
		f(4, false, Fresh)
		f(5000+JumpNumbers, false, Jump)
		f(5000+JumpNumbers, false, Jump)   // itself again is no witness
		f(WindowDatagrams+1, false, Fresh) // the stream goes on
		f(5000+JumpNumbers, false, Jump)
		f(5002+JumpNumbers, false, Fresh) // the second witness
		f(5000+JumpNumbers, false, Fresh) // so the first one counts
		f(WindowDatagrams+2, false, Late)
		f(1<<40, true, Fresh) // authenticated: no witness needed
	}
}

// TestLeapOfEvents: a datagram in order that numbers events far ahead waits, too, and
// so does an agent_stats that announces them.
func TestLeapOfEvents(t *testing.T) {
	var a Audit
	f := func(datagram, event uint64, want Verdict) {
		t.Helper()
		if got := a.Admit(datagram, event, false); got != want {
			t.Errorf("datagram %d, event %d: verdict %d, want %d", datagram, event, got, want)
		}
	}
	f(1, 17, Fresh)
	f(2, 34, Fresh)
	f(3, 35+JumpNumbers, Jump)
	f(3, 51, Fresh)
	f(4, 52+JumpNumbers, Jump)
	f(5, 54+JumpNumbers, Fresh)
	f(4, 52+JumpNumbers, Fresh)
	if a.Claim(60+2*JumpNumbers, false) || a.Claim(1<<40, false) || !a.Claim(1<<40, false) || a.Claim(MaxNumber+1, true) {
		t.Error("an agent_stats is believed alone, or is not with a witness, or is beyond the numbers")
	}
	if !a.Claim(MaxNumber, true) {
		t.Error("an authenticated agent_stats is not believed")
	}
}

// TestAudit: an audit's figures are the truth of a network that loses,
// duplicates and reorders, and of a sender that refuses.
func TestAudit(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		type frame struct{ datagram, first, count, refused uint64 }
		var frames []frame
		var next, refused uint64 = 1, 0
		for i := uint64(1); i <= 3000; i++ {
			f := frame{datagram: i, first: next, count: 1 + random.Uint64N(20), refused: refused}
			next += f.count
			if random.IntN(50) == 0 {
				refused += f.count
				continue
			}
			frames = append(frames, f)
		}
		var a Audit
		var lost, arrived, again uint64
		take := func(f frame) {
			switch a.Admit(f.datagram, f.first+f.count-1, false) {
			case Fresh:
				a.Announce(f.first+f.count-1, Sums{Refused: f.refused})
				a.Receive(f.first, f.count)
			case Duplicate:
				a.Duplicates += f.count
			default:
				t.Fatalf("datagram %d is late or a jump", f.datagram)
			}
		}
		var held []frame
		for _, f := range frames {
			switch random.IntN(10) {
			case 0:
				lost += f.count
				continue
			case 1:
				again += f.count
				held = append(held, f)
			case 2:
				held = append(held, f)
				arrived += f.count
				continue
			}
			arrived += f.count
			take(f)
			if len(held) > 20 {
				for _, f := range held {
					take(f)
				}
				held = held[:0]
			}
		}
		for _, f := range held {
			take(f)
		}
		a.Announce(next-1, Sums{Refused: refused}) // the goodbye
		got := a.Figures()
		want := Figures{Announced: next - 1, Received: arrived, Refused: refused, Missing: lost}
		if got != want || a.Duplicates != again {
			t.Fatalf("%+v, %d duplicates; want %+v, %d", got, a.Duplicates, want, again)
		}
	}
}

// TestKilled: what may have come before a kill is unknown, not missing.
func TestKilled(t *testing.T) {
	var a Audit
	a.Announce(100, Sums{})
	a.Receive(1, 100)
	a.Blind = true
	a.Announce(150, Sums{}) // a datagram with 141 to 150
	a.Receive(141, 10)
	a.Announce(170, Sums{}) // 161 to 170
	a.Receive(161, 10)
	if got, want := a.Figures(), (Figures{Announced: 170, Received: 120, Missing: 10, Unknown: 40}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	a.Receive(120, 5)
	if got := a.Figures(); got.Unknown != 35 {
		t.Errorf("%d unknown after 5 of them came, want 35", got.Unknown)
	}
}

func TestNet(t *testing.T) {
	var n Net
	if _, ok := n.Figures(); ok {
		t.Error("figures before any agent_stats")
	}
	n.Received = 90
	n.Announce(&AgentStats{LastNumber: 105, Refused: 5})
	n.Received = 95
	f, ok := n.Figures()
	if want := (Figures{Announced: 110, Received: 95, Refused: 5, Missing: 10}); !ok || f != want {
		t.Errorf("%+v, want %+v", f, want)
	}
	n.Announce(&AgentStats{LastNumber: 100}) // overtaken
	n.Announce(&AgentStats{LastNumber: 107, Refused: 5, Goodbye: true})
	n.Received++ // overtaken by the goodbye
	f, ok = n.Figures()
	if want := (Figures{Announced: 107, Received: 96, Refused: 5, Missing: 6}); !ok || f != want {
		t.Errorf("%+v, want %+v", f, want)
	}
	n.Received += 20
	if _, ok = n.Figures(); ok {
		t.Error("figures although more came than was sent")
	}
}

// TestMerge: streams that moved between three collectors.
func TestMerge(t *testing.T) {
	part := func(hostname string, runs []Range, announced uint64, goodbye bool) Collector {
		a := Audit{Goodbye: goodbye}
		for _, r := range runs {
			a.Receive(r.First, r.Count())
		}
		a.Announce(announced, Sums{Seen: announced, Refused: 3})
		c := Collector{Side: "collector", Received: a.Received.Count(), Delivered: a.Received.Count(),
			Agents: []Agent{{Hostname: hostname, Streams: []AgentStream{a.Stream("00")}}}}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(c) // as it is in a file
		if err != nil {
			t.Fatal(err)
		}
		c = Collector{}
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	got, err := Merge(
		part("", []Range{{11, 20}, {31, 40}}, 40, false),
		part("node", []Range{{1, 10}, {35, 60}}, 60, false),
		part("node", []Range{{80, 100}}, 105, true))
	if err != nil {
		t.Fatal(err)
	}
	s := got.Agents[0].Streams[0]
	// 21-30, 61-79 and 101-105 came nowhere: 34, of which the sender refused 3.
	if len(got.Agents) != 1 || got.Agents[0].Hostname != "node" || s.Received != 71 || *s.Missing != 31 || *s.RefusedBySender != 3 ||
		got.Overlap != 6 || got.Received != 77 || got.Closes == nil || !*got.Closes {
		t.Errorf("%+v, missing %d", got, *s.Missing)
	}
	if _, err := Merge(Collector{Received: 1}); err == nil {
		t.Error("an account that does not close was united")
	}
}

func TestMergeFolded(t *testing.T) {
	var a, b Audit
	for n := uint64(1); n < 3*MaxRanges; n += 2 {
		a.Receive(n, 1)
	}
	b.Receive(2, 1)
	f := func(a *Audit) Collector {
		n := a.Received.Count()
		return Collector{Received: n, Delivered: n, Agents: []Agent{{Streams: []AgentStream{a.Stream("00")}}}}
	}
	if _, err := Merge(f(&a), f(&b)); !errors.Is(err, ErrNoUnion) {
		t.Errorf("%v, want ErrNoUnion", err)
	}
}

func TestAgentStats(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n := uint64(4)
	s := AgentStats{Timestamp: at, Event: EventAgentStats, Stream: "00000000000000ff", Hostname: "node-1", ClusterName: "demo", StartedAt: at,
		UptimeSeconds: 1, Seen: 10, Excluded: 1, Dropped: map[string]uint64{"refused": 2, "oversize": 1}, Refused: 2, LastNumber: 8, Sent: 6,
		Datagrams: 7, Upstream: map[string]*uint64{"bpf_missed": nil, "ring_buffer": &n}, Goodbye: true}
	want := `{"@timestamp":"2026-01-02T03:04:05Z","event":"agent_stats","stream":"00000000000000ff","hostname":"node-1","cluster_name":"demo",` +
		`"started_at":"2026-01-02T03:04:05Z","uptime_seconds":1,"seen":10,"excluded":1,"dropped":{"oversize":1,"refused":2},"refused":2,"last_number":8,` +
		`"sent":6,"datagrams":7,"truncated":0,"icmp_answers":null,"subscription_breaks":0,"blind_ms":null,"upstream":{"bpf_missed":null,"ring_buffer":4},"goodbye":true}`
	text := s.AppendJSON(nil)
	if string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	back, err := ReadAgentStats(text)
	if err != nil || back.LastNumber != 8 || *back.Upstream["ring_buffer"] != 4 || back.Sums() != (Sums{Seen: 10, Excluded: 1, Dropped: 1, Refused: 2}) {
		t.Errorf("%+v, %v", back, err)
	}
	if _, err := ReadAgentStats([]byte(`{"event":"agent_init"}`)); err == nil {
		t.Error("an agent_init was read as agent_stats")
	}
}

// FuzzAudit: whatever numbers come, in whatever order, the figures add up and
// memory is bounded.
func FuzzAudit(f *testing.F) {
	f.Add([]byte{1, 1, 2, 2, 3, 1, 9, 9, 255, 255, 7, 0})
	f.Add([]byte{0, 1, 128, 2, 255, 3, 64, 4, 1, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var a Audit
		var first uint64 = 1
		for datagram := uint64(math.MaxUint64 - 5); len(in) >= 2; in = in[2:] {
			datagram += uint64(int64(int8(in[0]))) << (in[1] % 16)
			first += uint64(int64(int8(in[0]))) * uint64(in[1])
			count := uint64(in[1])
			switch in[1] % 7 {
			case 0:
				a.Blind = true
			case 1:
				if a.Claim(first, false) {
					a.Announce(first, Sums{Refused: uint64(in[0])})
				}
			}
			if a.Admit(datagram, first+count-1, in[1]%2 == 0) == Fresh {
				a.Announce(first+count-1, Sums{})
				a.Receive(first, count)
			}
		}
		g := a.Figures()
		if g.Received+g.Refused+g.Missing+g.Unknown != g.Announced {
			t.Fatalf("%+v does not add up", g)
		}
		if len(a.Received.Runs) > MaxRanges {
			t.Fatalf("%d runs", len(a.Received.Runs))
		}
		text, err := json.Marshal(a.Stream("00"))
		if err != nil {
			t.Fatal(err)
		}
		var back AgentStream
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	})
}
