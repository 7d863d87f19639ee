package exporter

import (
	"crypto/rand"
	"encoding/binary"
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

	number    uint64         // of the last event that was packed
	offeredTo uint64         // the highest of those that the kernel may have got, if it is among unsent
	unsent    unsent         // numbers up to it
	batch     datagram.Batch // what is being sent
	pending   pendingBatch   // what the destination did not take yet
	counts    streamCounts
	befell    befell

	hostname       string // as agent_init has it
	started        time.Time
	upstream       func() Upstream // may be nil
	extra          datagram.Batch  // agent_stats on its way
	statsInterval  time.Duration   // between two of them; negative: none
	statsDue       time.Time       // when the next one is due; never until the first agent_init
	saidGoodbye    bool
	predecessors   []*predecessor // to report
	reported       int            // how often the first of them was
	page           *ledger.Page   // of the exporter
	destinationKey uint64         // in the page
	slot           int            // in it
	frameLimit     int            // the size of frames now, in bytes
	plainRecord    bool           // the packer makes agent_init a datagram as it is
	straight       bool           // agent_init may go by announceStraight: it is plain, and in memory
	tooWide        bool           // of trySend: the next datagram is above the path MTU
	shrunk         bool           // it is less than MaxDatagram because of the path
	hold           hold           // of what the packer keeps

	record      datagram.Batch // agent_init on its way
	recordAlone [1][]byte      // likewise, of announceStraight
	prepared    *metadata.Record
	spoilt      chan<- *metadata.Record // of the exporter
	interval    time.Duration           // between two of them; negative: only on change
	announced   bool                    // one was sent
	announceDue time.Time               // when the next one is due; never until the first event or announceNow
	nextAttempt time.Time               // before this no send is tried
	awayWait    time.Duration
	stuck       time.Time // since when the device has no buffers for the next datagram; zero: it has
	port        sourcePort
	trouble     chan struct{} // tells the resolver that a send failed; capacity 1
	failed      time.Time     // the last failure of a destination that is down; zero: it is up
	lost        throttle
	probe       probe // of the sampler

	before        uint64 // events that were worked off before the stream began
	fullBefore    uint64 // of destination_full, when nothing was queued last; of Progress
	closed        bool   // it has no socket any more, and gets none
	stopResolving func() // nil: nobody resolves its name

	// Of a stream whose destination is gone:
	parted      bool
	until       uint64    // events that had been worked off by then
	leaveBy     time.Time // what waits after this is lost
	farewells   int       // goodbyes said
	farewellDue time.Time // when the next one is
	abandoned   bool      // something that waited was given up
	left        bool      // nothing is left to do
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

func newStream(d Destination, cache *metadata.Cache, c Config, host metadata.Facts) (*stream, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand, Go 1.24)
	s := &stream{
		Destination:    d,
		configured:     d,
		id:             binary.BigEndian.Uint64(id[:]),
		cache:          cache,
		hostname:       metadata.NewEvent(host).Hostname,
		started:        time.Now(),
		unsent:         unsent{next: 1},
		destinationKey: destinationKey(d.Address),
		interval:       c.MetadataInterval,
		announceDue:    never,
		statsInterval:  c.StatsInterval,
		statsDue:       never,
		upstream:       c.Upstream,
		hold:           hold{interval: c.FlushInterval},
		trouble:        make(chan struct{}, 1),
		pending:        pendingBatch{pool: udp.Pool{MaxBytes: d.QueueBytes / 4}},
		log:            c.Logger.With("udp_destination", d.Address),
	}
	s.idText = streamIDText(s.id)
	var err error
	if s.packer, err = newPacker(s, d, host); err != nil {
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
	conn, err := s.Destination.dial(addr)
	if err != nil {
		return nil, err // not conn: a nil *udp.Conn is no nil sender
	}
	return conn, nil
}

// use makes conn the stream's socket. What waits goes to it at once. Of a stream that
// has ended it is closed.
func (s *stream) use(conn sender) {
	if s.closed {
		_ = conn.Close()
		return
	}
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

// socketStats may be called by anybody who has the lock: the socket changes
// under it.
func (s *stream) socketStats() SocketStats {
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

// due is when a send may be tried, if something waits, or the next thing falls due.
func (s *stream) due(queued bool) time.Time {
	if s.conn == nil {
		return never // until use
	}
	due := time.Time{}
	if !queued && len(s.pending.Datagrams) == 0 {
		due = earlier(s.announceDue, s.statsDue)
		if s.waiting() > 0 {
			due = earlier(due, s.hold.due())
		}
	}
	if due.Before(s.nextAttempt) {
		due = s.nextAttempt
	}
	return due
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
	event.Number, event.Cut = s.number+1, false
	err := s.packer.Pack(&s.batch, event)
	if event.Cut {
		s.counts.truncated++
	}
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
	s.counts.queued = s.pending.events + uint64(s.waiting())
	if s.befell.pendingBytes != s.pending.held {
		s.befell.pendingBytes, s.befell.pool, s.befell.news = s.pending.held, s.pending.pool.Stats(), true
	}
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
