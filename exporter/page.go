package exporter

import (
	"encoding/hex"
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/transcode"
)

// The slots of the page of counters: what intake counted, under a stream id of its
// own and stored under the lock; the predecessors of which the receivers were not
// told yet, stored by the holder of the role; and the streams, likewise.
const (
	intakeStream = ^uint64(0)

	intakeSlot      = 0
	predecessorSlot = 1
	streamSlot      = predecessorSlot + maxPredecessors
)

// maxPredecessors is how many streams of earlier processes are told one by one, when
// none of those lived long enough to do it. Of more of them the oldest become a sum.
const maxPredecessors = 32

const (
	// quietTime without an event is proof enough that none was on its way to us before
	// its end.
	quietTime = time.Second
	// noteInterval is the least time between two looks at what was lost before us.
	noteInterval = time.Second
)

// predecessor is a stream of an earlier process that ended without a goodbye.
type predecessor struct {
	ledger.Counters
	slot    int
	tellers int // streams that have yet to tell of it
}

// openPage reads what the previous run left, and begins a page of this one's own.
// Without a page nothing fails but the successor's knowledge.
func (e *UDPExporter) openPage(path string) {
	log := e.config.Logger.With("file", path)
	e.clock = readClock()
	slots, err := ledger.ReadPage(path)
	known := err == nil || errors.Is(err, fs.ErrNotExist)
	switch {
	case known:
	case slots == nil:
		aside := path + ".unreadable"
		log.Warn("The counters of the previous run cannot be read and are set aside: its account stays open, and how long nothing was seen is not known",
			"as", aside, "cause", err, "set_aside", os.Rename(path, aside) == nil)
	default:
		log.Warn("Some of the previous run's counters are damaged: those are not told", "cause", err)
	}
	var intake *ledger.Counters
	var unreported []ledger.Counters
	said := false // something left the previous process, or came to it
	for i := range slots {
		c := &slots[i]
		switch {
		case c.Stream == intakeStream:
			intake = c
			said = c.Seen > 0
		case c.Streams > 0:
			unreported = append(unreported, *c)
		case c.Stream == 0 || c.Goodbye:
			said = said || c.Goodbye
		case intake == nil:
			log.Warn("What the previous run had seen is not known, so its stream is not told", "stream", streamIDText(c.Stream))
		case c.Datagrams > 0 || intake.Seen > 0:
			said = true
			c.Perish(intake)
			unreported = append(unreported, *c)
			log.Warn("The previous run was killed; its account is sent in its place", "stream", streamIDText(c.Stream), "last_number", c.LastNumber,
				"sent", c.Sent, "killed", c.Dropped[ledger.Killed], "perhaps_sent", c.Offered.Events)
		}
	}
	now := e.clock.moment(time.Now())
	switch {
	case intake != nil:
		e.gap, known = now.Since(intake.Counted)
		if !said { // nobody will ever tell of its time
			e.gap += intake.Before.BlindTime
			known = known && !intake.Before.BlindUnknown
		}
	case len(slots) > 0:
		known = false // it is damaged
	}
	e.gapUnknown = !known
	e.noted = ledger.Before{BlindTime: e.gap, BlindUnknown: e.gapUnknown}
	e.counted = now
	e.inherit(unreported)
	e.createPage()
}

// inherit takes over the streams of which nobody has told, the oldest first.
func (e *UDPExporter) inherit(unreported []ledger.Counters) {
	for len(unreported) > maxPredecessors {
		unreported[1].Add(&unreported[0])
		unreported[1].Stream, unreported[1].Destination = 0, 0
		unreported = unreported[1:]
	}
	for i := range unreported {
		p := &predecessor{Counters: unreported[i], slot: predecessorSlot + i}
		e.predecessors = append(e.predecessors, p)
		tellers := e.worker.streams
		for k, s := range e.worker.streams {
			if s.destinationKey == p.Destination {
				tellers = e.worker.streams[k : k+1] // the others never heard of it
			}
		}
		p.tellers = len(tellers)
		for _, s := range tellers {
			s.predecessors = append(s.predecessors, p)
		}
	}
}

// destinationKey tells destinations apart.
func destinationKey(address string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(address))
	return max(1, h.Sum64())
}

// Gap returns how long before NewUDPExporter the previous run had last counted, by
// Config.CountersFile; 0 if there was none. It returns false if that is not known.
func (e *UDPExporter) Gap() (time.Duration, bool) { return e.gap, !e.gapUnknown }

// createPage begins a page with a place for each stream, and for the last that ended
// of each destination.
func (e *UDPExporter) createPage() {
	slots := make([]ledger.Counters, streamSlot+len(e.worker.all))
	slots[intakeSlot] = e.intakeCounters()
	for _, p := range e.predecessors {
		if p.tellers > 0 {
			slots[p.slot] = p.Counters
		}
	}
	for i, s := range e.worker.all {
		slots[streamSlot+i] = s.counters()
	}
	for i := range e.ended {
		slots = append(slots, e.ended[i].last)
	}
	page, err := ledger.CreatePage(e.config.CountersFile, e.clock.boot, slots)
	if err != nil {
		e.config.Logger.Warn("No counters are kept for the next run", "file", e.config.CountersFile, "cause", err)
	}
	e.setPage(page)
}

func (e *UDPExporter) setPage(page *ledger.Page) {
	e.page = page
	for i, s := range e.worker.all {
		s.page, s.slot = page, streamSlot+i
	}
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

func (e *UDPExporter) intakeCounters() ledger.Counters {
	return ledger.Counters{Stream: intakeStream, Seen: e.seen, Excluded: e.excluded, Dropped: e.dropped, Before: e.noted, Counted: e.counted}
}

// storeIntake brings what intake counted up to date. Called with the lock.
func (e *UDPExporter) storeIntake() {
	if e.page == nil {
		return
	}
	c := e.intakeCounters()
	e.page.Store(intakeSlot, &c)
}

// storePage brings the page up to date. Called with the lock and the role.
func (e *UDPExporter) storePage() {
	if e.page == nil {
		return
	}
	if w := &e.worker; w.notedAt.After(e.notedAt) {
		e.noted, e.notedAt = w.noted, w.notedAt
	}
	if e.unnoted && !e.firstTake.IsZero() && !e.notedAt.Before(e.firstTake) {
		e.unnoted, e.counted = false, e.countedNext
	}
	e.countQuiet(time.Now())
	e.storeIntake()
	for _, s := range e.worker.all {
		s.store()
	}
	if err := e.page.Err(); err != nil {
		e.config.Logger.Warn("No counters are kept for the next run", "cause", err)
		_ = e.page.Close()
		e.setPage(nil)
	}
}

// store brings the stream's slot up to date.
func (s *stream) store() {
	if s.page == nil {
		return
	}
	c := s.counters()
	if s.offeredTo >= s.unsent.next {
		c.Offered = ledger.Offered{First: s.unsent.next, Last: s.offeredTo, Events: s.unsent.upTo(s.offeredTo)}
	}
	s.page.Store(s.slot, &c)
}

// offering notes the events that the kernel is about to be given, and offered what
// came of it: a frame of which the call says that it was not taken may have left all
// the same, where a device cut the message that it was in.
func (s *stream) offering(events []int) {
	if s.page == nil {
		return
	}
	var sum uint64
	for _, n := range events {
		sum += uint64(n)
	}
	if sum > 0 {
		s.offeredTo = max(s.offeredTo, s.unsent.at(sum))
		s.store()
	}
}

func (s *stream) offered(b *datagram.Batch, err error) {
	if err == nil && (b == &s.batch || b == &s.pending.Batch) || s.frame == nil {
		s.offeredTo = 0
	}
}

// told notes that the predecessor was told of.
func (s *stream) told(p *predecessor) {
	if p.tellers--; p.tellers == 0 && s.page != nil {
		s.page.Store(p.slot, &ledger.Counters{})
	}
}

// happened returns when the last of the events happened, or the zero time if it does
// not say.
func (e *UDPExporter) happened(events [][]byte, f form) (at time.Time) {
	if e.config.CountersFile != "" && f == formWire && len(events) > 0 {
		at, _ = transcode.TimeOf(events[len(events)-1])
	}
	return at
}

// countUpTo notes that every event up to the one that happened then was counted. What
// happened before the subscription is a recording's, and says nothing. Called with
// the lock.
func (e *UDPExporter) countUpTo(happened, now time.Time) {
	if e.page == nil {
		return
	}
	if e.subscribed.IsZero() || happened.Before(e.subscribed) || happened.After(now) {
		happened = now
	}
	m := e.clock.moment(now)
	m.Monotonic -= now.Sub(happened)
	m.Wall = happened.Round(0)
	if !e.unnoted {
		e.counted = m
		return
	}
	// Or what was lost before it would be in nobody's figures after a kill.
	if e.countedNext = m; e.firstTake.IsZero() {
		e.firstTake = now
		e.worker.renote.Store(true)
	}
}

// countQuiet notes that there was no event to count for a while, if there was none.
// Called with the lock.
func (e *UDPExporter) countQuiet(now time.Time) {
	if quiet := now.Add(-quietTime); !e.closed && e.lastTake.Before(quiet) && quiet.After(e.counted.Wall) {
		e.counted = e.clock.moment(quiet)
	}
}

// note looks at what was lost before the exporter, for the page. Called with the
// role.
func (w *worker) note(now time.Time) {
	if w.upstream != nil && (now.Sub(w.notedAt) >= noteInterval || w.renote.Load()) {
		w.renote.Store(false)
		w.noted, w.notedAt = w.upstream().before(), now
	}
}

// noteChange notes, at once, that events come from now on, or that none is counted
// any more, and what was lost before the exporter until now.
func (e *UDPExporter) noteChange(subscribed bool) {
	var noted ledger.Before
	asked := e.config.CountersFile != "" && e.config.Upstream != nil
	if asked {
		noted = e.config.Upstream().before()
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if subscribed {
		e.subscribed, e.counted = now, e.clock.moment(now)
		e.unnoted, e.firstTake = asked, time.Time{}
	} else {
		e.countQuiet(now)
	}
	if asked {
		e.noted, e.notedAt = noted, now
	}
	e.storeIntake()
}

func (u Upstream) before() ledger.Before {
	return ledger.Before{Breaks: u.Breaks, BlindTime: u.BlindTime, BlindUnknown: u.BlindUnknown, Losses: ledger.LossesOf(u.Losses)}
}

// hostClock relates this process's times to those of the processes before and after
// it.
type hostClock struct {
	boot      [16]byte // zero: unknown
	monotonic time.Duration
	at        time.Time // of monotonic
}

// monotonicClock is CLOCK_MONOTONIC; tests have one of their own.
var monotonicClock = func() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func readClock() hostClock {
	c := hostClock{monotonic: monotonicClock(), at: time.Now()}
	if text, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		if id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")); err == nil {
			copy(c.boot[:], id)
		}
	}
	return c
}

func (c hostClock) moment(t time.Time) ledger.Moment {
	return ledger.Moment{Wall: t.Round(0), Monotonic: c.monotonic + t.Sub(c.at), Boot: c.boot}
}
