package exporter

import "tetracast/ledger"

// Progress returns how many events were let in so far, without those that were excluded
// or dropped at intake, and how many of them, counted from the first, have reached their
// end at every destination: sent, or dropped there. A source that can read again what it
// handed on goes on behind settled after a kill.
//
// Where a queue was full events went that were not the oldest; settled then stays
// behind until nothing is queued. It is safe for concurrent use.
func (e *UDPExporter) Progress() (taken, settled uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken = e.seen - e.excluded - e.dropped.Total() + e.dropped[ledger.Shutdown]
	settled = taken
	for i, s := range e.worker.all {
		if s.parted {
			continue
		}
		c := &e.settled.streams[i]
		full := c.dropped[ledger.DestinationFull]
		waiting := e.queue.events + e.inHand + c.queued + e.dropped[ledger.Shutdown] + c.dropped[ledger.Shutdown]
		if waiting == 0 {
			s.fullBefore = full
			continue
		}
		waiting += full - s.fullBefore
		settled = min(settled, taken-min(taken, waiting))
	}
	return taken, settled
}
