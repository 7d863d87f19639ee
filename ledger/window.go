package ledger

// WindowDatagrams is how far a datagram may come behind the newest one of its
// stream. A duplicate or a late one within the window is told apart; 512 bytes a
// stream.
const WindowDatagrams = 4096

// JumpDatagrams is the largest step of a stream that one datagram alone can
// make. A larger one waits until a second datagram agrees, so that one forged
// number cannot make a stream deaf for all that follows.
const JumpDatagrams = 65536

// Verdict says what a datagram's number tells about it.
type Verdict uint8

// The verdicts.
const (
	Fresh     Verdict = iota + 1 // not seen before
	Duplicate                    // seen before
	Late                         // behind the window: nobody knows whether it was seen
	Jump                         // too far ahead to be believed alone
)

// Window knows which of a stream's last datagrams came. Numbers are compared as
// in RFC 1982, so that they may wrap around. The zero value has seen nothing.
type Window struct {
	seen  bool
	last  uint64 // the newest number
	bits  [WindowDatagrams / 64]uint64
	ahead uint64 // the number of the last Jump; 0: none
}

// Admit says what the number tells, and notes it if it is Fresh. With trusted
// set no step is too large: the number was authenticated.
func (w *Window) Admit(n uint64, trusted bool) Verdict {
	if !w.seen {
		w.seen, w.last = true, n
		w.bits[n%WindowDatagrams/64] |= 1 << (n % 64)
		return Fresh
	}
	step := int64(n - w.last)
	switch {
	case step <= -WindowDatagrams:
		return Late
	case step <= 0:
		word, bit := &w.bits[n%WindowDatagrams/64], uint64(1)<<(n%64)
		if *word&bit != 0 {
			return Duplicate
		}
		*word |= bit
		return Fresh
	case step > JumpDatagrams && !trusted && !w.agrees(n):
		w.ahead = n
		return Jump
	}
	w.ahead = 0
	w.advance(n, uint64(step))
	return Fresh
}

// agrees says whether n is near the number that was too far ahead, but not the
// same datagram again.
func (w *Window) agrees(n uint64) bool {
	step := int64(n - w.ahead)
	return w.ahead != 0 && step != 0 && step <= JumpDatagrams && step >= -JumpDatagrams
}

// advance moves the window's end to n.
func (w *Window) advance(n, step uint64) {
	if step >= WindowDatagrams {
		clear(w.bits[:])
	} else {
		for i := w.last + 1; i != n; i++ {
			w.bits[i%WindowDatagrams/64] &^= 1 << (i % 64)
		}
	}
	w.last = n
	w.bits[n%WindowDatagrams/64] |= 1 << (n % 64)
}

// Newest returns the newest number, and false if nothing came yet.
func (w *Window) Newest() (uint64, bool) { return w.last, w.seen }

// Resume makes the window go on after n as if all up to n had been seen: what a
// collector knew before it was restarted.
func (w *Window) Resume(n uint64) {
	*w = Window{seen: true, last: n}
	for i := range w.bits {
		w.bits[i] = ^uint64(0)
	}
}
