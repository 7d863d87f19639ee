package exporter

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/metadata"
)

// SendMetadataEvent sends agent_init to every destination, due or not. While
// another goroutine is sending, it leaves the job to that one and returns. The
// only error is ErrClosed.
func (e *UDPExporter) SendMetadataEvent() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	if e.held {
		e.announce = true
		e.mu.Unlock()
		return nil
	}
	if e.calm() {
		e.held = true
		e.mu.Unlock()
		if e.announceStraight() {
			return nil
		}
	} else {
		e.announceNow()
		e.assume()
		e.mu.Unlock()
	}
	e.worker.finish(time.Now())
	e.settle()
	return nil
}

// calm says whether nothing but agent_init is to be done, and nothing stands in
// its way. Called with the lock, when nobody has the role.
func (e *UDPExporter) calm() bool {
	for _, s := range e.worker.streams {
		if !s.calm() {
			return false
		}
	}
	return true
}

// announceStraight sends agent_init when all is calm, at the cost of a bare send
// and some 130 instructions, where the way of the events takes 900. It
// gives the role back and returns true; or it returns false, with the role, if a
// destination did not take agent_init: it is then due there.
func (e *UDPExporter) announceStraight() bool {
	done := true
	for _, s := range e.worker.streams {
		if !s.announceStraight() {
			s.announceNow()
			done = false
		}
	}
	if !done {
		return false
	}
	e.mu.Lock()
	for i, s := range e.worker.all {
		settled := &e.settled.streams[i]
		settled.datagrams, settled.bytes = s.counts.datagrams, s.counts.bytes
		s.befell.publishSize(&e.settled.befell[i], len(s.recordAlone[0]))
	}
	ordered := e.announce || len(e.orders) > 0
	e.giveBack()
	if ordered || e.closed || !e.queue.empty() || e.comes == never { // else nothing falls due sooner than before
		e.arrange()
	}
	e.mu.Unlock()
	return true
}

// calm says whether the socket took what it was last given, and agent_init needs
// no packing.
func (s *stream) calm() bool {
	return s.straight && s.conn != nil && s.announced && s.RotateSourcePort <= 0 && s.nextAttempt.IsZero() && s.failed.IsZero()
}

// announceStraight sends agent_init, ahead of what is packed. It leaves the next
// repeat where it is: to move that takes a look at the clock, and a repeat too
// many only one datagram. As a datagram of one part it saves the 160 instructions
// that Send takes to plan a batch. It returns false if the destination did not take
// it.
func (s *stream) announceStraight() bool {
	record, cached, cause := s.cache.Get()
	s.recordAlone[0] = record.Line()
	if s.conn.SendParts(s.recordAlone[:]) != nil {
		return false // announce meets the error again, and deals with it
	}
	s.counts.datagrams++
	s.counts.bytes += uint64(len(s.recordAlone[0]))
	s.countSize(len(s.recordAlone[0]))
	if cause != nil || s.log.Enabled(context.Background(), slog.LevelInfo) {
		s.logAnnounced(record, cached, cause)
	}
	return true
}

// announceNow makes agent_init due.
func (s *stream) announceNow() { s.announceDue = time.Time{} }

// announce sends agent_init, ahead of all that waits. It returns false if the
// destination does not take it now; it then stays due.
func (s *stream) announce(now time.Time) bool {
	record, cached, cause := s.cache.Get()
	s.straight = s.plainRecord && !record.Lent()
	if !record.Lent() || !s.announceLent(record) {
		s.prepare(record, cached)
		s.packer.PackRecord(&s.record, record.Line())
		before := s.counts.datagrams
		done := s.trySend(&s.record, 0, now)
		s.record.Reset()
		switch {
		case done == 0:
			return false
		case s.counts.datagrams == before:
			s.announceDue = now.Add(lostAnnounceWait)
			return true
		}
	}
	s.announced, s.announceDue = true, nextAnnounce(now, s.interval)
	s.logAnnounced(record, cached, cause)
	return true
}

// announceLent sends agent_init from the mapping that it is in, without a copy. It
// returns false if the destination did not take it, or if the file behind the mapping
// was changed: the record is in memory from then on.
func (s *stream) announceLent(record *metadata.Record) bool {
	err := error(unix.EFAULT)
	if record.Intact() {
		err = s.conn.SendParts(record.Parts())
	}
	if errors.Is(err, unix.EFAULT) {
		s.log.Warn("The file with agent_init was changed while it was in use; it is set aside, and memory used instead")
		s.cache.Invalidated(metadata.Damaged)
		s.cache.Settle(record)
		select {
		case s.spoilt <- record:
		default: // one of the same file is being set aside
		}
		return false
	}
	if err != nil {
		return false // announce meets the error again, and deals with it
	}
	s.counts.datagrams++
	s.countSize(record.Len())
	s.counts.bytes += uint64(record.Len())
	return true
}

// prepare has the packer make of the record what does not change from one send to
// the next, unless it did. A record that is made for one export is not worth it.
func (s *stream) prepare(record *metadata.Record, cached bool) {
	if s.prepared == record {
		return
	}
	s.prepared = record
	if s.frame != nil {
		s.frame.SetRecord(record.Digest())
	}
	if p, ok := s.packer.(datagram.Preparer); ok && cached {
		p.PrepareRecord(record.Line())
	}
}

// warm makes agent_init ready for a destination that cannot be reached yet, so that
// nothing of it is left to do when events come.
func (s *stream) warm() {
	if r := s.cache.Current(); s.cache.Keeps() && (r == nil || r != s.prepared) {
		record, cached, _ := s.cache.Get()
		s.prepare(record, cached)
	}
}

// logAnnounced logs that agent_init was sent.
func (s *stream) logAnnounced(record *metadata.Record, cached bool, cause error) {
	text, level := "Cached metadata event sent over UDP", slog.LevelInfo
	if !cached {
		text = "Metadata event sent over UDP"
	}
	if cause != nil {
		level = slog.LevelWarn
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	event := record.Event()
	attrs := []slog.Attr{slog.String("event", event.Event), slog.String("hostname", event.Hostname)}
	if cause != nil {
		attrs = append(attrs, slog.Any("cause", cause))
	}
	s.log.LogAttrs(context.Background(), level, text, attrs...)
}
