package exporter

import (
	"errors"
	"io/fs"

	"tetracast/ledger"
)

// The page of counters holds what intake counted in slot 0, under a stream id of
// its own, and the streams' own figures in the slots after it: intake is stored
// under the lock alone, a stream's figures by the holder of the role.
const intakeStream = ^uint64(0)

// openPage reads what the process before this one left, and begins a page of
// this one's own. Without a page nothing fails but the successor's knowledge.
func (e *UDPExporter) openPage(path string) {
	log := e.config.Logger.With("file", path)
	before, err := ledger.ReadPage(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("The counters of the process before this one cannot be read", "cause", err)
	}
	var in ledger.Counters
	for _, c := range before {
		switch {
		case c.Stream == intakeStream:
			in = c
			continue
		case c.Goodbye:
			continue
		}
		c = withIntake(c, in.Seen, in.Excluded, &in.Dropped)
		// Every destination is told: a collector that never heard of the stream takes
		// no notice.
		for _, s := range e.worker.streams {
			s.predecessors = append(s.predecessors, c)
		}
		log.Warn("The process before this one was killed; its account is sent in its place",
			"stream", streamIDText(c.Stream), "last_number", c.LastNumber, "sent", c.Sent)
	}
	e.createPage()
}

// createPage begins a page with a place for each stream, and for the last that ended
// of each destination.
func (e *UDPExporter) createPage() {
	var err error
	if e.page, err = ledger.CreatePage(e.config.CountersFile, 1+len(e.worker.all)+len(e.ended)); err != nil {
		e.config.Logger.Warn("No counters are kept for the process after this one", "file", e.config.CountersFile, "cause", err)
		e.page = nil
		return
	}
	for i := range e.ended {
		e.page.Store(1+len(e.worker.all)+i, &e.ended[i].last)
	}
	e.storePage()
}

// renewPage makes room for streams that were added. Called with the lock and the
// role.
func (e *UDPExporter) renewPage() {
	if e.page == nil {
		return
	}
	_ = e.page.Close() // the file is replaced
	e.createPage()
}

// storeIntake brings slot 0 up to date. Called with the lock.
func (e *UDPExporter) storeIntake() {
	if e.page == nil {
		return
	}
	e.page.Store(0, &ledger.Counters{Stream: intakeStream, Seen: e.seen, Excluded: e.excluded, Dropped: e.dropped})
}

// storePage brings the page up to date. Called with the lock and the role.
func (e *UDPExporter) storePage() {
	if e.page == nil {
		return
	}
	e.storeIntake()
	for i, s := range e.worker.all {
		c := s.counters()
		e.page.Store(1+i, &c)
	}
	if err := e.page.Err(); err != nil {
		e.config.Logger.Warn("No counters are kept for the process after this one", "cause", err)
		_ = e.page.Close()
		e.page = nil
	}
}
