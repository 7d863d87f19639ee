package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Away is how often, and for how long in all, a host had no stream: from the last that
// came of its earlier streams, the goodbye perhaps, to the first of the next, by the
// collector's clock. Nobody counts what happens there meanwhile. The zero value is
// never.
type Away struct {
	Times uint64 `json:"times"`
	MS    uint64 `json:"ms"` // milliseconds
}

// Note adds the time from the last that was heard of a host to a stream that was new
// then; if that began before, the host was not away.
func (a *Away) Note(last, began time.Time) {
	if d := began.Sub(last); d > 0 && !last.IsZero() {
		a.Times++
		a.MS += uint64(d.Milliseconds())
	}
}

// Add adds that of another host.
func (a *Away) Add(other Away) {
	a.Times += other.Times
	a.MS += other.MS
}

// String returns "2x 4.21s", or "0".
func (a Away) String() string {
	if a.Times == 0 {
		return "0"
	}
	return fmt.Sprintf("%dx %v", a.Times, time.Duration(a.MS)*time.Millisecond)
}

// Heard is when something new came of a stream first and last, by a collector's
// clock.
type Heard struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// awayOf returns the times in which none of the streams was heard, of those that say
// when they were.
func awayOf(streams []AgentStream) (away Away) {
	var all []Heard
	for i := range streams {
		if h := streams[i].Heard; h != nil {
			all = append(all, *h)
		}
	}
	slices.SortFunc(all, func(a, b Heard) int { return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) })
	var last time.Time
	for _, h := range all {
		away.Note(last, h.First)
		if h.Last.After(last) {
			last = h.Last
		}
	}
	return away
}

// heardBoth returns when a stream was heard that two collectors heard.
func heardBoth(a, b *Heard) *Heard {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	both := *a
	if b.First.Before(both.First) {
		both.First = b.First
	}
	if b.Last.After(both.Last) {
		both.Last = b.Last
	}
	return &both
}
