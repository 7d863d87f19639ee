package exporter

import (
	"errors"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
)

// The waits of a stream whose destination does not take datagrams: short where
// the send buffer is full, longer where the network is away (shared facts: a
// full buffer drains in milliseconds, a link comes back in seconds).
const (
	fullWait    = 2 * time.Millisecond
	minAwayWait = 100 * time.Millisecond
	maxAwayWait = 5 * time.Second

	stuckTime = time.Second // so long one datagram may be refused for want of buffers

	lostAnnounceWait = time.Second // after an agent_init that the kernel refused

	calmTime = 5 * time.Second // without a failure: the destination is up again
)

// sender is the part of a udp.Conn that a stream needs; tests put faults there.
type sender interface {
	Send(datagrams [][]byte) (sent int, err error)
	SendParts(parts [][]byte) error
	Close() error
}

// keepPending keeps the datagrams from the given one on, which the destination
// does not take now. Those for which there is no room are lost, or those are that
// waited longest.
func (s *stream) keepPending(b *datagram.Batch, from int) {
	for n := 0; from < len(b.Datagrams); from += n {
		var bytes, events int
		n, bytes, events = b.Rest(from)
		for s.DropOldest && s.pending.held+bytes > s.QueueBytes && len(s.pending.Datagrams) > 0 {
			s.pending.cut(s.loseFirst(&s.pending.Batch, 0, ledger.DestinationFull), !s.inUse())
		}
		if s.pending.held+bytes > s.QueueBytes {
			s.refuse(ledger.DestinationFull, events)
			s.unsent.refuse(s.pending.events, uint64(events))
		} else {
			s.pending.keep(b, from, n)
		}
	}
}

// sendPending offers again what the destination did not take. What the path has
// become too narrow for is made anew.
func (s *stream) sendPending(now time.Time) {
	done := s.trySend(&s.pending.Batch, 0, now)
	if s.tooWide {
		if anew, ok := s.remake(&s.pending.Batch, done, now); ok {
			s.pending.cut(len(s.pending.Datagrams), !s.inUse())
			s.keepPending(&anew, 0)
			return
		}
		done += s.loseFirst(&s.pending.Batch, done, ledger.TooLarge)
	}
	s.pending.cut(done, !s.inUse())
}

// sendBatch offers the batch, and makes anew what the path is too narrow for. It
// returns how many datagrams of it are done with.
func (s *stream) sendBatch(now time.Time) (done int) {
	for {
		done = s.trySend(&s.batch, done, now)
		if !s.tooWide {
			return done
		}
		anew, ok := s.remake(&s.batch, done, now)
		if !ok {
			done += s.loseFirst(&s.batch, done, ledger.TooLarge)
			continue
		}
		s.batch, done = anew, 0
	}
}

// loseFirst counts what is in datagram i as lost, and returns how many datagrams
// that are: the others of its event are of no use any more.
func (s *stream) loseFirst(b *datagram.Batch, i int, reason ledger.Reason) (datagrams int) {
	datagrams, _, events := b.Rest(i)
	s.refuse(reason, events)
	s.unsent.pass(uint64(events))
	return datagrams
}

// refuse counts numbered events that the kernel will not get.
func (s *stream) refuse(reason ledger.Reason, events int) {
	s.counts.dropped[reason] += uint64(events)
	s.counts.refused += uint64(events)
}

// trySend hands the batch from the given datagram on to the kernel and returns
// how many datagrams from its front are done with: taken, or lost and counted.
// The others wait for nextAttempt, or are tooWide.
func (s *stream) trySend(b *datagram.Batch, done int, now time.Time) int {
	s.tooWide = false
	for done < len(b.Datagrams) {
		s.offering(b.Events[done:])
		sent, err := s.conn.Send(b.Datagrams[done:])
		s.heed(now)
		if sent > 0 {
			s.stuck = time.Time{}
		}
		for range sent {
			s.counts.sent += uint64(b.Events[done])
			s.unsent.pass(uint64(b.Events[done]))
			s.counts.bytes += uint64(len(b.Datagrams[done]))
			s.counts.datagrams++
			s.countSize(len(b.Datagrams[done]))
			done++
		}
		s.offered(b, err)
		if err == nil {
			s.up(now)
			continue
		}
		s.countError(err)
		if s.frame != nil && errors.Is(err, udp.ErrTooLarge) {
			s.shrunk = true // the next frames will fit
			if s.tooWide = b == &s.batch || b == &s.pending.Batch; s.tooWide {
				return done
			}
		}
		wait, reason := s.verdict(err, now)
		if wait > 0 {
			s.nextAttempt = now.Add(wait)
			return done
		}
		done += s.loseFirst(b, done, reason)
	}
	return done
}

// verdict says what an error of the socket means for the datagram that was not
// taken: it waits, or it is lost for a reason.
func (s *stream) verdict(err error, now time.Time) (wait time.Duration, reason ledger.Reason) {
	switch {
	case errors.Is(err, udp.ErrPaced):
		var paced *udp.SendError
		errors.As(err, &paced)
		return max(paced.After, time.Millisecond), 0
	case errors.Is(err, udp.ErrWouldBlock):
		return fullWait, 0
	case errors.Is(err, udp.ErrNoBuffers):
		// The device's queue is full. A datagram whose IP fragments are more than it
		// has room for would never pass; and at each try some of them leave, for
		// nothing, and take the room of others. So the waits grow: each is as long as
		// all before it.
		if s.stuck.IsZero() {
			s.stuck = now
		}
		var full *udp.SendError
		never := errors.As(err, &full) && full.Never
		if stuck := now.Sub(s.stuck); stuck < stuckTime && !never {
			return max(fullWait, stuck), 0
		}
		reason = ledger.NoBuffers
	case errors.Is(err, udp.ErrUnreachable), errors.Is(err, udp.ErrLinkDown):
		s.fail(err, now)
		s.suspect(now)
		s.awayWait = min(max(2*s.awayWait, minAwayWait), maxAwayWait)
		return s.awayWait, 0
	case errors.Is(err, udp.ErrNotPermitted):
		reason = ledger.NotPermitted
		s.suspect(now)
	case errors.Is(err, udp.ErrTooLarge):
		reason = ledger.TooLarge
	default:
		reason = ledger.SendFailed
	}
	s.stuck = time.Time{}
	s.fail(err, now)
	return 0, reason
}

// heed counts what was answered. It is beside the account, for the datagrams were
// sent, and the answers may be forged, or not come; but where they say that nothing
// gets there the destination is down.
func (s *stream) heed(now time.Time) {
	conn, ok := s.conn.(socket)
	if !ok {
		return
	}
	n, last := conn.Answers()
	if n == (udp.Answers{}) {
		return
	}
	for class := range n {
		s.befell.answers[class] += n[class]
	}
	s.befell.news = true
	if last != nil {
		s.fail(last, now)
		s.suspect(now)
	}
}

// fail notes that the destination did not take a datagram, or that it is said not to
// get them, and logs it if it took the ones before.
func (s *stream) fail(err error, now time.Time) {
	if s.failed.IsZero() {
		s.log.Warn("The destination takes no datagrams", "cause", err)
	}
	s.failed, s.befell.down, s.befell.news = now, true, true
}

// up notes that the destination took what was sent. It logs that only after a
// while without a failure: a destination that fails every other time is one
// state, not two that alternate.
func (s *stream) up(now time.Time) {
	s.awayWait, s.nextAttempt = 0, time.Time{}
	if !s.failed.IsZero() && now.Sub(s.failed) > calmTime {
		s.failed, s.befell.down, s.befell.news = time.Time{}, false, true
		s.port.calmed()
		s.log.Info("The destination takes datagrams again")
	}
}

// lose counts an event that cannot be sent to this destination, and logs it at
// most once a minute.
func (s *stream) lose(reason ledger.Reason, err error, bytes int) {
	s.counts.dropped[reason]++
	if events, ok := s.lost.allow(); ok {
		s.log.Warn("Events were dropped", "reason", reason.String(), "cause", err,
			"bytes", bytes, "limit_bytes", s.MaxDatagram, "events", events)
	}
}

// abandon counts what is still pending as lost for shutdown.
func (s *stream) abandon() {
	left := int(s.pending.events) + s.waiting()
	s.abandoned = s.abandoned || left > 0
	s.refuse(ledger.Shutdown, left)
	s.unsent.pass(uint64(left))
	s.pending.cut(len(s.pending.Datagrams), false)
	s.packer.Flush(&s.batch) // so that the goodbye does not carry what was just given up
	s.batch.Reset()
	s.counts.queued = 0
}
