package exporter

import (
	"context"
	"errors"
	"net/netip"
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
	dial   func(*stream, netip.AddrPort) (sender, error) // (*stream).dial, but in tests

	sndbufErrors *uint64 // of the network namespace at the start; nil: unknown
	unknown      unknownKinds

	// worker belongs to the holder of the role; while nobody has it, to whoever has mu.
	worker worker

	mu       sync.Mutex // guards the fields below; taken once or twice a batch
	held     bool       // somebody has the role, and is at work
	orders   []func()   // what the holder does with the lock when it gives the role back
	announce bool       // agent_init is ordered
	comes    time.Time  // when Run's goroutine looks for work at the latest
	lastTake time.Time  // of quick
	quickRow int        // of quick
	queue    queue
	inHand   uint64 // events that the holder has taken and not settled
	seen     uint64
	excluded uint64
	dropped  ledger.Drops // at intake
	settled  workerCounts // the worker's counts at the last hand-over
	ended    []endedStreams
	closed   bool           // intake takes nothing any more
	host     metadata.Facts // as read at the start and at each change of the destinations
	tetragon *Tetragon      // for the next agent_init; nil: not known yet
	// keepResolving gives a stream a goroutine that resolves its name; nil while Run
	// does not run.
	keepResolving func(*stream)
	clusterName   string
	repaired      uint64             // events that Send had to repair
	refusals      throttle           // of what intake cannot use
	page          *ledger.Page       // nil: none is kept
	stopRun       context.CancelFunc // ends Run; nil before Run

	predecessors []*predecessor
	clock        hostClock
	gap          time.Duration // of Gap
	gapUnknown   bool
	noted        ledger.Before // what was lost before us, for the page
	notedAt      time.Time
	counted      ledger.Moment // every event up to it was counted
	subscribed   time.Time     // last; zero: never
	unnoted      bool          // what was lost until the first event since then is not in noted
	firstTake    time.Time     // of that event; zero: none came
	countedNext  ledger.Moment // what counted is when it is

	changing sync.Mutex // one SetDestinations at a time

	leaving chan struct{}         // tells keepStored that there is something to leave; capacity 1
	spoilt  chan *metadata.Record // tells it that a record's file was changed; capacity 1
	unkept  sync.Once             // says that nothing is kept for the next run

	serving    context.Context // ends when intake is closed
	endServing context.CancelFunc

	rounds atomic.Uint64 // of Run's goroutine
	wake   chan struct{} // tells Run to look for work; capacity 1
	done   chan struct{} // closed when Run has ended, or Close was called without it
}

// NewUDPExporter checks the configuration and opens the sockets of those
// destinations that are IP addresses to which there is a route; the others
// follow in Run, when their names resolve. It starts no goroutine. The error
// lists all that is wrong with the configuration.
func NewUDPExporter(config Config) (*UDPExporter, error) {
	return newExporter(config, (*stream).dial)
}

func newExporter(config Config, dial func(*stream, netip.AddrPort) (sender, error)) (*UDPExporter, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &UDPExporter{
		config:   config,
		dial:     dial,
		queue:    queue{maxBytes: config.QueueBytes},
		host:     config.hostFacts(),
		tetragon: config.Tetragon,
		comes:    never,
		wake:     make(chan struct{}, 1),
		leaving:  make(chan struct{}, 1),
		spoilt:   make(chan *metadata.Record, 1),
		done:     make(chan struct{}),
	}
	if n, err := udp.SndbufErrors(); err == nil {
		e.sndbufErrors = &n
	}
	e.serving, e.endServing = context.WithCancel(context.Background())
	if e.worker.transcoder, err = NewTranscoder(config.TranscodeCacheBytes); err != nil {
		return nil, err
	}
	e.worker.upstream = config.Upstream
	if config.Measure != nil {
		e.worker.sampler = &sampler{Measure: *config.Measure}
	}
	var streams []*stream
	for _, d := range config.Destinations {
		s, err := e.makeStream(d, e.host)
		if err != nil {
			closeAll(streams)
			return nil, err
		}
		streams = append(streams, s)
	}
	e.apply(streams)
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
	happened := e.happened(events, f)
	now := time.Now()
	e.mu.Lock()
	e.seen += uint64(len(events))
	e.excluded += own.count()
	e.dropped[ledger.Invalid] += void.count()
	if e.closed {
		e.dropped[ledger.Shutdown] += uint64(len(events)) - left.count()
		e.storeIntake()
		e.mu.Unlock()
		return ErrClosed
	}
	quick := e.quick(now, len(events))
	e.countUpTo(happened, now)
	if !quick && !e.held && e.queue.empty() && size(events) <= inlineBytes && e.worker.ready(now) {
		e.assume()
		e.inHand = uint64(len(events)) - left.count()
		e.storeIntake()
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
	e.arrange()
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

// SetTetragon states what Tetragon the events come from. If that is news, a
// new agent_init is sent to every destination, with the time at which it was made.
func (e *UDPExporter) SetTetragon(t Tetragon) {
	e.mu.Lock()
	news := e.tetragon == nil || *e.tetragon != t
	e.tetragon = &t
	e.clusterName = t.ClusterName
	e.mu.Unlock()
	e.noteChange(true)
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

// facts is what agent_init says to a destination. It asks nobody: what is slow to
// read must not stand in the way of events.
func (e *UDPExporter) facts(d Destination) metadata.Facts {
	e.mu.Lock()
	f := e.host
	if t := e.tetragon; t != nil {
		f.TetragonVersion, f.BuildCommit, f.BuildDate = t.Version, t.BuildCommit, t.BuildDate
	}
	e.mu.Unlock()
	if e.config.MetadataCacheOff {
		now := e.config.hostFacts()
		f.Hostname, f.KernelVersion, f.PID, f.Labels = now.Hostname, now.KernelVersion, now.PID, now.Labels
	}
	f.UDPDestination, f.UDPBufferSize = d.Address, d.UDPBufferSize
	return f
}

// Account returns the account as it is now. It closes at any moment.
func (e *UDPExporter) Account() ledger.Exporter {
	sndbufErrors, err := udp.SndbufErrors() // without the lock: it reads /proc
	e.mu.Lock()
	defer e.mu.Unlock()
	account := ledger.Exporter{
		Side: "exporter", Seen: e.seen, Excluded: e.excluded, Dropped: e.dropped,
		UnknownKinds: e.unknown.events.Load(),
		Upstream:     map[string]*uint64{},
		Observed:     ledger.ExporterObserved{ICMPAnswers: map[string]uint64{}},
		Streams:      make([]ledger.Stream, 0, len(e.ended)+len(e.worker.all)),
	}
	for _, stage := range ledger.UpstreamStages() {
		account.Upstream[stage] = nil
	}
	if err == nil && e.sndbufErrors != nil {
		since := sndbufErrors - *e.sndbufErrors
		account.Observed.SndbufErrors = &since
	}
	answered := func(answers [len(udp.AnswerClasses)]uint64) {
		for class, n := range answers {
			if n > 0 {
				account.Observed.ICMPAnswers[udp.AnswerClasses[class]] += n
			}
		}
	}
	for i := range e.ended {
		answered(e.ended[i].stats.Answers)
		account.Streams = append(account.Streams, e.ended[i].row(e.accepted()))
	}
	for i, s := range e.worker.all {
		answered(e.settled.befell[i].answers)
		account.Streams = append(account.Streams, e.row(s, &e.settled.streams[i]))
	}
	return account
}

// accepted is how many events intake has let in and not lost. Called with the lock.
func (e *UDPExporter) accepted() uint64 { return e.seen - e.excluded - e.dropped.Total() }

// row is the account of a stream. Called with the lock.
func (e *UDPExporter) row(s *stream, c *streamCounts) ledger.Stream {
	row := ledger.Stream{
		Stream:      s.idText,
		Destination: s.Address,
		Dropped:     c.dropped,
		Sent:        c.sent,
		Queued:      c.queued,
		Outside:     s.before,
		Datagrams:   c.datagrams,
		Bytes:       c.bytes,
		Truncated:   c.truncated,
	}
	if s.parted {
		row.Outside += e.accepted() - s.until
	} else {
		row.Queued += e.queue.events + e.inHand
	}
	return row
}

// QueuedEvents returns how many events some destination still has to take.
func (e *UDPExporter) QueuedEvents() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	var most uint64
	for i := range e.settled.streams {
		most = max(most, e.settled.streams[i].queued)
	}
	return e.queue.events + e.inHand + most
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
	for i := range e.ended {
		past := &e.ended[i]
		s.Metadata, s.Sockets, s.Streams = append(s.Metadata, past.cache), append(s.Sockets, SocketStats{}), append(s.Streams, past.stats)
	}
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
