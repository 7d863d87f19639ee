package exporter

import (
	"errors"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/transcode"
)

// Measure gets what takes a look at the clock to know. Samples are taken at most
// once in sampleInterval, so that they cost nothing beside the events: a function
// is called on the event path, a few times a second, and must not wait. A nil
// function gets nothing.
type Measure struct {
	// Wire gets the time from an event, by Tetragon's clock, to the moment the
	// kernel took its datagram for a destination. It includes the time in queues,
	// and what the two clocks differ by; it is not negative. Events that come as
	// JSON have none.
	Wire func(address, format string, d time.Duration)
	// Transcode gets the time in which an event's JSON was made.
	Transcode func(d time.Duration)
}

// sampleInterval is the least time between two samples: at 200 events/s one event in
// fifty is looked at. The others cost 35 instructions, of 5,700 that an event in
// frames takes (TestMeasureInstructions).
const sampleInterval = 250 * time.Millisecond

// sampler takes the samples of Measure. It belongs to the holder of the role.
type sampler struct {
	Measure
	next      time.Time
	transcode bool // the next event to transcode is timed
	open      int  // probes on their way
}

// probe is an event on its way to the kernel. The zero value is none.
type probe struct {
	number  uint64    // of the event
	at      time.Time // the event's own
	refused uint64    // of the stream, when it was packed
}

// due says whether a sample is to be taken. It is small enough to be inlined.
func (m *sampler) due(w *worker, now time.Time) bool {
	return len(w.events) > 0 && !now.Before(m.next)
}

// begin makes the first of the events at hand a probe of the streams.
func (m *sampler) begin(w *worker, now time.Time) {
	m.next = now.Add(sampleInterval)
	m.transcode = m.Transcode != nil && w.lineNeeded
	if m.Wire == nil || w.events[0].wire == nil {
		return
	}
	summary, err := transcode.Scan(w.events[0].wire)
	if err != nil || !summary.HasTime {
		return
	}
	for _, s := range w.streams {
		if s.probe.number == 0 { // the last one has arrived
			s.probe = probe{number: s.number + 1, at: time.Unix(summary.Seconds, int64(summary.Nanos)), refused: s.counts.refused}
			m.open++
		}
	}
}

// end looks which probes the kernel has taken.
func (m *sampler) end(w *worker) {
	for _, s := range w.streams {
		p := s.probe
		if p.number == 0 || s.number-s.counts.queued < p.number {
			continue
		}
		m.open--
		s.probe = probe{}
		if s.counts.refused == p.refused { // else it may be what was refused
			m.Wire(s.Address, s.Format, max(0, time.Since(p.at)))
		}
	}
}

// append is the transcoder's Append with a look at the clock before and after.
func (m *sampler) append(t *transcode.Transcoder, dst, wire []byte) ([]byte, transcode.Info, error) {
	m.transcode = false
	begin := time.Now()
	dst, info, err := t.Append(dst, wire)
	m.Transcode(time.Since(begin))
	return dst, info, err
}

// SizeBounds are the sizes, in bytes of payload, up to which
// DestinationStats.Sizes counts: those that no path of IPv6, and no Ethernet,
// cuts into fragments are among them.
var SizeBounds = [...]int{256, 512, datagram.DefaultFrameDatagram, 1472, 2048, 4096, 8972, 16384, 32768, datagram.MaxPayload}

// sizeClass is the index of the first bound that is not exceeded.
func sizeClass(bytes int) int {
	for i, bound := range SizeBounds {
		if bytes <= bound {
			return i
		}
	}
	return len(SizeBounds) - 1
}

// countSize notes the size of a datagram that was sent.
func (s *stream) countSize(bytes int) {
	class := sizeClass(bytes)
	s.befell.news = true
	s.befell.sizes[class]++
	if class > wholeClass && bytes > s.pathPayload() {
		s.befell.overMTU++
	}
}

// wholeClass is the class of sizes that pass every path whole.
const wholeClass = 2

// pathPayload is the largest payload that the path takes whole.
func (s *stream) pathPayload() int {
	if conn, ok := s.conn.(*udp.Conn); ok {
		if n := conn.PathPayload(); n > 0 {
			return n
		}
	}
	return datagram.MaxPayload
}

// SendErrors are the classes of errors that DestinationStats.Errors counts, by
// index: what internal/udp makes of the kernel's error numbers.
var SendErrors = [...]string{"would_block", "no_buffers", "paced", "unreachable", "link_down", "not_permitted", "too_large", "other"}

var sendErrors = [len(SendErrors) - 1]error{udp.ErrWouldBlock, udp.ErrNoBuffers, udp.ErrPaced, udp.ErrUnreachable, udp.ErrLinkDown,
	udp.ErrNotPermitted, udp.ErrTooLarge}

// countError notes an error of the socket.
func (s *stream) countError(err error) {
	s.befell.news = true
	for i, class := range sendErrors {
		if errors.Is(err, class) {
			s.befell.errors[i]++
			return
		}
	}
	s.befell.errors[len(sendErrors)]++
}

// befell is what befell the datagrams of a stream. It is published when there is
// news: to copy it at each hand-over would cost a frame's event 2 %.
type befell struct {
	news         bool
	sizes        [len(SizeBounds)]uint64 // datagrams
	overMTU      uint64                  // datagrams
	errors       [len(SendErrors)]uint64
	answers      udp.Answers
	pendingBytes int
	pool         udp.PoolStats
	down         bool
}

// publish brings a copy up to date.
func (b *befell) publish(to *befell) {
	if b.news {
		b.news = false
		*to = *b
	}
}

// publishSize publishes how many datagrams of that size there were: all that is news
// of an agent_init.
func (b *befell) publishSize(to *befell, bytes int) {
	class := sizeClass(bytes)
	to.sizes[class], to.overMTU = b.sizes[class], b.overMTU
}

func (b *befell) stats(s *stream) DestinationStats {
	return DestinationStats{Address: s.Address, Format: s.Format, Sizes: b.sizes, OverMTU: b.overMTU, Errors: b.errors, Answers: b.answers,
		QueueBytes: b.pendingBytes, Pool: b.pool, Gone: s.parted, Up: !s.parted && s.conn != nil && !b.down}
}

// DestinationStats counts what befell the datagrams of a stream, beside its
// account.
type DestinationStats struct {
	Address string
	Format  string

	Sizes   [len(SizeBounds)]uint64 // datagrams up to a bound, and above the one before
	OverMTU uint64                  // datagrams above the path MTU, which travelled as IP fragments
	Errors  [len(SendErrors)]uint64 // by class
	Answers udp.Answers             // ICMP messages about its datagrams, by class

	QueueBytes int           // of datagrams that wait for this destination alone, and for which others do not
	Pool       udp.PoolStats // the memory of those
	Gone       bool          // the destination is not configured any more
	Up         bool          // it has a socket, takes datagrams, and nobody answers that they do not arrive
}

// Add adds what befell another stream. It is up if one of the two is.
func (d *DestinationStats) Add(o *DestinationStats) {
	for i, n := range o.Sizes {
		d.Sizes[i] += n
	}
	for i, n := range o.Errors {
		d.Errors[i] += n
	}
	for i, n := range o.Answers {
		d.Answers[i] += n
	}
	d.OverMTU += o.OverMTU
	d.QueueBytes += o.QueueBytes
	d.Pool.Add(&o.Pool)
	d.Up = d.Up || o.Up
}

// LaneStats is what waits in a lane of the queue.
type LaneStats struct {
	Bytes int           // with what it takes to list the events
	Age   time.Duration // of the oldest, or of one that came shortly before it
}

// Lanes are the names of the queue's lanes, by their index in Stats.Lanes.
var Lanes = [lanes]string{processLane: "process", policyLane: "policy"}

// age returns how long the oldest chunk of a lane has been there.
func (l *list) age(now time.Time) time.Duration {
	if l.head == nil {
		return 0
	}
	return max(0, now.Sub(l.head.born))
}
