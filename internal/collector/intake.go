package collector

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strconv"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/transcode"
)

// intakeBytes is how much JSON an intake makes before it hands it to the queue.
const intakeBytes = 256 << 10

// maxHeldBytes bounds the frames that were too far ahead to be believed alone.
const maxHeldBytes = 8 << 20

// What an event of a frame may become as JSON: so many times its bytes, and some more.
// Events that were recorded become two or three times as long, those with all
// capabilities and little else five times.
const (
	lineFree  = 8 << 10
	lineRatio = 8
	maxLine   = 32 << 20
)

// lineLimit returns the most bytes of JSON for an event of so many.
func lineLimit(wire int) int { return min(lineFree+lineRatio*wire, maxLine) }

// maxPieces bounds the bytes of fragments and chunks that wait for the others of their
// set, in all sockets together.
const maxPieces = 32 << 20

// intake turns the datagrams of one socket into lines. What it needs for that is
// its own: the lock of the collector is taken for a moment for each frame, to say
// what it is, and once for a batch, to queue the lines.
type intake struct {
	c          *Collector
	frames     *datagram.FrameReader
	gelf       *datagram.GELFReader
	transcoder *transcode.Transcoder
	header     datagram.Header // of the frame at hand
	addEvent   func(number uint64, event []byte)

	arrivals []arrival
	text     []byte // JSON of the events at hand
	ends     []int  // where in text each of them ends
	faults   undecodable
	faulty   bool   // faults has some
	count    uint64 // datagrams
	bytes    uint64
	gaveUp   []incomplete
	keys     *[]*datagram.Key // that frames has
	givenUp  uint64           // sets of chunks, so far
	lostSets uint64           // sets of fragments, so far

	transcoded, published transcoded // published is guarded by the collector's lock
	sample                bool       // the next event to transcode is timed
	sampleNext            time.Time
}

// arrival is what one datagram brought.
type arrival struct {
	kind   datagram.Kind  // 0: it is no event, and its line is passed on
	source netip.AddrPort // of what carries no number
	line   []byte         // likewise: an event or an event about the agent

	stream      *stream // of what carries numbers; nil: it carries none
	record      uint64  // digest of the agent_init that the frame names; 0: none
	first, last uint64  // the numbers of the events; none if last is before first
	announced   uint64  // the highest number that its sender had given
	sums        ledger.Sums
	lines, to   int           // the events are ends[lines:to]
	lost        bool          // its content cannot be used
	reason      ledger.Reason // why
}

// incomplete is an event whose fragments were given up.
type incomplete struct {
	stream datagram.StreamName
	number uint64
}

func newIntake(c *Collector) *intake {
	in := &intake{c: c, keys: c.keys.Load(), gelf: datagram.NewGELFReader(datagram.GELFLimits{Chunks: datagram.GELFChunkLimits{Bytes: maxPieces, Budget: c.pieces}})}
	in.frames = datagram.NewFrameReader(datagram.FrameReaderConfig{
		Keys: *c.keys.Load(), Dictionaries: c.config.Dictionaries, Fragments: datagram.FragmentLimits{Bytes: maxPieces, Budget: c.pieces},
		GaveUp: func(stream datagram.StreamName, number uint64) {
			in.gaveUp = append(in.gaveUp, incomplete{stream, number})
		},
	})
	in.addEvent = in.event // bound once: a method value allocates
	return in
}

// take turns the datagrams into lines and queues them. It returns the last one
// that could not be decoded, if there is one.
func (in *intake) take(packets []packet) (faulty *packet) {
	now := time.Now()
	if keys := in.c.keys.Load(); keys != in.keys {
		in.keys = keys
		in.frames.SetKeys(*keys)
	}
	in.sampleDue(now)
	for i := range packets {
		p := &packets[i]
		in.count++
		in.bytes += uint64(len(p.Payload))
		if fault, ok := in.datagram(p, now); !ok {
			in.fault(formatOf(p.Payload), fault)
			faulty = p
		}
		if len(in.text) > intakeBytes {
			in.hand(now)
		}
	}
	in.frames.Expire(now)
	in.gelf.Expire(now)
	in.hand(now)
	return faulty
}

// datagram reads one datagram. It returns false and why if nothing in it can be
// trusted.
func (in *intake) datagram(p *packet, now time.Time) (ledger.Fault, bool) {
	c := in.c
	switch {
	case p.Truncated:
		return ledger.FaultTruncated, false
	case !c.mayspeak(p.Source.Addr()):
		return ledger.FaultSource, false
	case isFrame(p.Payload) && c.takes.frame:
		return in.frame(p.Payload, now)
	case !c.takes.text():
		return ledger.FaultVersion, false
	case len(c.config.Keys) > 0:
		return ledger.FaultUnsealed, false
	}
	return in.message(p.Payload, p.Source, now)
}

// isFrame tells a frame from the formats that are text.
func isFrame(d []byte) bool { return len(d) > 1 && d[0] == 0xd7 && d[1] == 0x54 }

// frame reads one frame.
func (in *intake) frame(d []byte, now time.Time) (ledger.Fault, bool) {
	h := &in.header
	body, err := in.frames.Open(d, h)
	if err != nil {
		return faultOf(err), false
	}
	s, verdict, held := in.c.admit(h.Name(), place{h.Datagram, h.Last()}, h.Sealed, d, now)
	events := uint64(h.Count)
	if h.Fragment.Index > 0 {
		events = 0 // its first fragment stands for the event
	}
	switch verdict {
	case ledger.Fresh:
	case ledger.Jump:
		return 0, true // it is held; if nobody agrees it becomes a fault
	default:
		in.c.repeat(s, verdict, events)
		return 0, true
	}
	in.read(s, h, body, now)
	if held {
		return in.again(s, now)
	}
	return 0, true
}

// again reads the datagram that was held, if it is now believed.
func (in *intake) again(s *stream, now time.Time) (ledger.Fault, bool) {
	switch d := in.c.believed(s); {
	case d == nil:
		return 0, true
	case isFrame(d):
		return in.frame(d, now)
	default:
		return in.message(d, netip.AddrPort{}, now)
	}
}

// read takes the events out of a frame that is new.
func (in *intake) read(s *stream, h *datagram.Header, body []byte, now time.Time) {
	a := arrival{
		stream: s, record: h.Record, kind: h.Kind, first: h.First, last: h.Last(), announced: h.Last(),
		sums: ledger.Sums{Seen: h.Seen, Excluded: h.Excluded, Dropped: h.Dropped, Refused: h.Refused}, lines: len(in.ends),
	}
	err := in.frames.Read(h, body, now, in.addEvent)
	a.to = len(in.ends)
	switch reason, lost := reasonOf(err); {
	case lost && h.Count <= len(body):
		a.lost, a.reason = true, reason
	case lost: // more events than its bytes can hold: nothing in it is proven
		in.fault(formatOf(frameMagic), ledger.FaultHeader)
		a.last, a.announced = h.First-1, h.First-1
	case err != nil:
		in.fault(formatOf(frameMagic), faultOf(err))
		fallthrough
	case a.to == a.lines: // a fragment, and its event is not whole yet
		a.last, a.announced = h.First-1, h.First-1
	}
	in.arrivals = append(in.arrivals, a)
}

// event takes one event of the frame at hand.
func (in *intake) event(number uint64, event []byte) {
	switch {
	case in.header.Kind != datagram.KindEvent:
		in.text = append(in.text, event...)
	case in.header.JSON:
		payload, err := datagram.UnpackJSON(event)
		if err != nil && err != datagram.ErrNotEvent { // it has a number: its sender says that it is one
			in.undecoded(number, event)
			break
		}
		in.text = append(in.text, payload.JSON...)
	case in.transcoder == nil:
		in.undecoded(number, event)
	default:
		var err error
		if in.text, err = in.transcode(event); err != nil {
			in.undecoded(number, event)
		}
	}
	in.ends = append(in.ends, len(in.text))
}

// undecoded writes an event of which nobody can make JSON as it came, so that it
// is not lost.
func (in *intake) undecoded(number uint64, event []byte) {
	in.text = append(in.text, `{"tetracast_undecoded":"`...)
	in.text = base64.StdEncoding.AppendEncode(in.text, event)
	in.text = append(in.text, `","stream":"`...)
	in.text = append(in.text, streamID(in.header.Stream)...)
	in.text = append(in.text, `","number":`...)
	in.text = strconv.AppendUint(in.text, number, 10)
	in.text = append(in.text, '}')
}

// line returns line i of the events at hand.
func (in *intake) line(i int) []byte {
	start := 0
	if i > 0 {
		start = in.ends[i-1]
	}
	return in.text[start:in.ends[i]]
}

// hand gives what arrived to the account and the queue.
func (in *intake) hand(now time.Time) {
	c := in.c
	given, lost := in.gelf.Stats(), in.frames.Fragments()
	c.mu.Lock()
	wasEmpty := c.queue.empty()
	c.account.Observed.ChunkSetsGivenUp += given.TooOld + given.TooMany - in.givenUp
	c.account.Observed.FragmentSetsGivenUp += lost.TooOld + lost.TooMany - in.lostSets
	c.account.Datagrams += in.count
	c.account.Bytes += in.bytes
	in.publishFaults()
	in.publish()
	for i := range in.arrivals {
		a := &in.arrivals[i]
		switch {
		case a.kind == 0:
			if c.queue.put(in.line(a.lines), false) {
				c.account.PassedOn++
			} else {
				c.undecoded(formatOf(in.line(a.lines)), ledger.FaultNotEvent, 1) // as without --other pass
			}
		case a.stream == nil:
			c.plain(a, now)
		case a.kind == datagram.KindEvent:
			c.numbered(in, a, now)
		default:
			c.about(in, a, now)
		}
	}
	for _, g := range in.gaveUp {
		if s := c.agents.byName(g.stream); s != nil {
			s.audit.Incomplete++
		}
	}
	due := c.queue.full() || wasEmpty && !c.queue.empty()
	crowded := c.agents.crowded()
	c.mu.Unlock()
	if crowded != nil {
		c.config.Log.Warn("The senders that are known take more than four fifths of the room: beyond it some are forgotten, and what of them is missing is unknown",
			"option", crowded.option, "limit", crowded.limit)
	}
	if due {
		c.wakeWriter()
	}
	in.givenUp, in.lostSets = given.TooOld+given.TooMany, lost.TooOld+lost.TooMany
	in.count, in.bytes = 0, 0
	clear(in.arrivals)
	in.arrivals, in.text, in.ends, in.gaveUp = in.arrivals[:0], in.text[:0], in.ends[:0], in.gaveUp[:0]
	if cap(in.text) > 8*intakeBytes {
		in.text = nil // a giant event's memory is not kept
	}
}

// frameMagic begins as a frame does.
var frameMagic = []byte{0xd7, 0x54}

// fault counts a datagram that cannot be decoded.
func (in *intake) fault(format int, f ledger.Fault) {
	in.faults[format][f]++
	in.faulty = true
}

// publishFaults makes them part of the account. Called with the lock.
func (in *intake) publishFaults() {
	if !in.faulty {
		return
	}
	for format := range in.faults {
		for fault, n := range in.faults[format] {
			in.c.undecoded(format, ledger.Fault(fault), int(n))
		}
	}
	in.faults, in.faulty = undecodable{}, false
}

// undecoded counts datagrams in the account, or takes some back. Called with the
// lock.
func (c *Collector) undecoded(format int, f ledger.Fault, datagrams int) {
	c.account.Undecodable[f] += uint64(datagrams)
	c.undecodable[format][f] += uint64(datagrams)
}

// publish makes known what the transcoder did. Called with the lock.
func (in *intake) publish() {
	if in.transcoder != nil {
		in.transcoded.memo = in.transcoder.CacheStats()
		in.published = in.transcoded
	}
}

// plain queues what came without a number. Called with the lock, as are those
// below.
func (c *Collector) plain(a *arrival, now time.Time) {
	s := c.agents.source(a.source, now)
	if a.kind != datagram.KindEvent {
		defer func() { c.heardFrom(s, now) }() // who it is may only be known then
	}
	switch a.kind {
	case datagram.KindAgentInit:
		s = c.agents.byRecord(s, a.line, now)
		c.agentInit(s, a.line, 0)
	case datagram.KindAgentStats:
		s = c.agents.byStatedID(s, a.line, now)
		c.agentStats(s, a.line)
	default:
		c.heardFrom(s, now)
		s.net.Received++
		c.account.Received++
		if !c.queue.put(a.line, true) {
			c.account.Dropped[ledger.SinkFull]++
		}
	}
}

// numbered queues the events of a frame.
func (c *Collector) numbered(in *intake, a *arrival, now time.Time) {
	audit := a.stream.audit
	defer c.agents.countRuns(a.stream, len(audit.Received.Runs))
	c.heardFrom(a.stream, now)
	c.firstHeard(a)
	c.ask(a.stream, a.record)
	audit.Announce(a.announced, a.sums)
	if a.last < a.first {
		return
	}
	count := a.last - a.first + 1
	if a.lost {
		added := audit.Receive(a.first, count)
		a.stream.late(added)
		c.account.Received += added
		c.account.Dropped[a.reason] += added
		return
	}
	whole := audit.Received.Holes(ledger.Range{First: a.first, Last: a.last}) == count
	added := count
	if whole {
		audit.Receive(a.first, count)
	} else {
		added = 0
	}
	for i := a.lines; i < a.to; i++ {
		if !whole {
			// Some of them came before, which takes a sender that repeats itself.
			if audit.Receive(a.first+uint64(i-a.lines), 1) == 0 {
				continue
			}
			added++
		}
		if !c.queue.put(in.line(i), true) {
			c.account.Dropped[ledger.SinkFull]++
		}
	}
	a.stream.late(added)
	c.account.Received += added
}

// firstHeard makes unknown what may have come of a stream before something was forgotten:
// before the collector was killed, in the second that was not saved, or before the
// stream was evicted.
func (c *Collector) firstHeard(a *arrival) {
	if a.stream.audit.Announced > 0 || a.first <= 1 || c.agents.forgotAt(a.stream).IsZero() {
		return
	}
	a.stream.fresh = true
	a.stream.audit.Unknown.Add(ledger.Range{First: 1, Last: a.first - 1})
}

// about takes what an agent says of itself in a frame.
func (c *Collector) about(in *intake, a *arrival, now time.Time) {
	c.firstHeard(a)
	a.stream.audit.Announce(a.announced, a.sums)
	if a.lost || a.to == a.lines || a.stream.table == nil {
		return // evicted: the next one that says who it is will begin anew
	}
	payload, err := datagram.UnpackJSON(bytes.Clone(in.line(a.lines)))
	if err != nil || payload.Kind != a.kind {
		return // whoever sent it, there is nothing to learn from it
	}
	defer c.heardFrom(a.stream, now) // who it is may only be known then
	if a.kind == datagram.KindAgentInit {
		c.agentInit(a.stream, payload.JSON, a.record)
		return
	}
	c.ask(a.stream, a.record)
	c.agentStats(a.stream, payload.JSON)
}

// agentInit takes a record that came in the stream; digest is as the frame has it.
func (c *Collector) agentInit(s *stream, record []byte, digest uint64) {
	if !c.agents.repeated(s, record) && !c.mayClaim(s, record) {
		return
	}
	c.publish(s, record, digest)
	c.learn(s, record)
}

// mayClaim says whether the stream is of the host that a record or account names. One
// that is not is counted, and nothing is learnt from it.
func (c *Collector) mayClaim(s *stream, record []byte) bool {
	if c.agents.mayClaim(s, readFacts(record).Hostname) {
		return true
	}
	c.undecoded(formatOf(frameMagic), ledger.FaultHost, 1)
	return false
}

// learn writes a record once.
func (c *Collector) learn(s *stream, record []byte) {
	if c.agents.repeated(s, record) {
		return
	}
	c.agents.bind(s, record)
	if !c.queue.put(record, false) {
		s.record = 0 // its next repeat is written
	}
}

// agentStats writes an account that says something new.
func (c *Collector) agentStats(s *stream, text []byte) {
	if (s.key.Host != "" || s.host == nil) && !c.mayClaim(s, text) {
		return
	}
	if c.agents.stats(s, text) {
		c.queue.put(text, false)
	}
}
