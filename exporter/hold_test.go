package exporter

import (
	"testing"
	"time"
)

// TestHold: few batches in an interval do not wait; many wait until it is over, from
// the first of a busy time on, and none longer.
func TestHold(t *testing.T) {
	f := func(gap time.Duration, batches, wantLeast, wantMost int) {
		t.Helper()
		h := hold{interval: 5 * time.Millisecond}
		now, times, oldest := time.Unix(1, 0), 0, time.Time{}
		for number := uint64(1); number <= uint64(batches); number++ {
			if oldest.IsZero() {
				oldest = now
			}
			if h.over(now, number) {
				if waited := now.Sub(oldest); waited > h.interval+gap {
					t.Errorf("%v between batches: waited %v", gap, waited)
				}
				h.let, oldest = now, time.Time{}
				times++
			}
			now = now.Add(gap)
		}
		if times < wantLeast || times > wantMost {
			t.Errorf("%d batches, %v between them: let go %d times, want %d to %d", batches, gap, times, wantLeast, wantMost)
		}
	}
	f(time.Second, 100, 100, 100)
	f(time.Millisecond, 1000, 1000, 1000)
	f(100*time.Microsecond, 1000, 20, 40) // 100 ms
	f(time.Microsecond, 10_000, 2, 20)    // 10 ms
}
