package exporter

import (
	"crypto/rand"
	"encoding/binary"
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
	"tetracast/transcode"
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

// stream sends the events to one destination. Everything in it belongs to
// whoever holds the worker role.
type stream struct {
	Destination
	configured Destination
	id         uint64 // the stream id: 64 random bits
	idText     string // as 16 hexadecimal digits
	packer     datagram.Packer
	keeps      datagram.Keeper  // packer, if it keeps events for a datagram that later ones share; else nil
	stamper    datagram.Stamper // packer, if it writes into each datagram what was dropped; else nil
	frame      *datagram.Frame  // packer, if it makes frames; else nil
	cache      *metadata.Cache
	conn       sender // nil until the destination's name is resolved
	log        *slog.Logger

	number  uint64         // of the last event that was packed
	batch   datagram.Batch // what is being sent
	pending pendingBatch   // what the destination did not take yet
	counts  streamCounts
	befell  befell

	started       time.Time
	upstream      func() Upstream // may be nil
	extra         datagram.Batch  // agent_stats on its way
	statsInterval time.Duration   // between two of them; negative: none
	statsDue      time.Time       // when the next one is due; never until the first agent_init
	saidGoodbye   bool
	predecessors  []ledger.Counters // streams of a killed process, to report
	reported      int               // how often the first of them was
	frameLimit    int               // the size of frames now, in bytes
	plainRecord   bool              // the packer makes agent_init a datagram as it is
	straight      bool              // agent_init may go by announceStraight: it is plain, and in memory
	tooWide       bool              // of trySend: the next datagram is above the path MTU
	shrunk        bool              // it is less than MaxDatagram because of the path
	hold          hold              // of what the packer keeps

	record      datagram.Batch // agent_init on its way
	recordAlone [1][]byte      // likewise, of announceStraight
	prepared    *metadata.Record
	spoilt      chan<- *metadata.Record // of the exporter
	interval    time.Duration           // between two of them; negative: only on change
	announced   bool                    // one was sent
	announceDue time.Time               // when the next one is due; never until the first event or announceNow
	nextAttempt time.Time               // before this no send is tried
	awayWait    time.Duration
	stuck       time.Time     // since when the device has no buffers for the next datagram; zero: it has
	rotateNext  time.Time     // when the source port changes; zero: at the first look
	trouble     chan struct{} // tells the resolver that a send failed; capacity 1
	failed      time.Time     // the last failure of a destination that is down; zero: it is up
	lost        throttle
	probe       probe // of the sampler

	before uint64 // events that were worked off before the stream began

	// Of a stream whose destination is gone:
	parted        bool
	until         uint64    // events that had been worked off by then
	leaveBy       time.Time // what waits after this is lost
	farewells     int       // goodbyes said
	farewellDue   time.Time // when the next one is
	left          bool      // nothing is left to do
	stopResolving func()    // nil: nobody resolves its name
}

// streamCounts is what a stream counts: a snapshot of it is published at each
// hand-over.
type streamCounts struct {
	dropped          ledger.Drops
	refused          uint64 // events, the part of dropped that had a number
	sent             uint64 // events
	queued           uint64 // events in pending and kept by the packer
	truncated        uint64 // events
	datagrams, bytes uint64
}

func newStream(d Destination, cache *metadata.Cache, c Config) (*stream, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand, Go 1.24)
	s := &stream{
		Destination:   d,
		configured:    d,
		id:            binary.BigEndian.Uint64(id[:]),
		cache:         cache,
		started:       time.Now(),
		interval:      c.MetadataInterval,
		announceDue:   never,
		statsInterval: c.StatsInterval,
		statsDue:      never,
		upstream:      c.Upstream,
		hold:          hold{interval: c.FlushInterval},
		trouble:       make(chan struct{}, 1),
		pending:       pendingBatch{pool: udp.Pool{MaxBytes: d.QueueBytes / 4}},
		log:           c.Logger.With("udp_destination", d.Address),
	}
	s.idText = streamIDText(s.id)
	var err error
	if s.packer, err = newPacker(s, d, c.hostFacts()); err != nil {
		return nil, err
	}
	s.keeps, _ = s.packer.(datagram.Keeper)
	s.stamper, _ = s.packer.(datagram.Stamper)
	s.frame, _ = s.packer.(*datagram.Frame)
	s.frameLimit = d.MaxDatagram
	s.plainRecord = (d.Format == "json" || d.Format == "ndjson") && !d.JSONSequence
	if s.statsInterval == 0 {
		s.statsInterval = statsInterval
		if d.Format == "frame" {
			s.statsInterval = frameStatsInterval
		}
	}
	return s, nil
}

// streamIDText is a stream id as accounts and events write it.
func streamIDText(id uint64) string { return string(datagram.AppendStreamID(nil, id)) }

// dial opens the socket to an address of the destination.
func (s *stream) dial(addr netip.AddrPort) (sender, error) {
	conn, err := udp.Dial(addr, udp.Options{
		SendBufferBytes:    s.UDPBufferSize,
		GSO:                switches[s.GSO],
		ZeroCopy:           switches[s.ZeroCopy],
		BytesPerSecond:     s.MaxBytesPerSecond,
		DatagramsPerSecond: s.MaxDatagramsPerSecond,
		DontFragment:       s.frame != nil, // its sizes are ours to choose
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
	if s.parted {
		return SocketStats{} // its socket is closed without the lock
	}
	conn, ok := s.conn.(*udp.Conn)
	if !ok {
		return SocketStats{}
	}
	return conn.Stats()
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

// pack numbers the event and puts it into the batch, in a form that fits if it
// is too long.
func (s *stream) pack(event *datagram.Event, t *transcode.Transcoder) {
	if !s.announced && s.announceDue == never {
		s.announceNow() // agent_init goes before the first event
	}
	event.Number = s.number + 1
	err := s.packer.Pack(&s.batch, event)
	if err != nil {
		line := event.Line
		err = s.shorten(event, t)
		event.Line = line // for the other streams
	}
	if err != nil {
		s.lose(ledger.Oversize, err, len(event.Line))
		return
	}
	s.number++
}

// flush sends what was packed, after what the destination did not take before.
// It never waits: what is not taken now is kept, in order, for nextAttempt. A
// packer may keep events as long as hold says, but not when it is final.
func (s *stream) flush(in *intake, now time.Time, final bool) {
	s.fitPath(now)
	if s.waiting() > 0 && (s.hold.over(now, s.number) || final) {
		s.packer.Flush(&s.batch)
		s.hold.let = now
	}
	s.rotate(now)
	if !now.Before(s.announceDue) {
		if s.ready(now) {
			s.announce(now)
		} else {
			s.warm()
		}
	}
	if len(s.pending.Datagrams) > 0 && s.ready(now) {
		s.sendPending(now)
	}
	done := 0
	if len(s.pending.Datagrams) == 0 && s.ready(now) {
		done = s.sendBatch(now)
	}
	s.keepPending(&s.batch, done)
	if s.keeps != nil {
		s.keeps.Keep()
	}
	if s.inUse() {
		s.batch.Forget()
	}
	s.batch.Reset()
	s.tell(in, now)
	s.hold.kept = s.waiting() > 0
	s.counts.queued = s.pending.events + uint64(s.waiting())
	if s.befell.pendingBytes != s.pending.held {
		s.befell.pendingBytes, s.befell.pool, s.befell.news = s.pending.held, s.pending.pool.Stats(), true
	}
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
		if anew, ok := s.repack(&s.pending.Batch, done, now); ok {
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
		anew, ok := s.repack(&s.batch, done, now)
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
	return datagrams
}

// tell sends agent_stats if it is due and nothing waits before it.
func (s *stream) tell(in *intake, now time.Time) {
	if s.announced && s.statsDue == never && s.statsInterval > 0 {
		s.statsDue = nextAnnounce(now, s.statsInterval)
		if len(s.predecessors) > 0 {
			s.statsDue = now
		}
	}
	if now.Before(s.statsDue) || len(s.pending.Datagrams) > 0 || !s.ready(now) {
		return
	}
	if len(s.predecessors) > 0 {
		s.reportPredecessor(in, now)
		return
	}
	s.sendStats(in, now, false)
}

// waiting returns how many events the packer keeps.
func (s *stream) waiting() int {
	if s.keeps == nil {
		return 0
	}
	return s.keeps.Waiting()
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
		sent, err := s.conn.Send(b.Datagrams[done:])
		if sent > 0 {
			s.stuck = time.Time{}
		}
		for range sent {
			s.counts.sent += uint64(b.Events[done])
			s.counts.bytes += uint64(len(b.Datagrams[done]))
			s.counts.datagrams++
			s.countSize(len(b.Datagrams[done]))
			done++
		}
		if err == nil {
			s.up(now)
			continue
		}
		s.countError(err)
		// What may have left counts as sent: this format cannot tell a repeat from
		// a second event.
		var sendErr *udp.SendError
		if errors.As(err, &sendErr) {
			for range sendErr.Uncertain {
				s.counts.sent += uint64(b.Events[done])
				done++
			}
		}
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
		if done < len(b.Datagrams) {
			done += s.loseFirst(b, done, reason)
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
	case errors.Is(err, udp.ErrWouldBlock):
		return fullWait, 0
	case errors.Is(err, udp.ErrNoBuffers):
		// The device's queue is full. A datagram whose IP fragments are more than it
		// has room for would never pass.
		if s.stuck.IsZero() {
			s.stuck = now
		}
		if now.Sub(s.stuck) < stuckTime {
			return fullWait, 0
		}
		reason = ledger.NoBuffers
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
	s.stuck = time.Time{}
	s.fail(err, now)
	return 0, reason
}

// fail notes that the destination did not take a datagram, and logs it if it
// took the ones before.
func (s *stream) fail(err error, now time.Time) {
	if s.failed.IsZero() {
		s.log.Warn("The destination takes no datagrams", "cause", err)
	}
	s.failed, s.befell.down, s.befell.news = now, true, true
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
		s.failed, s.befell.down, s.befell.news = time.Time{}, false, true
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
	s.refuse(ledger.Shutdown, int(s.pending.events)+s.waiting())
	s.pending.cut(len(s.pending.Datagrams), false)
	s.packer.Flush(&s.batch) // so that the goodbye does not carry what was just given up
	s.batch.Reset()
	s.counts.queued = 0
}
