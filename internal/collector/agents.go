package collector

import (
	"cmp"
	"container/list"
	"encoding/json"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"

	"tetracast/ledger"
	"tetracast/metadata"
)

// maxStreams bounds the streams that are known at a time. At some 400 bytes
// each that is less than 2 MiB, however many sources someone invents.
const maxStreams = 4096

// maxHostname bounds what is kept of a hostname, in bytes (POSIX
// _POSIX_HOST_NAME_MAX; RFC 1123 allows as many).
const maxHostname = 255

// evictedName stands for all streams that had to make room. Parentheses are in
// no hostname.
const evictedName = "(evicted)"

// agents knows who sends. In formats without numbers a stream is its source
// address and port, and belongs to the host that its last agent_init names.
// It is guarded by the collector's lock.
type agents struct {
	seed    maphash.Seed // of agent starts
	records maphash.Seed // of records
	limit   int
	streams map[netip.AddrPort]*list.Element // of *stream
	recent  list.List                        // the stream heard last is in front
	hosts   map[string]*host                 // by name
	evicted ledger.AgentStream
	// evictedRestarts are those of hosts whose last stream was evicted.
	evictedRestarts uint64
}

// stream is what came from one source address.
type stream struct {
	source   netip.AddrPort
	host     *host  // nil: no agent_init came
	record   uint64 // digest of the last agent_init's bytes
	received uint64
}

// host is one agent's machine.
type host struct {
	name     string
	start    uint64 // digest of (pid, @timestamp): the agent start heard of last
	restarts uint64
	streams  int
}

func newAgents(limit int) *agents {
	return &agents{
		seed:    maphash.MakeSeed(),
		records: maphash.MakeSeed(),
		limit:   limit,
		streams: make(map[netip.AddrPort]*list.Element),
		hosts:   make(map[string]*host),
		evicted: ledger.AgentStream{Stream: "evicted", Ended: ledger.EndedUnknown},
	}
}

// stream returns the source's stream, which is new if nothing came from there
// before or it was evicted since. It allocates only for a new one.
func (a *agents) stream(source netip.AddrPort) *stream {
	// Most datagrams follow another of the same source.
	if front := a.recent.Front(); front != nil && front.Value.(*stream).source == source {
		return front.Value.(*stream)
	}
	if e, ok := a.streams[source]; ok {
		a.recent.MoveToFront(e)
		return e.Value.(*stream)
	}
	if len(a.streams) == a.limit {
		a.evict()
	}
	s := &stream{source: source}
	a.streams[source] = a.recent.PushFront(s)
	return s
}

// evict forgets the stream that was silent longest. What it received stays in
// the account.
func (a *agents) evict() {
	s := a.recent.Remove(a.recent.Back()).(*stream)
	delete(a.streams, s.source)
	a.evicted.Received += s.received
	a.leave(s)
}

// leave takes the stream from its host, and forgets the host with its last one.
func (a *agents) leave(s *stream) {
	if s.host == nil {
		return
	}
	if s.host.streams--; s.host.streams == 0 {
		a.evictedRestarts += s.host.restarts
		delete(a.hosts, s.host.name)
	}
	s.host = nil
}

// repeated reports whether the record is the one that the stream sent last.
func (a *agents) repeated(s *stream, record []byte) bool {
	return s.host != nil && s.record == maphash.Bytes(a.records, record)
}

// forget makes the next repeat of every record count as new, because a record
// was lost on its way to the sink.
func (a *agents) forget() { a.records = maphash.MakeSeed() }

// bind reads an agent_init and says whose stream this is. A record that names
// another start of the host's agent than the last one is a restart.
func (a *agents) bind(s *stream, record []byte) {
	var facts struct {
		Timestamp string `json:"@timestamp"`
		Hostname  string `json:"hostname"`
		PID       int64  `json:"pid"`
	}
	// The unpacker has checked that this is JSON; a fact of another type than
	// expected stays empty.
	_ = json.Unmarshal(record, &facts)
	name := cmp.Or(facts.Hostname[:min(len(facts.Hostname), maxHostname)], metadata.Unknown)
	start := maphash.Comparable(a.seed, struct {
		timestamp string
		pid       int64
	}{facts.Timestamp, facts.PID})

	s.record = maphash.Bytes(a.records, record)
	h := a.hosts[name]
	switch {
	case h == nil:
		h = &host{name: strings.Clone(name), start: start}
		a.hosts[h.name] = h
	case h.start != start:
		h.start = start
		h.restarts++
	}
	if s.host != h {
		a.leave(s)
		s.host = h
		h.streams++
	}
}

// account returns the agents by name with their streams by address; those that
// sent no agent_init come first, the evicted ones last.
func (a *agents) account() []ledger.Agent {
	byHost := map[*host]*ledger.Agent{}
	for e := a.recent.Front(); e != nil; e = e.Next() {
		s := e.Value.(*stream)
		agent := byHost[s.host]
		if agent == nil {
			agent = &ledger.Agent{}
			if s.host != nil {
				agent.Hostname, agent.Restarts = s.host.name, s.host.restarts
			}
			byHost[s.host] = agent
		}
		agent.Streams = append(agent.Streams, ledger.AgentStream{
			Stream: s.source.String(), Received: s.received, Ended: ledger.EndedUnknown})
	}
	all := make([]ledger.Agent, 0, len(byHost)+1)
	for _, agent := range byHost {
		slices.SortFunc(agent.Streams, func(x, y ledger.AgentStream) int { return strings.Compare(x.Stream, y.Stream) })
		all = append(all, *agent)
	}
	slices.SortFunc(all, func(x, y ledger.Agent) int { return strings.Compare(x.Hostname, y.Hostname) })
	if a.evicted.Received > 0 || a.evictedRestarts > 0 {
		all = append(all, ledger.Agent{Hostname: evictedName, Restarts: a.evictedRestarts, Streams: []ledger.AgentStream{a.evicted}})
	}
	return all
}
