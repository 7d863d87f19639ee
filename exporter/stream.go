package exporter

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/netip"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
)

// pendingBytes bounds what a stream whose destination does not take datagrams
// keeps while other streams go on.
const pendingBytes = 4 << 20

// The waits of a stream whose destination does not take datagrams: short where
// the send buffer is full, longer where the network is away (shared facts: a
// full buffer drains in milliseconds, a link comes back in seconds).
const (
	fullWait    = 2 * time.Millisecond
	minAwayWait = 100 * time.Millisecond
	maxAwayWait = 5 * time.Second

	lostAnnounceWait = time.Second // after an agent_init that the kernel refused

	calmTime = 5 * time.Second // without a failure: the destination is up again
)

// sender is the part of a udp.Conn that a stream needs; tests put faults there.
type sender interface {
	Send(datagrams [][]byte) (sent int, err error)
	Close() error
}

// stream sends the events to one destination. Everything in it belongs to
// whoever holds the worker role.
type stream struct {
	Destination
	idText string // the stream id: 64 random bits as 16 hexadecimal digits
	packer datagram.Packer
	cache  *metadata.Cache
	conn   sender // nil until the destination's name is resolved
	log    *slog.Logger

	number  uint64         // of the last event that was packed
	batch   datagram.Batch // what is being sent
	pending pendingBatch   // what the destination did not take yet
	counts  streamCounts

	record      datagram.Batch // agent_init on its way
	recordAlone [1][]byte      // likewise, of announceStraight
	interval    time.Duration  // between two of them; negative: only on change
	announced   bool           // one was sent
	announceDue time.Time      // when the next one is due; never until the first event or announceNow
	nextAttempt time.Time      // before this no send is tried
	awayWait    time.Duration
	rotateNext  time.Time     // when the source port changes; zero: at the first look
	trouble     chan struct{} // tells the resolver that a send failed; capacity 1
	failed      time.Time     // the last failure of a destination that is down; zero: it is up
	lost        throttle
}

// streamCounts is what a stream counts: a snapshot of it is published at each
// hand-over.
type streamCounts struct {
	dropped          ledger.Drops
	sent             uint64 // events
	queued           uint64 // events in pending
	datagrams, bytes uint64
}

func newStream(d Destination, cache *metadata.Cache, c Config) *stream {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand, Go 1.24)
	return &stream{
		Destination: d,
		idText:      hex.EncodeToString(id[:]),
		packer:      datagram.NewJSON(d.MaxDatagram),
		cache:       cache,
		interval:    c.MetadataInterval,
		announceDue: never,
		trouble:     make(chan struct{}, 1),
		pending:     pendingBatch{pool: udp.Pool{MaxBytes: pendingBytes / 4}},
		log:         c.Logger.With("udp_destination", d.Address),
	}
}

// dial opens the socket to an address of the destination.
func (s *stream) dial(addr netip.AddrPort) (sender, error) {
	conn, err := udp.Dial(addr, udp.Options{
		SendBufferBytes:    s.UDPBufferSize,
		GSO:                switches[s.GSO],
		ZeroCopy:           switches[s.ZeroCopy],
		BytesPerSecond:     s.MaxBytesPerSecond,
		DatagramsPerSecond: s.MaxDatagramsPerSecond,
	})
	if err != nil {
		return nil, fmt.Errorf("exporter: destination %s: %w", s.Address, err) // not conn: a nil *udp.Conn is no nil sender
	}
	return conn, nil
}

// use makes conn the stream's socket. What waits goes to it at once.
func (s *stream) use(conn sender) {
	if s.conn != nil {
		_ = s.conn.Close() // nothing is in it that the kernel has not taken
	}
	s.conn, s.nextAttempt, s.awayWait = conn, time.Time{}, 0
}

// inUse says whether the kernel still reads memory that was sent.
func (s *stream) inUse() bool {
	conn, ok := s.conn.(*udp.Conn)
	return ok && conn.InUse()
}

// rotate gives the socket another source port when its time has come. The
// stream then says again who it is, for a receiver may know it by its address.
func (s *stream) rotate(now time.Time) {
	conn, ok := s.conn.(*udp.Conn)
	if s.RotateSourcePort <= 0 || !ok || now.Before(s.rotateNext) {
		return
	}
	if !s.rotateNext.IsZero() && conn.Rotate() == nil && s.announced {
		s.announceNow()
	}
	s.rotateNext = now.Add(s.RotateSourcePort)
}

// socketStats may be called by anybody who has the lock: the socket changes
// under it.
func (s *stream) socketStats() SocketStats {
	conn, ok := s.conn.(*udp.Conn)
	if !ok {
		return SocketStats{}
	}
	c := conn.Stats()
	return SocketStats{Calls: c.Calls, Refused: c.Refused, Retried: c.Retried, Rebinds: c.Rebinds, GSOSegments: c.GSOSegments, GSO: c.GSO}
}

// ready says whether a send may be tried now.
func (s *stream) ready(now time.Time) bool {
	return s.conn != nil && !now.Before(s.nextAttempt)
}

// nextAnnounce spreads the fleet's repeats by a tenth of the interval.
func nextAnnounce(now time.Time, interval time.Duration) time.Time {
	if interval < 0 {
		return never
	}
	tenth := interval / 10
	return now.Add(interval - tenth + mathrand.N(2*tenth+1))
}

// pack numbers the event and puts it into the batch.
func (s *stream) pack(event *datagram.Event) {
	if !s.announced && s.announceDue == never {
		s.announceNow() // agent_init goes before the first event
	}
	event.Number = s.number + 1
	if err := s.packer.Pack(&s.batch, event); err != nil {
		s.lose(ledger.Oversize, err, len(event.Line))
		return
	}
	s.number++
}

// flush sends what was packed, after what the destination did not take before.
// It never waits: what is not taken now is kept, in order, for nextAttempt.
func (s *stream) flush(now time.Time) {
	s.packer.Flush(&s.batch)
	s.rotate(now)
	if s.ready(now) && !now.Before(s.announceDue) {
		s.announce(now)
	}
	if len(s.pending.Datagrams) > 0 && s.ready(now) {
		done := s.trySend(&s.pending.Batch, now)
		s.pending.cut(done, !s.inUse())
	}
	done := 0
	if len(s.pending.Datagrams) == 0 && s.ready(now) {
		done = s.trySend(&s.batch, now)
	}
	for i := done; i < len(s.batch.Datagrams); i++ {
		if !s.pending.keep(s.batch.Datagrams[i], s.batch.Events[i]) {
			s.counts.dropped[ledger.DestinationFull] += uint64(s.batch.Events[i])
		}
	}
	s.batch.Reset()
	s.counts.queued = s.pending.events
}

// trySend hands the batch to the kernel and returns how many datagrams from
// its front are done with: taken, or lost and counted. The others wait for
// nextAttempt.
func (s *stream) trySend(b *datagram.Batch, now time.Time) (done int) {
	for done < len(b.Datagrams) {
		sent, err := s.conn.Send(b.Datagrams[done:])
		for range sent {
			s.counts.sent += uint64(b.Events[done])
			s.counts.bytes += uint64(len(b.Datagrams[done]))
			s.counts.datagrams++
			done++
		}
		if err == nil {
			s.up(now)
			continue
		}
		// What may have left counts as sent: this format cannot tell a repeat from
		// a second event.
		var sendErr *udp.SendError
		if errors.As(err, &sendErr) {
			for range sendErr.Uncertain {
				s.counts.sent += uint64(b.Events[done])
				done++
			}
		}
		wait, reason := s.verdict(err, now)
		if wait > 0 {
			s.nextAttempt = now.Add(wait)
			return done
		}
		if done < len(b.Datagrams) {
			s.counts.dropped[reason] += uint64(b.Events[done])
			done++
		}
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
	case errors.Is(err, udp.ErrWouldBlock), errors.Is(err, udp.ErrNoBuffers):
		return fullWait, 0
	case errors.Is(err, udp.ErrUnreachable), errors.Is(err, udp.ErrLinkDown):
		s.fail(err, now)
		s.awayWait = min(max(2*s.awayWait, minAwayWait), maxAwayWait)
		return s.awayWait, 0
	case errors.Is(err, udp.ErrRefused):
		reason = ledger.Refused
	case errors.Is(err, udp.ErrNotPermitted):
		reason = ledger.NotPermitted
	case errors.Is(err, udp.ErrTooLarge):
		reason = ledger.TooLarge
	default:
		reason = ledger.SendFailed
	}
	s.fail(err, now)
	return 0, reason
}

// fail notes that the destination did not take a datagram, and logs it if it
// took the ones before.
func (s *stream) fail(err error, now time.Time) {
	if s.failed.IsZero() {
		s.log.Warn("The destination takes no datagrams", "cause", err)
	}
	s.failed = now
	select {
	case s.trouble <- struct{}{}: // perhaps its name has another address
	default:
	}
}

// up notes that the destination took what was sent. It logs that only after a
// while without a failure: a destination that fails every other time is one
// state, not two that alternate.
func (s *stream) up(now time.Time) {
	s.awayWait, s.nextAttempt = 0, time.Time{}
	if !s.failed.IsZero() && now.Sub(s.failed) > calmTime {
		s.failed = time.Time{}
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
	s.counts.dropped[ledger.Shutdown] += s.pending.events
	s.pending.cut(len(s.pending.Datagrams), false)
	s.counts.queued = 0
}
