package ledger

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// MaxRanges bounds the ranges of one stream: 32 KiB of memory. A stream has one
// range more than it has holes, and holes that are too old to be filled are
// folded into a sum when there are more.
const MaxRanges = 2048

// Range is a run of numbers, both ends included.
type Range struct {
	First, Last uint64
}

// Count returns how many numbers the range holds.
func (r Range) Count() uint64 { return r.Last - r.First + 1 }

// MarshalJSON writes the range as [first,last].
func (r Range) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d]", r.First, r.Last), nil
}

// UnmarshalJSON reads what MarshalJSON wrote. A range that ends before it begins
// is an error.
func (r *Range) UnmarshalJSON(text []byte) error {
	var ends [2]uint64
	if err := json.Unmarshal(text, &ends); err != nil {
		return fmt.Errorf("ledger: reading a range: %w", err)
	}
	if ends[0] > ends[1] || ends[0] == 0 || ends[1] > MaxNumber {
		return fmt.Errorf("ledger: reading a range: [%d,%d] is none: numbers are 1 to %d", ends[0], ends[1], uint64(MaxNumber))
	}
	r.First, r.Last = ends[0], ends[1]
	return nil
}

// Ranges is a set of event numbers, 1 to [MaxNumber], kept as runs: what one
// collector received of one stream. The zero value is the empty set.
//
// With more than MaxRanges runs the oldest become a sum: that many of the numbers
// up to Folded.Through are in the set, and nobody knows any more which. A count
// stays exact; a union with another set may not be.
type Ranges struct {
	Runs   []Range `json:"runs"` // ascending, apart from each other
	Folded Folded  `json:"folded"`
}

// Folded is the part of a set that is known as a sum only.
type Folded struct {
	Through uint64 `json:"through"` // the numbers 1 to Through; 0: nothing is folded
	Count   uint64 `json:"count"`   // so many of them are in the set
}

// Count returns how many numbers the set holds.
func (s *Ranges) Count() uint64 {
	n := s.Folded.Count
	for _, r := range s.Runs {
		n += r.Count()
	}
	return n
}

// Last returns the highest number of the set, or 0 if there is none.
func (s *Ranges) Last() uint64 {
	if n := len(s.Runs); n > 0 {
		return s.Runs[n-1].Last
	}
	return s.Folded.Through
}

// Check returns nil if the set is one that Add makes, and otherwise an error: it
// came from a file.
func (s *Ranges) Check() error {
	f := s.Folded
	if f.Through > MaxNumber || f.Count > f.Through {
		return fmt.Errorf("ledger: %d numbers folded up to %d", f.Count, f.Through)
	}
	if len(s.Runs) > MaxRanges {
		return fmt.Errorf("ledger: %d ranges, at most %d", len(s.Runs), MaxRanges)
	}
	last := f.Through
	for i, r := range s.Runs {
		if r.First <= last || r.First == last+1 && i > 0 || r.Last < r.First || r.Last > MaxNumber {
			return fmt.Errorf("ledger: range [%d,%d] after %d", r.First, r.Last, last)
		}
		last = r.Last
	}
	return nil
}

// Add puts the numbers of r into the set and returns how many of them were not
// in it before. Those that are folded count as having been there, and those above
// [MaxNumber] do not exist. It allocates only when the set grows, and returns 0 for
// a range that is none.
func (s *Ranges) Add(r Range) (added uint64) {
	r.First, r.Last = max(r.First, s.Folded.Through+1), min(r.Last, MaxNumber)
	if r.First > r.Last {
		return 0
	}
	// What comes in order touches the last run, or follows it.
	if n := len(s.Runs); n > 0 && r.First > s.Runs[n-1].Last {
		if r.First == s.Runs[n-1].Last+1 {
			s.Runs[n-1].Last = r.Last
			return r.Count()
		}
		s.Runs = append(s.Runs, r)
		s.fold()
		return r.Count()
	}
	// The runs from i to j-1 overlap r or touch it.
	i := s.from(r.First - 1)
	added = r.Count()
	j := i
	for ; j < len(s.Runs) && s.Runs[j].First-1 <= r.Last; j++ {
		added -= overlap(s.Runs[j], r)
		r.First, r.Last = min(r.First, s.Runs[j].First), max(r.Last, s.Runs[j].Last)
	}
	if j == i {
		s.Runs = slices.Insert(s.Runs, i, r)
	} else {
		s.Runs[i] = r
		s.Runs = slices.Delete(s.Runs, i+1, j)
	}
	s.fold()
	return added
}

// fold makes a sum of the oldest half of the runs when there are too many. Half,
// so that the copying is rare.
func (s *Ranges) fold() {
	if len(s.Runs) > MaxRanges {
		s.Fold(MaxRanges / 2)
	}
}

// Fold makes a sum of all runs but the newest ones, of which it keeps so many.
func (s *Ranges) Fold(keep int) {
	n := max(len(s.Runs)-keep, 0)
	for _, r := range s.Runs[:n] {
		s.Folded.Count += r.Count()
		s.Folded.Through = r.Last
	}
	s.Runs = slices.Clone(s.Runs[n:])
}

func overlap(a, b Range) uint64 {
	first, last := max(a.First, b.First), min(a.Last, b.Last)
	if first > last {
		return 0
	}
	return last - first + 1
}

// Has returns whether the number is in the set. For a folded number nobody knows;
// the answer is then true.
func (s *Ranges) Has(n uint64) bool {
	if n <= s.Folded.Through {
		return n > 0
	}
	i := s.from(n)
	return i < len(s.Runs) && s.Runs[i].First <= n
}

// Union adds the other set and returns how many numbers both had. It reports
// false, and leaves s as it was, if one has folded numbers of which the other
// knows some: the union is then unknown.
func (s *Ranges) Union(other *Ranges) (both uint64, ok bool) {
	switch {
	case other.Folded.Through > 0 && (s.Folded.Through > 0 || s.overlapsUpTo(other.Folded.Through)),
		s.Folded.Through > 0 && other.overlapsUpTo(s.Folded.Through):
		return 0, false
	case other.Folded.Through > 0:
		s.Folded = other.Folded
	}
	for _, r := range other.Runs {
		both += r.Count() - s.Add(r)
	}
	return both, true
}

// overlapsUpTo says whether the set knows a number up to n.
func (s *Ranges) overlapsUpTo(n uint64) bool {
	return len(s.Runs) > 0 && s.Runs[0].First <= n
}

// Clone returns a copy with memory of its own.
func (s *Ranges) Clone() Ranges {
	return Ranges{Runs: slices.Clone(s.Runs), Folded: s.Folded}
}

// Holes returns how many numbers of r are not in the set.
func (s *Ranges) Holes(r Range) uint64 {
	r.First = max(r.First, s.Folded.Through+1)
	if r.First > r.Last {
		return 0
	}
	holes := r.Count()
	for i := s.from(r.First); i < len(s.Runs) && s.Runs[i].First <= r.Last; i++ {
		holes -= overlap(s.Runs[i], r)
	}
	return holes
}

// from returns the first run that ends at n or behind it.
func (s *Ranges) from(n uint64) int {
	if last := len(s.Runs) - 1; last >= 0 && s.Runs[last].First <= n {
		if s.Runs[last].Last < n {
			return last + 1
		}
		return last
	}
	i, _ := slices.BinarySearchFunc(s.Runs, n, func(run Range, n uint64) int { return cmp.Compare(run.Last, n) })
	return i
}
