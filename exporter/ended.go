package exporter

import (
	"tetracast/ledger"
	"tetracast/metadata"
)

// Of a stream that has ended only figures stay, and they are summed up: those of one
// destination and format in one row, and those of the destinations that were given up
// first, beyond maxEnded rows, in one row for all of them.
const (
	maxEnded = 64
	others   = "others"
)

// endedStreams is what stays of streams that have ended.
type endedStreams struct {
	account ledger.Stream // Outside as row completes it
	stats   DestinationStats
	cache   metadata.CacheStats
	last    ledger.Counters // of the last of them, for the process after this one
}

// row is their account, after intake has let in so many events and not lost them.
func (r *endedStreams) row(accepted uint64) ledger.Stream {
	row := r.account
	row.Outside += uint64(row.Ended) * accepted
	return row
}

func (r *endedStreams) add(o *endedStreams) {
	r.account.Add(&o.account)
	r.account.Stream = o.account.Stream
	r.stats.Add(&o.stats)
	r.cache.Add(&o.cache)
	r.last = o.last
}

// retire keeps the figures of the streams that have ended, and lets go what made them.
// Called with the lock and the role.
func (e *UDPExporter) retire() {
	w := &e.worker
	kept := w.all[:0:0]
	for i, s := range w.all {
		if !s.left {
			kept = append(kept, s)
			continue
		}
		_ = s.close()
		past := endedStreams{account: e.row(s, &e.settled.streams[i]), stats: e.settled.befell[i].stats(s), cache: s.cache.Stats(), last: s.counters()}
		past.account.Ended = 1
		past.account.Outside = s.before - s.until // row adds what came until then, and after
		past.cache.RecordBytes, past.cache.RecordAge = 0, 0
		past.stats.Pool.Bytes = 0
		e.keepEnded(&past)
	}
	w.all, w.left = kept, false
	e.settled.fit(w)
	e.renewPage()
}

// keepEnded adds the figures of a stream to those of its destination.
func (e *UDPExporter) keepEnded(past *endedStreams) {
	for i := range e.ended {
		if s := &e.ended[i].stats; s.Address == past.stats.Address && s.Format == past.stats.Format {
			e.ended[i].add(past)
			return
		}
	}
	if len(e.ended) < maxEnded {
		e.ended = append(e.ended, *past)
		return
	}
	first := &e.ended[0]
	if first.stats.Address != others {
		first.account.Destination, first.stats.Address, first.stats.Format = others, others, ""
	}
	first.add(&e.ended[1])
	copy(e.ended[1:], e.ended[2:])
	e.ended[maxEnded-1] = *past
}
