package exporter

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
	"tetracast/transcode"
)

// ErrClosed is returned by the Send methods once Run has ended or Close was
// called. The event is counted as dropped, reason shutdown.
var ErrClosed = errors.New("exporter: closed")

// inlineBytes is the largest batch that a caller of Send works off itself. A
// larger one is a burst: the caller goes back to reading, and Run's goroutine
// works.
const inlineBytes = 32 << 10

// Events that a source reads one by one, close together, would cost a system
// call each if their reader sent them. After quickTakes small batches in a row,
// each within quickGap of the one before, the reader only queues; the worker
// then finds batches, and the two share the load.
const (
	quickTakes = 32
	quickGap   = 20 * time.Microsecond
	smallBatch = 16 // events; a larger batch fills a system call by itself
)

// UDPExporter sends events to its destinations. Make one with
// [NewUDPExporter], give Run a goroutine, then send from any number of
// goroutines.
type UDPExporter struct {
	config Config
	worker worker                                        // belongs to the holder of the role
	dial   func(*stream, netip.AddrPort) (sender, error) // (*stream).dial, but in tests

	sndbufErrors *uint64 // of the network namespace at the start; nil: unknown
	unknown      unknownKinds

	unresolved []*stream // without a socket when Run begins

	mu       sync.Mutex // guards the fields below; taken once or twice a batch
	holder   holder
	lastTake time.Time // of quick
	quickRow int       // of quick
	parked   bool      // Run's goroutine has the role and waits for a destination
	queue    queue
	inHand   uint64 // events that the holder has taken and not settled
	seen     uint64
	excluded uint64
	dropped  ledger.Drops // at intake
	settled  workerCounts // the worker's counts at the last hand-over
	closed   bool         // intake takes nothing any more
	tetragon *Tetragon    // for the next agent_init; nil: not known yet
	announce bool         // agent_init is wanted at the next hand-over, due or not
	dialled  []dialled    // sockets for the streams that wait for one
	change   *change      // other destinations that are to be in force
	// keepResolving gives a stream a goroutine that resolves its name; nil while Run
	// does not run.
	keepResolving func(*stream)
	clusterName   string
	repaired      uint64    // events that Send had to repair
	armed         time.Time // when Run's goroutine looks for work without being told

	page     *ledger.Page // nil: none is kept
	changing sync.Mutex   // one SetDestinations at a time

	leaving chan struct{}         // tells keepStored that there is something to leave; capacity 1
	spoilt  chan *metadata.Record // tells it that a record's file was changed; capacity 1

	serving    context.Context // ends when intake is closed
	endServing context.CancelFunc

	rounds  atomic.Uint64 // of Run's goroutine
	wake    chan struct{} // tells Run to look for work; capacity 1
	closing chan struct{} // closed by Close: ends Run
	ended   chan struct{} // closed when Run has ended; nil before Run
}

// holder says who has the worker role.
type holder uint8

const (
	nobody holder = iota
	caller        // a caller of Send or SendMetadataEvent
	runner        // Run's goroutine, or it was told to take it
)

// dialled is a socket on its way from the goroutine that resolved its address
// to the holder of the role.
type dialled struct {
	stream *stream
	conn   sender
}

// NewUDPExporter checks the configuration and opens the sockets of those
// destinations that are IP addresses to which there is a route; the others
// follow in Run, when their names resolve. It starts no goroutine. The error
// lists all that is wrong with the configuration.
func NewUDPExporter(config Config) (*UDPExporter, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &UDPExporter{
		config:   config,
		dial:     (*stream).dial,
		queue:    queue{maxBytes: config.QueueBytes},
		tetragon: config.Tetragon,
		announce: config.Tetragon != nil,
		wake:     make(chan struct{}, 1),
		leaving:  make(chan struct{}, 1),
		spoilt:   make(chan *metadata.Record, 1),
		closing:  make(chan struct{}),
	}
	if n, err := udp.SndbufErrors(); err == nil {
		e.sndbufErrors = &n
	}
	e.serving, e.endServing = context.WithCancel(context.Background())
	for _, d := range config.Destinations {
		s, err := e.makeStream(d)
		if err != nil {
			_ = e.closeSockets()
			return nil, err
		}
		e.worker.streams = append(e.worker.streams, s)
		e.worker.lineNeeded = e.worker.lineNeeded || s.needsLine()
		if s.conn == nil {
			e.unresolved = append(e.unresolved, s)
		}
	}
	e.worker.all = slices.Clone(e.worker.streams)
	if e.worker.transcoder, err = NewTranscoder(config.TranscodeCacheBytes); err != nil {
		_ = e.closeSockets()
		return nil, err
	}
	if config.Measure != nil {
		e.worker.sampler = &sampler{Measure: *config.Measure}
	}
	e.settled.streams = make([]streamCounts, len(e.worker.streams))
	e.settled.befell = make([]befell, len(e.worker.streams))
	if config.CountersFile != "" {
		e.openPage(config.CountersFile)
	}
	return e, nil
}

// SendBatch takes protobuf messages of type GetEventsResponse, in order. The
// slices are only read, and not kept. It never waits for a destination. It is
// the door for a source that reads in batches: a lock is taken once or twice
// for 64 events. The only error is ErrClosed; what becomes of each event stands
// in the account.
//
// All Send methods are safe for concurrent use.
func (e *UDPExporter) SendBatch(batch [][]byte) error {
	for len(batch) > 0 {
		n := min(len(batch), maxTake)
		if err := e.take(batch[:n], formWire); err != nil && n == len(batch) {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// QueuedBytes returns how many bytes of events wait, of Config.QueueBytes. A source
// that can wait, such as a file, does so while there are many.
func (e *UDPExporter) QueuedBytes() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queue.bytes
}

// take lets up to maxTake events in.
func (e *UDPExporter) take(events [][]byte, f form) error {
	own, void, policy := e.look(events, f)
	left := own | void
	now := time.Now()
	e.mu.Lock()
	e.seen += uint64(len(events))
	e.excluded += own.count()
	e.dropped[ledger.Invalid] += void.count()
	if e.closed {
		e.dropped[ledger.Shutdown] += uint64(len(events)) - left.count()
		e.mu.Unlock()
		return ErrClosed
	}
	quick := e.quick(now, len(events))
	if !quick && e.holder == nobody && e.queue.empty() && size(events) <= inlineBytes && e.worker.ready(now) {
		e.assume(caller)
		e.inHand = uint64(len(events)) - left.count()
		e.mu.Unlock()
		for i, event := range events {
			if !left.has(i) {
				e.worker.add(event, f)
			}
		}
		e.worker.finish(now)
		e.settle()
		return nil
	}
	e.queue.now = now
	for i, event := range events {
		if !left.has(i) {
			e.queue.push(event, f, policy.lane(i))
		}
	}
	e.dropped[ledger.QueueFullProcess] = e.queue.dropped[processLane]
	e.dropped[ledger.QueueFullPolicy] = e.queue.dropped[policyLane]
	e.storeIntake()
	if e.parked && e.worker.ready(now) {
		e.tell() // one destination is waited for, another could go on
	}
	e.delegate()
	e.mu.Unlock()
	return nil
}

// quick says whether small batches come so fast that they are better queued.
// Called with the lock.
func (e *UDPExporter) quick(now time.Time, events int) bool {
	if events >= smallBatch || now.Sub(e.lastTake) > quickGap {
		e.quickRow = 0
	} else {
		e.quickRow++
	}
	e.lastTake = now
	return e.quickRow > quickTakes
}

// assume takes the role and what was left for its holder. Called with the lock.
func (e *UDPExporter) assume(h holder) {
	e.holder = h
	e.worker.intake.seen, e.worker.intake.excluded, e.worker.intake.dropped = e.seen, e.excluded, e.dropped
	e.worker.intake.clusterName = e.clusterName
	for _, d := range e.dialled {
		d.stream.use(d.conn)
	}
	e.dialled = nil
	if c := e.change; c != nil {
		e.change = nil
		e.apply(c)
	}
	if e.announce {
		e.announce = false
		for _, s := range e.worker.streams {
			s.announceNow()
		}
	}
}

// settle publishes what a caller did in the role, and gives the role back, or
// to Run's goroutine if something is left to do.
func (e *UDPExporter) settle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.publish()
	e.holder = nobody
	if e.closed || !e.queue.empty() || e.worker.pending() || e.asked() || e.worker.again(false).Before(e.armed) {
		e.delegate()
	}
}

// delegate tells Run's goroutine to take the role if nobody has it. Called with
// the lock.
func (e *UDPExporter) delegate() {
	if e.holder != nobody {
		return // the holder looks again before it gives the role back
	}
	e.holder = runner
	e.tell()
}

// tell makes Run's goroutine look for work.
func (e *UDPExporter) tell() {
	select {
	case e.wake <- struct{}{}:
	default: // it has been told already
	}
}

// publish makes the worker's counts part of the account. Called with the lock
// and the role.
func (e *UDPExporter) publish() {
	e.worker.snapshot(&e.settled)
	e.inHand = 0
	e.storePage()
}

// SetTetragon states what Tetragon the events come from. If that is news, a
// new agent_init is sent to every destination, with the time at which it was made.
func (e *UDPExporter) SetTetragon(t Tetragon) {
	e.mu.Lock()
	news := e.tetragon == nil || *e.tetragon != t
	e.tetragon = &t
	e.clusterName = t.ClusterName
	e.mu.Unlock()
	select {
	case e.leaving <- struct{}{}:
	default: // it has been told already
	}
	for _, s := range e.streams() {
		if news {
			s.cache.Forget(metadata.NewTetragon)
		} else if r := s.cache.Current(); r != nil {
			s.cache.Settle(r) // the mapping has served: memory needs no look before each use
		}
	}
	if news {
		_ = e.SendMetadataEvent() // ErrClosed: nobody is left to tell
	}
}

// facts is what agent_init says to a destination.
func (e *UDPExporter) facts(d Destination) metadata.Facts {
	f := e.config.hostFacts()
	f.UDPDestination, f.UDPBufferSize = d.Address, d.UDPBufferSize
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tetragon != nil {
		f.TetragonVersion, f.BuildCommit, f.BuildDate = e.tetragon.Version, e.tetragon.BuildCommit, e.tetragon.BuildDate
	}
	return f
}

// Account returns the account as it is now. It closes at any moment.
func (e *UDPExporter) Account() ledger.Exporter {
	e.mu.Lock()
	defer e.mu.Unlock()
	account := ledger.Exporter{
		Side: "exporter", Seen: e.seen, Excluded: e.excluded, Dropped: e.dropped,
		UnknownKinds: e.unknown.events.Load(),
		Upstream:     map[string]*uint64{},
		Observed:     ledger.ExporterObserved{ICMPAnswers: map[string]uint64{}},
	}
	for _, stage := range ledger.UpstreamStages() {
		account.Upstream[stage] = nil
	}
	if now, err := udp.SndbufErrors(); err == nil && e.sndbufErrors != nil {
		since := now - *e.sndbufErrors
		account.Observed.SndbufErrors = &since
	}
	for i, s := range e.worker.all {
		for class, n := range e.settled.befell[i].answers {
			if n > 0 {
				account.Observed.ICMPAnswers[udp.AnswerClasses[class]] += n
			}
		}
		c := &e.settled.streams[i]
		queued, outside := e.queue.events+e.inHand+c.queued, s.before
		if s.parted {
			queued = c.queued
			outside += e.seen - e.excluded - e.dropped.Total() - s.until
		}
		account.Streams = append(account.Streams, ledger.Stream{
			Stream:      s.idText,
			Destination: s.Address,
			Dropped:     c.dropped,
			Sent:        c.sent,
			Queued:      queued,
			Outside:     outside,
			Datagrams:   c.datagrams,
			Bytes:       c.bytes,
			Truncated:   c.truncated,
		})
	}
	return account
}

// Stats counts what is no event: how the transcoder and agent_init fared.
type Stats struct {
	Repaired  uint64                // events with invalid UTF-8, sent with U+FFFD in its place
	Unknown   uint64                // events with fields that this release does not know, sent without them
	Fallbacks uint64                // events that protojson had to transcode
	Memo      transcode.CacheStats  // of the parts of events that repeat
	Lanes     [lanes]LaneStats      // of the queue, as Lanes names them
	Tetragon  string                // its version; empty: not known yet
	Metadata  []metadata.CacheStats // by stream, in the order of the account, as are the following
	Sockets   []SocketStats
	Streams   []DestinationStats
}

// SocketStats counts what the socket to a destination did since it was opened.
// The zero value is a destination without a socket.
type SocketStats = udp.ConnStats

// Stats returns the counts as of the last hand-over.
func (e *UDPExporter) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := &e.settled.transcoded
	s := Stats{Repaired: t.repaired + e.repaired, Unknown: t.unknown, Fallbacks: t.fallbacks, Memo: t.memo}
	for i, stream := range e.worker.all {
		s.Metadata = append(s.Metadata, stream.cache.Stats())
		s.Sockets = append(s.Sockets, stream.socketStats())
		s.Streams = append(s.Streams, e.settled.befell[i].stats(stream))
	}
	if e.tetragon != nil {
		s.Tetragon = e.tetragon.Version
	}
	now := time.Now()
	for l := range e.queue.lanes {
		list := &e.queue.lanes[l]
		s.Lanes[l] = LaneStats{Bytes: list.bytes, Age: list.age(now)}
	}
	return s
}
