package exporter

import "time"

// fewBatches in a flush interval do not pay for waiting: each goes at once. With the
// default of 5 ms that is below 1,600 batches a second, of however many events.
// A timer of the Go runtime costs six wake-ups of its threads, which is more than the
// datagrams that it saves: at 1,000 events a second, one by one, waiting took 100 us
// of CPU an event and sending each 50.
const fewBatches = 8

// hold says how long a packer may keep events so that others share their datagram.
type hold struct {
	interval time.Duration
	let      time.Time // when the packer last let go all it kept

	// How many batches of events come in an interval, to tell whether to wait at all.
	counted         time.Time // since when they are counted
	batches, before int       // since then, and in the interval before
	number          uint64    // of the last event then
}

// over says whether what is kept is to go now, of which the last has that number.
func (h *hold) over(now time.Time, number uint64) bool {
	if passed := now.Sub(h.counted); passed >= h.interval {
		h.before = h.batches
		if passed >= 2*h.interval {
			h.before = 0
		}
		h.counted, h.batches = now, 0
	}
	if number != h.number {
		h.number = number
		h.batches++
	}
	return max(h.before, h.batches) < fewBatches || !now.Before(h.due())
}

// due is when it must go.
func (h *hold) due() time.Time { return h.let.Add(h.interval) }
