package ledger

// WindowDatagrams is how far a datagram may come behind the newest one of its
// stream. A duplicate or a late one within the window is told apart; 512 bytes a
// stream.
const WindowDatagrams = 4096

// Verdict says what a datagram's number tells about it.
type Verdict uint8

// The verdicts.
const (
	Fresh     Verdict = iota + 1 // not seen before
	Duplicate                    // seen before
	Late                         // behind the window: nobody knows whether it was seen
	Jump                         // too far ahead to be believed alone, or no number
)

// Window knows which of a stream's last datagrams came. The zero value has seen
// nothing. Its numbers are 1 to [MaxNumber]; they do not wrap around.
type Window struct {
	last uint64 // the newest number; 0: nothing came
	bits [WindowDatagrams / 64]uint64
}

// look says what the number tells, a jump aside, and notes nothing.
func (w *Window) look(n uint64) Verdict {
	switch {
	case n == 0 || n > MaxNumber:
		return Jump
	case n > w.last:
		return Fresh
	case w.last-n >= WindowDatagrams:
		return Late
	case w.bits[n%WindowDatagrams/64]&(1<<(n%64)) != 0:
		return Duplicate
	}
	return Fresh
}

// Admit says what the number tells, and notes it if it is Fresh, however far
// ahead it is; see [Audit.Admit].
func (w *Window) Admit(n uint64) Verdict {
	v := w.look(n)
	if v != Fresh {
		return v
	}
	if n > w.last {
		w.advance(n)
	}
	w.bits[n%WindowDatagrams/64] |= 1 << (n % 64)
	return Fresh
}

// advance moves the window's end to n.
func (w *Window) advance(n uint64) {
	if w.last == 0 || n-w.last >= WindowDatagrams {
		clear(w.bits[:])
	} else {
		for i := w.last + 1; i < n; i++ {
			w.bits[i%WindowDatagrams/64] &^= 1 << (i % 64)
		}
		w.bits[n%WindowDatagrams/64] &^= 1 << (n % 64)
	}
	w.last = n
}

// Newest returns the newest number, and false if nothing came yet.
func (w *Window) Newest() (uint64, bool) { return w.last, w.last > 0 }

// Resume makes the window go on after n as if all up to n had been seen: what a
// collector knew before it was restarted. 0: nothing was.
func (w *Window) Resume(n uint64) {
	*w = Window{last: n}
	for i := range w.bits {
		w.bits[i] = ^uint64(0)
	}
}
