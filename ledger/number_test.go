package ledger

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/big"
	"slices"
	"testing"
)

// bigRange is a run of numbers in arithmetic that cannot overflow.
type bigRange struct{ first, last *big.Int }

func bigOf(n uint64) *big.Int { return new(big.Int).SetUint64(n) }

var bigOne = big.NewInt(1)

// bigSet is the model of Ranges: runs in no order, apart from each other.
type bigSet []bigRange

// clip returns what of r is in 1 to MaxNumber, and whether there is any.
func clip(r Range) (bigRange, bool) {
	c := bigRange{bigOf(max(r.First, 1)), bigOf(min(r.Last, MaxNumber))}
	return c, c.first.Cmp(c.last) <= 0
}

func (r bigRange) count() *big.Int {
	n := new(big.Int).Sub(r.last, r.first)
	return n.Add(n, bigOne)
}

// in returns how many numbers of r are in the set.
func (s bigSet) in(r bigRange) *big.Int {
	n := new(big.Int)
	for _, run := range s {
		first, last := run.first, run.last
		if r.first.Cmp(first) > 0 {
			first = r.first
		}
		if r.last.Cmp(last) < 0 {
			last = r.last
		}
		if first.Cmp(last) <= 0 {
			n.Add(n, bigRange{first, last}.count())
		}
	}
	return n
}

// add returns how many numbers of r are new.
func (s *bigSet) add(r bigRange) *big.Int {
	added := new(big.Int).Sub(r.count(), s.in(r))
	first, last := r.first, r.last
	*s = slices.DeleteFunc(*s, func(run bigRange) bool {
		touches := new(big.Int).Sub(run.first, bigOne).Cmp(last) <= 0 && new(big.Int).Sub(first, bigOne).Cmp(run.last) <= 0
		if touches {
			if run.first.Cmp(first) < 0 {
				first = run.first
			}
			if run.last.Cmp(last) > 0 {
				last = run.last
			}
		}
		return touches
	})
	*s = append(*s, bigRange{first, last})
	return added
}

// bigAdmit is the model of Audit.Admit.
type bigAdmit struct {
	seen           map[uint64]bool
	newest, event  *big.Int
	ahead, aheadOf *big.Int // datagram and event; nil: none
}

func (m *bigAdmit) admit(datagram, event uint64, trusted bool) Verdict {
	far := func(newest *big.Int, n uint64) bool {
		return new(big.Int).Sub(bigOf(n), newest).Cmp(big.NewInt(JumpNumbers)) > 0
	}
	close := func(a, b *big.Int) bool {
		d := new(big.Int).Sub(a, b)
		return d.Abs(d).Cmp(big.NewInt(JumpNumbers)) <= 0
	}
	behind := new(big.Int).Sub(m.newest, bigOf(datagram))
	switch {
	case datagram == 0 || datagram > MaxNumber:
		return Jump
	case behind.Cmp(big.NewInt(WindowDatagrams)) >= 0:
		return Late
	case m.seen[datagram]:
		return Duplicate
	}
	if event > MaxNumber || !trusted && len(m.seen) > 0 && (far(m.newest, datagram) || far(m.event, event)) {
		agrees := m.ahead != nil && event <= MaxNumber && m.ahead.Cmp(bigOf(datagram)) != 0 && close(m.ahead, bigOf(datagram)) && close(m.aheadOf, bigOf(event))
		if !agrees {
			m.ahead, m.aheadOf = bigOf(datagram), bigOf(event)
			return Jump
		}
	}
	m.ahead = nil
	m.seen[datagram] = true
	if behind.Sign() < 0 {
		m.newest = bigOf(datagram)
	}
	if bigOf(event).Cmp(m.event) > 0 {
		m.event = bigOf(event)
	}
	return Fresh
}

// interesting are the numbers near which arithmetic goes wrong: those that once hung a
// collector are among them.
var interesting = []uint64{0, 1, 2, 1 << 16, 1<<48 - 1<<16, 1<<48 - 1, 1 << 48, 1 << 53, 1 << 62, 1<<62 + 1, 1<<63 - 1, 1 << 63,
	1<<63 + 7, 1<<63 + 8, math.MaxUint64 - 65536, math.MaxUint64 - 4096, math.MaxUint64 - 9, math.MaxUint64 - 8, math.MaxUint64}

// FuzzNumbers holds the arithmetic on numbers that strangers choose to a model that
// cannot overflow, over all of uint64: a step is a way to choose the number, and eight
// bytes of it.
func FuzzNumbers(f *testing.F) {
	var hang []byte // the eight datagrams, one after the other
	for _, n := range []uint64{math.MaxUint64, 1 << 62, 1<<62 + 1, 1<<63 + 7, 1<<63 + 8, math.MaxUint64 - 9, math.MaxUint64 - 8, math.MaxUint64} {
		hang = binary.BigEndian.AppendUint64(append(hang, 0), n)
	}
	f.Add(hang)
	f.Add(binary.BigEndian.AppendUint64([]byte{3}, 5))
	f.Fuzz(func(t *testing.T, in []byte) {
		var a Audit
		var set Ranges
		var model bigSet
		window := bigAdmit{seen: map[uint64]bool{}, newest: new(big.Int), event: new(big.Int)}
		last := uint64(0)
		for steps := 0; len(in) >= 9 && steps < 300; steps++ {
			how, n := in[0], binary.BigEndian.Uint64(in[1:])
			in = in[9:]
			switch how % 4 {
			case 1:
				n = last + n%131072 - 65536 // wraps around on purpose
			case 2:
				n = interesting[n%uint64(len(interesting))] + n>>8%5 - 2
			case 3:
				n = last + 1
			}
			last = n
			event, trusted := n, how&16 != 0
			if how&32 != 0 {
				event = n * 17
			}
			if got, want := a.Admit(n, event, trusted), window.admit(n, event, trusted); got != want {
				t.Fatalf("datagram %d, event %d, trusted %v, after %v, %v: verdict %d, want %d", n, event, trusted, window.newest, window.event, got, want)
			}
			r := Range{First: n, Last: n + uint64(how>>6)*uint64(how)}
			want, has := new(big.Int), false
			c, some := clip(r)
			if some {
				if holes := new(big.Int).Sub(c.count(), model.in(c)); bigOf(set.Holes(r)).Cmp(holes) != 0 && r.Last <= MaxNumber {
					t.Fatalf("%v: %d holes in %v, want %v", set.Runs, set.Holes(r), r, holes)
				}
				want = model.add(c)
			}
			if got := set.Add(r); bigOf(got).Cmp(want) != 0 {
				t.Fatalf("adding %v: %d new, want %v", r, got, want)
			}
			point := bigRange{bigOf(n), bigOf(n)}
			has = model.in(point).Sign() > 0
			if set.Has(n) != has {
				t.Fatalf("%v: Has(%d) = %v", set.Runs, n, set.Has(n))
			}
			if some {
				a.Announce(c.last.Uint64(), Sums{})
			}
			if added := a.Receive(r.First, r.Last-r.First+1); added > r.Count() {
				t.Fatalf("receiving %v: %d new", r, added)
			}
		}
		if all := model.in(bigRange{bigOne, bigOf(math.MaxUint64)}); bigOf(set.Count()).Cmp(all) != 0 {
			t.Fatalf("%v holds %d, want %v", set.Runs, set.Count(), all)
		}
		if err := set.Check(); err != nil {
			t.Fatal(err)
		}
		if g := a.Figures(); g.Received+g.Refused+g.Missing+g.Unknown != g.Announced || g.Announced > MaxNumber {
			t.Fatalf("%+v does not add up", g)
		}
	})
}

// FuzzMerge: accounts come from files. Whatever stands there, the union is an error or
// closes.
func FuzzMerge(f *testing.F) {
	killed := `{"side":"collector","killed_at":"2026-01-01T00:00:00Z"}`
	for _, stream := range []string{
		`"announced":null,"received":1,"missing":null,"refused_by_sender":null,"numbers":{"runs":[[1,1]]}`,
		`"announced":9,"received":1,"missing":8,"refused_by_sender":0,"numbers":{"runs":[[9,9]]},"blind_after":18446744073709551615`,
		`"announced":9,"received":1,"missing":8,"refused_by_sender":0,"numbers":{"runs":[[1,1]],"folded":{"through":18446744073709551615,"count":0}}`,
		`"announced":9,"received":1,"missing":8,"refused_by_sender":0,"numbers":{"runs":[[5,5]]},"unknown_numbers":{"runs":[[1,200]]}`,
	} {
		text := `{"side":"collector","received":1,"delivered":1,"agents":[{"hostname":"h","streams":[{"stream":"00000000000000aa","ended":"unknown",` + stream + `}]}]}`
		f.Add(text, killed)
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		var a, b Collector
		if json.Unmarshal([]byte(one), &a) != nil || json.Unmarshal([]byte(other), &b) != nil {
			return
		}
		total, err := Merge(a, b)
		if err == nil && total.Check() != nil {
			t.Fatalf("%s and %s: %v", one, other, total.Check())
		}
	})
}
