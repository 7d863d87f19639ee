package udp

import "time"

// bucket is a token bucket over bytes and datagrams. A burst is at most what
// burstTime carries, so that a receiver's buffer is not overrun by what was
// saved up. The zero value has no bound.
type bucket struct {
	bytesPerSecond, datagramsPerSecond float64
	bytes, datagrams                   float64 // tokens
	last                               time.Time
	now                                func() time.Time
}

// burstTime is the longest time whose tokens are saved up.
const burstTime = 10 * time.Millisecond

func newBucket(bytesPerSecond, datagramsPerSecond int) bucket {
	return bucket{bytesPerSecond: float64(bytesPerSecond), datagramsPerSecond: float64(datagramsPerSecond), now: time.Now}
}

// allow returns how many datagrams from the front may go now, and if none, how
// long to wait for the first. It takes no tokens.
func (b *bucket) allow(datagrams [][]byte) (n int, wait time.Duration) {
	if b.bytesPerSecond == 0 && b.datagramsPerSecond == 0 {
		return len(datagrams), 0
	}
	b.fill()
	// The first may overdraw: else one longer than a burst would never go.
	bytes, count := b.bytes, b.datagrams
	for n < len(datagrams) && (b.bytesPerSecond == 0 || bytes > 0) && (b.datagramsPerSecond == 0 || count > 0) {
		bytes -= float64(len(datagrams[n]))
		count--
		n++
	}
	if n > 0 {
		return n, 0
	}
	return 0, b.wait()
}

// fill puts in the tokens of the time since the last look.
func (b *bucket) fill() {
	now := b.now()
	elapsed := now.Sub(b.last).Seconds()
	b.last = now
	burst := burstTime.Seconds()
	b.bytes = min(b.bytes+elapsed*b.bytesPerSecond, burst*b.bytesPerSecond)
	b.datagrams = min(b.datagrams+elapsed*b.datagramsPerSecond, burst*b.datagramsPerSecond)
}

// wait returns how long it takes until a datagram may go.
func (b *bucket) wait() time.Duration {
	wait := time.Millisecond
	if b.bytesPerSecond > 0 && b.bytes <= 0 {
		wait = max(wait, time.Duration(-b.bytes/b.bytesPerSecond*1e9))
	}
	if b.datagramsPerSecond > 0 && b.datagrams <= 0 {
		wait = max(wait, time.Duration(-b.datagrams/b.datagramsPerSecond*1e9))
	}
	return wait
}

// takeOne takes the tokens of one datagram, or returns how long to wait for them.
func (b *bucket) takeOne(bytes int) (wait time.Duration) {
	if b.bytesPerSecond == 0 && b.datagramsPerSecond == 0 {
		return 0
	}
	b.fill()
	if b.bytesPerSecond > 0 && b.bytes <= 0 || b.datagramsPerSecond > 0 && b.datagrams <= 0 {
		return b.wait()
	}
	b.bytes -= float64(bytes)
	b.datagrams--
	return 0
}

// take takes the tokens of what was sent.
func (b *bucket) take(datagrams [][]byte) {
	if b.bytesPerSecond == 0 && b.datagramsPerSecond == 0 {
		return
	}
	for _, d := range datagrams {
		b.bytes -= float64(len(d))
	}
	b.datagrams -= float64(len(datagrams))
}
