package filetail

import (
	"slices"
	"time"
)

// Stats counts what a tail met.
type Stats struct {
	TooLong     uint64 // lines of more than MaxLineBytes
	RateLimited uint64 // events that Tetragon says it left out, in rate_limit_info
	Rotations   uint64 // names that went to another file
	Truncations uint64 // files that were written anew: what was written in between is lost
	Missing     uint64 // files that were to be read on, and are gone or damaged
	// Blind is how long what was written to such files went unread, as far as is known.
	Blind time.Duration
	// Lost are the latest of these files, at most maxLost.
	Lost []Lost
	// MayRepeat: the previous run did not end in order; events that it had sent behind
	// its last checkpoint are sent again.
	MayRepeat bool
	Files     int // held open
	// Problem is why nothing, or not all, can be read; nil: all can.
	Problem error
}

// Cause says why a file was not read to its end.
type Cause string

// The causes.
const (
	CauseGone      Cause = "gone"      // deleted, with what was rotated after it perhaps
	CauseTruncated Cause = "truncated" // made shorter, or written anew
	CauseDamaged   Cause = "damaged"   // a compressed file without a proper end
)

// Lost is a file that was not read to its end. How many lines that were, nobody knows.
type Lost struct {
	Path   string // where it was seen last
	Offset int64  // in bytes, up to which it was read
	Cause  Cause
	Next   string // the next file that was there; empty: none, or it has no gap behind it
}

// maxLost bounds the list.
const maxLost = 64

// Stats returns the counts so far. It may be called at any time.
func (t *Tail) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Lost = slices.Clone(s.Lost)
	return s
}

func (t *Tail) count(f func(*Stats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.stats)
}

// lost notes a file that was read last at that time; zero: in the previous run.
func (t *Tail) lost(l Lost, read time.Time) {
	if read.IsZero() {
		read = t.loadedAt
	}
	t.count(func(s *Stats) {
		if len(s.Lost) == maxLost {
			s.Lost = s.Lost[1:]
		}
		s.Lost = append(s.Lost, l)
		if now := time.Now(); !read.IsZero() && read.After(t.blindUntil) && read.Before(now) {
			s.Blind += now.Sub(read)
		} else if !t.blindUntil.IsZero() && t.blindUntil.Before(now) {
			s.Blind += now.Sub(t.blindUntil)
		}
		t.blindUntil = time.Now()
	})
}
