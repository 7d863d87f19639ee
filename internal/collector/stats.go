package collector

import (
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/transcode"
)

// Measure gets samples of how long things take. Its functions are called on the way
// of the events, from any goroutine, and must not wait. A nil one gets nothing.
type Measure struct {
	// Sink gets the time of each write of the sink, some per second.
	Sink func(d time.Duration)
	// Transcode gets the time in which the JSON of an event was made, at most once a
	// batch and a socket, and once in sampleInterval.
	Transcode func(d time.Duration)
}

// sampleInterval is the least time between two samples of the transcoder.
const sampleInterval = 250 * time.Millisecond

// Formats are what a datagram that cannot be decoded seems to be, by its first
// bytes, in the order of Stats.Undecodable. json stands for ndjson, too, and for
// whatever nobody knows.
var Formats = [...]string{"json", "gelf", "syslog", "frame"}

// formatOf returns the index in Formats.
func formatOf(d []byte) int {
	switch {
	case isFrame(d):
		return 3
	case datagram.IsSyslog(d):
		return 2
	case datagram.IsGELF(d):
		return 1
	}
	return 0
}

// undecodable counts datagrams by format and fault.
type undecodable [len(Formats)]ledger.Faults

// Stats counts what is no account, or sums the account up. What was counted before
// this process began is in Account only.
type Stats struct {
	Account     ledger.Collector // without Agents, and Closes unset
	Undecodable [len(Formats)]ledger.Faults

	// The sums over all streams, also those that were evicted. Announced to Unknown
	// are events with numbers, or announced by agent_stats.
	Announced, Missing, Refused, Unknown uint64
	Duplicates, Late, Incomplete         uint64
	Reordered                            uint64 // datagrams with a number that came behind a later one

	Repaired, UnknownFields, UnknownKinds, Fallbacks uint64               // events that were transcoded here, as in exporter.Stats
	Memo                                             transcode.CacheStats // over all sockets

	QueueBytes int         // of lines that wait for the sink
	Streams    int         // known now
	Agents     int         // hosts known now
	Silent     int         // of them
	Expected   int         // hosts that Config.Expected names
	Unseen     int         // of them, those of which nothing came
	Away       ledger.Away // of all hosts
	Sockets    []SocketStats

	PerAgent []AgentStats // if asked for: by hostname, not sorted
}

// SocketStats is the state of a socket.
type SocketStats struct {
	Dropped     uint64 // datagrams, or joined ones, for which there was no room
	QueuedBytes int    // in the receive buffer, by the kernel's measure
	BufferBytes int    // the receive buffer, by the same measure
}

// AgentStats sums up the streams of a host that this collector knows now.
type AgentStats struct {
	Hostname         string
	Received         uint64
	Missing          uint64 // of the streams that tell
	SenderDropped    uint64 // by its own account
	Restarts         uint64
	Away             ledger.Away
	Heard            time.Time // zero: only by frames on probation
	Silent, Farewell bool      // Farewell: what was heard last was a goodbye
}

// Stats returns the counts as they are now; perAgent says whether PerAgent is wanted. It
// holds the collector's lock while it walks the streams, some 100 ns for each.
func (c *Collector) Stats(perAgent bool) Stats {
	s := Stats{Sockets: c.socketStats()}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Account = c.account
	s.Account.Queued = c.queue.events()
	s.Account.Observed.SocketDropped = c.socketDropped + c.socketDroppedBefore
	if !c.received {
		for i := range s.Sockets {
			s.Account.Observed.SocketDropped += s.Sockets[i].Dropped
		}
	}
	s.Undecodable, s.Reordered = c.undecodable, c.reordered
	for _, in := range c.intakes {
		s.add(&in.published)
	}
	s.QueueBytes = c.queue.bytes
	byHost, unsure := map[*host]int{}, c.agents.unsure()
	if perAgent {
		s.PerAgent = make([]AgentStats, 0, len(c.agents.hosts))
	}
	for _, t := range c.agents.tables() {
		s.Streams += t.recent.Len()
		t.all(func(x *stream) {
			f := s.sum(x, x.audit == nil && unsure.has(x.key.source.Addr()))
			if !perAgent {
				return
			}
			i, ok := byHost[x.host]
			if !ok {
				i = len(s.PerAgent)
				byHost[x.host] = i
				s.PerAgent = append(s.PerAgent, AgentStats{})
			}
			s.PerAgent[i].add(x, f)
		})
		s.sumEvicted(&t.evicted)
	}
	s.Agents = len(c.agents.hosts)
	s.Away = c.agents.evictedAway
	for _, h := range c.agents.hosts {
		s.Away.Add(h.away)
	}
	s.Silent, s.Unseen = c.silence.counts(c.agents)
	s.Expected = len(c.silence.expected)
	return s
}

func (c *Collector) socketStats() []SocketStats {
	all := make([]SocketStats, len(c.in))
	for i, in := range c.in {
		all[i].Dropped = in.dropped()
		if q, ok := in.(interface{ Queue() (used, size int) }); ok {
			all[i].QueuedBytes, all[i].BufferBytes = q.Queue()
		}
	}
	return all
}

// sum adds a stream's figures, and returns them.
func (s *Stats) sum(x *stream, unsure bool) (f ledger.Figures) {
	if x.audit == nil {
		if f, _ = x.net.Figures(); unsure { // zero if it tells nothing
			f = ledger.Figures{}
		}
		f.Received = x.net.Received
	} else {
		f = x.audit.Figures()
		s.Duplicates += x.audit.Duplicates
		s.Late += x.audit.LateEvents
		s.Incomplete += x.audit.Incomplete
	}
	s.Announced += f.Announced
	s.Missing += f.Missing
	s.Refused += f.Refused
	s.Unknown += f.Unknown
	return f
}

// sumEvicted adds the sums of a table's evicted streams.
func (s *Stats) sumEvicted(e *ledger.AgentStream) {
	for _, p := range []struct {
		to   *uint64
		from *uint64
	}{{&s.Announced, e.Announced}, {&s.Missing, e.Missing}, {&s.Refused, e.RefusedBySender}, {&s.Unknown, e.Unknown},
		{&s.Duplicates, e.Duplicate}, {&s.Late, e.Late}, {&s.Incomplete, e.Incomplete}} {
		if p.from != nil {
			*p.to += *p.from
		}
	}
}

// add adds a stream of the agent's.
func (a *AgentStats) add(x *stream, f ledger.Figures) {
	if h := x.host; h != nil {
		a.Hostname, a.Restarts, a.Away, a.Heard, a.Silent = h.name, h.restarts, h.away, h.heard, h.silent
		a.Farewell = h.last != nil && h.last.ended()
	}
	a.Received += f.Received
	a.Missing += f.Missing
	a.SenderDropped += x.told.Sender["dropped"] + x.told.Sender["refused"]
}

// transcoded is what an intake's transcoder did; a copy is published with each
// batch.
type transcoded struct {
	repaired, unknown, unknownKinds, fallbacks uint64
	memo                                       transcode.CacheStats
}

func (t *transcoded) count(info transcode.Info) {
	if info.Repaired > 0 {
		t.repaired++
	}
	if info.Unknown > 0 {
		t.unknown++
	}
	if info.UnknownKind != 0 {
		t.unknownKinds++
	}
	if info.Fallback {
		t.fallbacks++
	}
}

func (s *Stats) add(t *transcoded) {
	s.Repaired += t.repaired
	s.UnknownFields += t.unknown
	s.UnknownKinds += t.unknownKinds
	s.Fallbacks += t.fallbacks
	s.Memo.Looks += t.memo.Looks
	s.Memo.Found += t.memo.Found
	s.Memo.Bytes += t.memo.Bytes
}

// transcode makes the JSON of an event, and takes a sample if one is due.
func (in *intake) transcode(event []byte) ([]byte, error) {
	sampled := in.sample
	var begin time.Time
	if sampled {
		in.sample = false
		begin = time.Now()
	}
	text, info, err := in.transcoder.AppendLimit(in.text, event, lineLimit(len(event)))
	if sampled {
		in.c.config.Measure.Transcode(time.Since(begin))
	}
	in.transcoded.count(info)
	if info.UnknownKind != 0 && in.c.saidUnknown.CompareAndSwap(false, true) {
		in.c.config.Log.Warn("Events of a kind that this release does not know are written as they came, as tetracast_undecoded", "kind", info.UnknownKind,
			"hint", "a newer release may know it")
	}
	return text, err
}

// sampleDue arms the next sample, once a batch.
func (in *intake) sampleDue(now time.Time) {
	if m := in.c.config.Measure; m != nil && m.Transcode != nil && now.After(in.sampleNext) {
		in.sample, in.sampleNext = true, now.Add(sampleInterval)
	}
}
