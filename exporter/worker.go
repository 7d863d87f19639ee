package exporter

import (
	"math/bits"
	"sync/atomic"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/transcode"
)

// linesBytes is how many bytes of JSON the worker makes before it sends them:
// they are still in the processor's cache when the kernel copies them.
const linesBytes = 256 << 10

// The lines have linesRoom, into which one more event fits after linesBytes, but for
// a giant. What giants make of it is kept, up to maxLinesBytes, until linesIdle
// batches in a row did without.
const (
	linesRoom     = 2 * linesBytes
	maxLinesBytes = 16 * linesBytes
	linesIdle     = 256
)

// never is later than anything that is due.
var never = time.Unix(1<<40, 0)

// worker turns events into datagrams and sends them. It belongs to the holder
// of the role; nothing in it is locked.
type worker struct {
	transcoder *transcode.Transcoder
	streams    []*stream // that get events
	parting    []*stream // whose destinations are gone, until they have what waits for them and a goodbye
	all        []*stream // both, in the order in which they began
	left       bool      // one that was parting has ended
	lineNeeded bool      // some stream sends events as JSON
	lines      []byte    // the JSON lines of the events at hand, back to back
	idle       int       // batches since the lines needed more than linesRoom
	events     []event
	intake     intake          // as of the last time the role was taken
	final      bool            // nothing may be kept for a later datagram: intake is closed
	packing    datagram.Event  // here because what goes through an interface would be allocated
	sampler    *sampler        // nil: nothing is measured
	upstream   func() Upstream // nil: nobody knows
	noted      ledger.Before   // what it last said, for the page
	notedAt    time.Time
	renote     atomic.Bool // it is to look again at once; set by intake
	counts     workerCounts
}

// event is one event at hand: its line ends at end and begins where the one
// before it ends.
type event struct {
	end  int
	wire []byte
}

// workerCounts is what a worker counts; a copy is published at each hand-over.
type workerCounts struct {
	streams []streamCounts
	befell  []befell
	transcoded
}

// add makes the JSON of an event. The bytes must stay as they are until
// finish, unless so many came that add itself had to send some.
func (w *worker) add(bytes []byte, f form) {
	if len(w.lines) > linesBytes {
		w.finish(time.Now())
	}
	if w.lines == nil && w.lineNeeded {
		w.lines = make([]byte, 0, linesRoom)
	}
	if f == formLine {
		w.lines = append(w.lines, bytes...)
		w.events = append(w.events, event{end: len(w.lines)})
		return
	}
	if !w.lineNeeded {
		w.events = append(w.events, event{end: len(w.lines), wire: bytes})
		return
	}
	var lines []byte
	var info transcode.Info
	var err error
	if w.sampler != nil && w.sampler.transcode {
		lines, info, err = w.sampler.append(w.transcoder, w.lines, bytes)
	} else {
		lines, info, err = w.transcoder.Append(w.lines, bytes)
	}
	w.counts.count(info)
	if err != nil {
		for _, s := range w.streams {
			s.lose(ledger.Untranscodable, err, len(bytes))
		}
		return
	}
	w.lines = append(lines, '\n')
	w.events = append(w.events, event{end: len(w.lines), wire: bytes})
}

// finish packs and sends the events at hand, and agent_init where it is due.
func (w *worker) finish(now time.Time) {
	w.note(now)
	for _, s := range w.streams {
		s.setSums(&w.intake)
	}
	if w.sampler != nil && w.sampler.due(w, now) {
		w.sampler.begin(w, now)
	}
	start := 0
	for i := range w.events {
		w.packing = datagram.Event{Line: w.lines[start:w.events[i].end], Wire: w.events[i].wire}
		start = w.events[i].end
		for _, s := range w.streams {
			s.pack(&w.packing, w.transcoder)
		}
	}
	for _, s := range w.streams {
		s.flush(&w.intake, now, w.final)
	}
	if w.sampler != nil && w.sampler.open > 0 {
		w.sampler.end(w)
	}
	w.part(now)
	clear(w.events)
	w.events = w.events[:0]
	if w.idle++; len(w.lines) > linesRoom {
		w.idle = 0
	}
	w.lines = w.lines[:0]
	if w.inUse() || cap(w.lines) > maxLinesBytes || cap(w.lines) > linesRoom && w.idle > linesIdle {
		w.lines = nil // a giant's memory is not kept for ever, nor is what the kernel still reads
	}
}

// ready says whether any stream can send events now. Without one, they are better
// kept in the queue than worked off.
func (w *worker) ready(now time.Time) bool {
	for _, s := range w.streams {
		if s.ready(now) && len(s.pending.Datagrams) == 0 {
			return true
		}
	}
	return false
}

// inUse says whether a kernel still reads the lines.
func (w *worker) inUse() bool {
	for _, s := range w.all {
		if s.inUse() {
			return true
		}
	}
	return false
}

// pending says whether a destination still has to take something.
func (w *worker) pending() bool {
	if len(w.parting) > 0 {
		return true
	}
	for _, s := range w.streams {
		if len(s.pending.Datagrams) > 0 || s.waiting() > 0 {
			return true
		}
	}
	return false
}

// due returns when there is something to do: a destination may take what waits for
// it, of which queued says that it is in the queue, or something falls due.
func (w *worker) due(queued bool) time.Time {
	first := never
	for _, s := range w.parting {
		first = earlier(first, s.partDue())
	}
	for _, s := range w.streams {
		first = earlier(first, s.due(queued))
	}
	return first
}

// fit makes room for the streams that there are, and brings all up to date.
func (c *workerCounts) fit(w *worker) {
	c.streams, c.befell = make([]streamCounts, len(w.all)), make([]befell, len(w.all))
	for _, s := range w.all {
		s.befell.news = true
	}
	w.snapshot(c)
}

// snapshot copies the counts.
func (w *worker) snapshot(to *workerCounts) {
	for i, s := range w.all {
		to.streams[i] = s.counts
		s.befell.publish(&to.befell[i])
	}
	to.transcoded = w.counts.transcoded
	to.memo = w.transcoder.CacheStats()
}

// transcoded counts how the transcoder fared.
type transcoded struct {
	repaired, unknown, fallbacks uint64 // events
	memo                         transcode.CacheStats
}

func (t *transcoded) count(info transcode.Info) {
	if info.Repaired > 0 {
		t.repaired++
	}
	if info.Unknown > 0 {
		t.unknown++
	}
	if info.Fallback {
		t.fallbacks++
	}
}

// maxTake is how many events are let in under one lock: as many as a mask has
// bits.
const maxTake = 64

// mask marks some of maxTake events.
type mask uint64

func (m mask) has(i int) bool  { return m&(1<<i) != 0 }
func (m mask) lane(i int) lane { return lane(m >> i & 1) }
func (m mask) count() uint64   { return uint64(bits.OnesCount64(uint64(m))) }

// look says of each event whether the exporter itself caused it, whether there is
// nothing in it, and which are of policyLane. It looks at each one's outermost fields.
func (e *UDPExporter) look(events [][]byte, f form) (own, void, policy mask) {
	for i, event := range events {
		if f == formLine {
			l := laneOfLine(event)
			if policy |= mask(l) << i; l == policyLane {
				e.countUnknownName(unknownKindOfLine(event))
			}
			continue
		}
		kind, member := transcode.KindOf(event)
		if kind == 0 {
			e.countUnknown(transcode.UnknownKind(event))
		}
		policy |= mask(laneOf(kind)) << i
		if kind == 0 && isVoid(event) {
			void |= 1 << i
			continue
		}
		if e.config.Self != nil && e.config.Self.caused(event, kind, member) {
			own |= 1 << i
		}
	}
	return own, void, policy
}

// isVoid says whether a message without a kind that is known holds no event: one of a kind
// that a newer Tetragon has still has a time or a node, and no receiver could tell the
// JSON of another from nothing. What is malformed is for the transcoder to say.
func isVoid(wire []byte) bool {
	s, err := transcode.Scan(wire)
	return err == nil && !s.HasTime && len(s.Node) == 0
}

func size(events [][]byte) int {
	n := 0
	for _, e := range events {
		n += len(e)
	}
	return n
}
