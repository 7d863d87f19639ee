package collector

import (
	"container/list"
	"maps"
	"net/netip"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// The bounds of what is kept about senders, however many someone invents, where the
// configuration has no others. A stream with numbers takes 2 KiB, and up to 20 KiB
// more if its network loses much; an address 1 KiB. A fleet has two streams a host
// for a while after a rollout.
const (
	maxStreams   = 8192 // that have proven consistent, or are sealed
	maxProbation = 1024 // that sent too little to be trusted, of each sort
	maxSources   = 8192 // addresses that send formats without numbers

	// maxHostStreams is how many streams the holder of a host's key can have: each new one
	// above them takes the place of one of its own, not of another host's.
	maxHostStreams = 64

	// maxRuns are the ranges of numbers of all streams together, 16 bytes each; a
	// stream keeps keptRuns of them in any case.
	maxRuns  = 1 << 20
	keptRuns = 64

	// probationFrames is how many consistent frames it takes.
	probationFrames = 8
	// quietTime is how long an established stream must be silent until another one
	// may take its place. A living agent sends its figures every ten seconds.
	quietTime = 10 * time.Minute
)

// streamKey names a stream: by its id and the host whose key seals it, or by the address
// it comes from where the format carries no id.
type streamKey struct {
	datagram.StreamName
	source netip.AddrPort
}

// stream is what came of one sender's stream to this collector.
type stream struct {
	key       streamKey
	former    streamKey     // the address it came from before, if that changed
	table     *table        // the one it is in; nil: evicted, and its figures are in the totals
	place     *list.Element // in it
	evictedTo *table        // where those are
	host      *host         // nil: no agent_init came
	record    uint64        // digest of the last agent_init's bytes
	process   uint64        // as host.process, of this stream

	audit *ledger.Audit // nil: its events carry no numbers
	net   ledger.Net    // where they do not
	id    string        // that its agent_stats states; empty: none came
	told  told
	// reported is the stream that it last told of in the place of a killed process.
	reported string

	shared shared // with other collectors

	fresh    bool      // first heard of after the collector had been killed; Unknown are the numbers before
	frames   int       // consistent ones, up to probationFrames
	first    time.Time // of the datagrams, or earlier, if its sender says that it began earlier
	heard    time.Time // last
	arrived  bool      // its host was heard by it
	news     time.Time // when it was last
	farewell bool      // that was a goodbye
	sealed   bool      // its frames are
	held     []byte    // a datagram too far ahead to be believed alone
	heldAt   place
}

// told is what the account repeats of a stream's last agent_stats.
type told struct {
	Sender   map[string]uint64  `json:"sender"`
	Dropped  map[string]uint64  `json:"dropped"`
	Upstream map[string]*uint64 `json:"upstream"`
	Started  *time.Time         `json:"started_at"`
	Offered  *ledger.Offered    `json:"offered,omitempty"`
}

// toldBy returns what the account repeats of an agent_stats.
func toldBy(s *ledger.AgentStats) told {
	sums := s.Sums()
	t := told{Dropped: s.Dropped, Upstream: s.Upstream, Started: &s.StartedAt, Offered: s.Offered, Sender: map[string]uint64{
		"seen": sums.Seen, "excluded": sums.Excluded, "dropped": sums.Dropped, "refused": sums.Refused,
		"sent": s.Sent, "datagrams": s.Datagrams, "truncated": s.Truncated, "subscription_breaks": s.SubscriptionBreaks,
	}}
	if s.BlindMS != nil {
		t.Sender["blind_ms"] = *s.BlindMS
	}
	return t
}

// maxKeptNames bounds the reasons and stages that are known of a stream, whatever its
// sender invents.
const maxKeptNames = 32

// keep takes over what the stream told before and does not know any more, or knows
// less of: all figures only grow, and a successor may know less than was told.
func (t *told) keep(before *told) {
	if before.Started == nil || t.Started == nil || !before.Started.Equal(*t.Started) {
		return
	}
	for name, n := range before.Sender {
		t.Sender[name] = max(t.Sender[name], n)
	}
	for stage, n := range before.Upstream {
		if now, known := t.Upstream[stage]; n != nil && (now == nil || *now < *n) && (known || len(t.Upstream) < maxKeptNames) {
			if t.Upstream == nil {
				t.Upstream = map[string]*uint64{}
			}
			t.Upstream[stage] = n
		}
	}
	for reason, n := range before.Dropped {
		if t.Dropped == nil {
			t.Dropped = map[string]uint64{}
		}
		if now, known := t.Dropped[reason]; n > now && (known || len(t.Dropped) < maxKeptNames) {
			t.Dropped[reason] = n
		}
	}
	if t.Offered == nil {
		t.Offered = before.Offered
	}
}

// settled returns the stream with what became of the events that its sender was
// giving to the kernel when it was killed.
func (t *told) settled(a ledger.AgentStream, sent uint64) ledger.AgentStream {
	if t.Offered != nil {
		a.Sender, a.SenderDropped = maps.Clone(a.Sender), maps.Clone(a.SenderDropped)
		a.Settle(*t.Offered, sent)
	}
	return a
}

// late counts events in the totals if the stream, which has them in its audit, was
// evicted since their datagram arrived.
func (s *stream) late(events uint64) {
	if s.table == nil {
		s.evictedTo.unfinished.Received += events
	}
}

// ended says whether the sender said goodbye.
func (s *stream) ended() bool { return s.net.Goodbye || s.audit != nil && s.audit.Goodbye }

// idText names the stream as accounts do: by its id, or by the address it comes from.
func (s *stream) idText() string {
	switch {
	case s.audit != nil:
		return streamID(s.key.ID)
	case s.id != "":
		return s.id
	}
	return s.key.source.String()
}

// account returns the stream's part of the account. Where unsure is set, events of it may
// have come from an address that nobody knows to be its sender's: what is missing is
// then unknown.
func (s *stream) account(unsure bool) ledger.AgentStream {
	if s.audit != nil {
		a := s.audit.Stream(s.idText())
		a.KeyHost = s.key.Host
		if s.told.Sender != nil {
			a.Sender = s.told.Sender
		}
		a.SenderDropped, a.Upstream, a.StartedAt = s.told.Dropped, s.told.Upstream, s.told.Started
		a.Heard = s.heardAs()
		return s.told.settled(a, s.audit.Figures().Sent)
	}
	a := ledger.AgentStream{Stream: s.idText(), Received: s.net.Received, Ended: ledger.EndedUnknown,
		Sender: s.told.Sender, SenderDropped: s.told.Dropped, Upstream: s.told.Upstream, StartedAt: s.told.Started}
	a.Heard = s.heardAs()
	f, ok := s.net.Figures()
	if ok && !unsure {
		a.Announced, a.Missing, a.RefusedBySender = &f.Announced, &f.Missing, &f.Refused
	}
	if s.net.Goodbye {
		a.Ended = ledger.EndedGoodbye
	}
	return s.told.settled(a, f.Sent)
}

// heardAs says when something new came of the stream, or nil if nothing did that can
// be trusted.
func (s *stream) heardAs() *ledger.Heard {
	if s.news.IsZero() {
		return nil
	}
	return &ledger.Heard{First: s.first.UTC(), Last: s.news.UTC()}
}

// streamID is a stream id as accounts write it.
func streamID(id uint64) string { return string(datagram.AppendStreamID(nil, id)) }

// table is a bounded set of streams. The one heard last is in front.
type table struct {
	option  string // that sets the limit
	crowded bool   // that it is nearly full was said
	limit   int
	byKey   map[streamKey]*list.Element // of *stream
	recent  list.List
	evicted ledger.AgentStream // the sum of those that had to make room after their goodbye
	// unfinished is the sum of the others: what came. They may go on, as another stream
	// for whoever forgot them, so what of them is missing nobody can say.
	unfinished ledger.AgentStream
	forgotAt   time.Time // when one of these was evicted last
}

func newTable(limit int, evicted, option string) *table {
	return &table{
		option:     option,
		limit:      limit,
		byKey:      make(map[streamKey]*list.Element),
		evicted:    ledger.AgentStream{Stream: evicted, Ended: ledger.EndedUnknown},
		unfinished: ledger.AgentStream{Stream: evicted + ", unfinished", Ended: ledger.EndedUnknown},
	}
}

// find returns the stream, which is then the one heard last, or nil. It does not
// allocate.
func (t *table) find(key streamKey) *stream {
	// Most datagrams follow another of the same stream.
	if front := t.recent.Front(); front != nil && front.Value.(*stream).key == key {
		return front.Value.(*stream)
	}
	e, ok := t.byKey[key]
	if !ok {
		return nil
	}
	t.recent.MoveToFront(e)
	return e.Value.(*stream)
}

// full says whether another stream would need the place of one.
func (t *table) full() bool { return t.recent.Len() >= t.limit }

// maxVictims is how many streams are looked at for one that sent next to nothing.
const maxVictims = 64

// victim returns the stream to make room: of those silent longest one that sent no more
// than a datagram, as whoever invents many of them does, else the oldest; or nil.
func (t *table) victim() *stream {
	e := t.recent.Back()
	for range maxVictims {
		if e == nil {
			break
		}
		if s := e.Value.(*stream); s.frames <= 1 {
			return s
		}
		e = e.Prev()
	}
	return t.oldest()
}

// oldest returns the stream that was silent longest, or nil.
func (t *table) oldest() *stream {
	if e := t.recent.Back(); e != nil {
		return e.Value.(*stream)
	}
	return nil
}

// put adds a stream that is in no table. The caller has made room.
func (t *table) put(s *stream) {
	s.table, s.place = t, t.recent.PushFront(s)
	t.byKey[s.key] = s.place
}

// remove takes the stream out.
func (t *table) remove(s *stream) {
	t.recent.Remove(s.place)
	t.forget(s.key, s)
	t.forget(s.former, s)
	s.table, s.place, s.former = nil, nil, streamKey{}
}

// forget forgets a key of a stream, unless another stream has it by now.
func (t *table) forget(key streamKey, s *stream) {
	if t.byKey[key] == s.place {
		delete(t.byKey, key)
	}
}

// move makes an address the one that the stream comes from. What comes from the one
// before is still its.
func (t *table) move(s *stream, to streamKey) {
	t.forget(s.former, s)
	s.former, s.key = s.key, to
	t.byKey[to] = s.place
	t.recent.MoveToFront(s.place)
}

// all calls f for each stream, the one heard last first.
func (t *table) all(f func(*stream)) {
	for e := t.recent.Front(); e != nil; e = e.Next() {
		f(e.Value.(*stream))
	}
}

// allFromOldest calls f for each stream, the one silent longest first.
func (t *table) allFromOldest(f func(*stream)) {
	for e := t.recent.Back(); e != nil; e = e.Prev() {
		f(e.Value.(*stream))
	}
}

// addEvicted adds the figures of a stream that had to make room to the totals.
// All streams of a table carry numbers, or none do.
func (t *table) addEvicted(a ledger.AgentStream, now time.Time) {
	if a.Ended != ledger.EndedGoodbye {
		t.unfinished.Received += a.Received
		t.forgotAt = now
		return
	}
	t.evicted.Received += a.Received
	if t.evicted.Announced == nil && a.Numbers != nil {
		zero := new(ledger.Audit).Stream(t.evicted.Stream)
		zero.Received, zero.Numbers, zero.UnknownNumbers, zero.Sender = t.evicted.Received, nil, nil, nil
		t.evicted = zero
	}
	if t.evicted.Announced == nil || a.Announced == nil {
		return
	}
	*t.evicted.Announced += *a.Announced
	*t.evicted.Missing += *a.Missing
	*t.evicted.RefusedBySender += *a.RefusedBySender
	*t.evicted.Unknown += *a.Unknown
	*t.evicted.Duplicate += *a.Duplicate
	*t.evicted.Late += *a.Late
	*t.evicted.Incomplete += *a.Incomplete
}
