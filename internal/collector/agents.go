package collector

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/metadata"
)

// MaxHostname bounds what is kept of a hostname, in bytes (POSIX
// _POSIX_HOST_NAME_MAX; RFC 1123 allows as many).
const MaxHostname = 255

// evictedName stands for all streams that had to make room. Parentheses are in
// no hostname.
const evictedName = "(evicted)"

// agents knows who sends. A stream belongs to the host that its last agent_init,
// or its first agent_stats, names. It is guarded by the collector's lock.
type agents struct {
	records maphash.Seed // of records

	frames    *table             // streams with numbers
	probation *table             // those of them that have yet to prove themselves
	sources   *table             // addresses that send formats without numbers
	byBytes   map[uint64]*stream // of sources, by the digest of their record
	forgotten addresses          // of sources that were evicted before they said who they are
	strangers *table             // those of them that have yet to prove themselves
	ids       map[string]*stream // of sources, by the id that their agent_stats state
	shared    map[uint64]*stream // that are sealed with a host's key, by sharedID

	runs      int              // ranges of numbers that all streams keep
	heldBytes int              // of frames too far ahead to be believed alone
	hosts     map[string]*host // by name
	// killedAt is when the collector began anew after it had been killed. Zero: it
	// never was.
	killedAt time.Time
	// evictedRestarts are those of hosts whose last stream was evicted.
	evictedRestarts uint64
	evictedAway     ledger.Away
}

// host is one agent's machine.
type host struct {
	name     string
	process  uint64 // digest of pid and start: the agent's process heard of last
	restarts uint64
	streams  int
	keyed    bool      // its name is authenticated: only streams sealed with its key are its
	heard    time.Time // when something new came last; zero: nothing did that can be trusted
	last     *stream   // it came of; nil: of one that the process before this one knew
	silent   bool      // that was said
	away     ledger.Away
}

// newAgents returns agents that keep so many streams of each sort at the most.
func newAgents(streams, probation, sources int) *agents {
	return &agents{
		records:   maphash.MakeSeed(),
		frames:    newTable(streams, "evicted", "max-streams"),
		probation: newTable(probation, "evicted on probation", "max-new-streams"),
		sources:   newTable(sources, "evicted", "max-addresses"),
		strangers: newTable(probation, "evicted on probation", "max-new-streams"),
		ids:       make(map[string]*stream),
		byBytes:   make(map[uint64]*stream),
		shared:    make(map[uint64]*stream),
		hosts:     make(map[string]*host),
	}
}

func (a *agents) tables() [4]*table {
	return [4]*table{a.frames, a.probation, a.sources, a.strangers}
}

// source returns the stream of an address that sends a format without numbers.
// It allocates only for a new one.
func (a *agents) source(addr netip.AddrPort, now time.Time) *stream {
	key := streamKey{source: addr}
	s := a.sources.find(key)
	if s == nil {
		s = a.strangers.find(key)
	}
	if s == nil {
		if a.strangers.full() {
			a.evict(a.strangers.victim(), now)
		}
		s = &stream{key: key, first: now}
		a.strangers.put(s)
	}
	if s.frames < probationFrames {
		s.frames++
	}
	if s.frames == probationFrames && s.table == a.strangers {
		a.establish(s, false, now)
	}
	s.heard = now
	return s
}

// byRecord returns the stream of a record that came from the address of s.
func (a *agents) byRecord(s *stream, record []byte, now time.Time) *stream {
	if s.record != 0 {
		return s // it has said before who it is
	}
	return a.unite(a.byBytes[maphash.Bytes(a.records, record)], s, now)
}

// byStatedID returns the stream of an agent_stats that came from the address of s.
func (a *agents) byStatedID(s *stream, text []byte, now time.Time) *stream {
	if s.id != "" {
		return s
	}
	stats, err := ledger.ReadAgentStats(text)
	if err != nil || stats.Stream == "" || stats.ReportedBy != "" {
		return s
	}
	return a.unite(a.ids[stats.Stream], s, now)
}

// unite makes what came from the address of s part of the stream was, if there is one: the
// sender's socket is another one, or its way leads through another translation of
// addresses. A process never makes two records of the same bytes for two streams, and
// says the id of a stream in that stream alone. It returns the stream to go on with.
func (a *agents) unite(was, s *stream, now time.Time) *stream {
	if was == nil || was == s || was.table == nil || s.table == nil || s.audit != nil {
		return s
	}
	key := s.key
	if a.ids[s.id] == s {
		delete(a.ids, s.id)
	}
	a.leave(s)
	a.forgetRecord(s)
	s.table.remove(s)
	was.net.Received += s.net.Received
	was.heard = now
	was.table.move(was, key)
	return was
}

// numberedStream returns the stream of that name. A new one that is not sealed is
// on probation, and never takes the place of an established one.
func (a *agents) numberedStream(name datagram.StreamName, sealed bool, now time.Time) *stream {
	key := streamKey{StreamName: name}
	s := a.frames.find(key)
	if s == nil {
		s = a.probation.find(key)
	}
	if s == nil {
		s = &stream{key: key, audit: new(ledger.Audit), sealed: sealed, first: now}
		if h := a.hosts[name.Host]; name.Host != "" && h != nil && h.keyed && h.streams >= maxHostStreams {
			a.evict(a.oldestOf(h), now)
		}
		switch {
		case sealed && a.establish(s, true, now):
		default:
			if a.probation.full() {
				a.evict(a.probation.victim(), now)
			}
			a.probation.put(s)
		}
		a.authenticate(s)
	}
	s.heard = now
	return s
}

// oldestOf returns the stream of the host that was silent longest.
func (a *agents) oldestOf(h *host) (oldest *stream) {
	for _, t := range []*table{a.frames, a.probation} {
		t.all(func(s *stream) {
			if s.host == h && (oldest == nil || s.heard.Before(oldest.heard)) {
				oldest = s
			}
		})
	}
	return oldest
}

// authenticate makes a stream that is sealed with a host's key one of that host. Streams
// that merely said that they were are not any more.
func (a *agents) authenticate(s *stream) {
	if s.key.Host == "" {
		return
	}
	a.shared[sharedID(s.key.StreamName)] = s
	h := a.hosts[s.key.Host]
	if h != nil && !h.keyed {
		for _, t := range a.tables() {
			t.all(func(other *stream) {
				if other.host == h {
					other.host, other.record = nil, 0
				}
			})
		}
		delete(a.hosts, h.name)
		a.evictedRestarts += h.restarts
		a.evictedAway.Add(h.away)
	}
	a.join(s, s.key.Host).keyed = true
}

// mayClaim says whether a stream may say that it is of that host: of its own, if its key
// says which that is, and else of any whose name nobody has the key of.
func (a *agents) mayClaim(s *stream, hostname string) bool {
	name := hostName(hostname)
	if s.key.Host != "" {
		return name == s.key.Host
	}
	h := a.hosts[name]
	return h == nil || !h.keyed || s.host == h
}

// consistent notes that the stream sent a frame that goes on where the others
// were. After enough of them it is established.
func (a *agents) consistent(s *stream, now time.Time) {
	if s.frames < probationFrames {
		s.frames++
	}
	if s.frames == probationFrames && s.table == a.probation {
		a.establish(s, false, now)
	}
}

// establish puts the stream among the established ones, if there is a place: a
// free one, or that of one that has long been silent, or for a sealed stream
// that of the one silent longest.
func (a *agents) establish(s *stream, sealed bool, now time.Time) bool {
	to := a.frames
	if s.audit == nil {
		to = a.sources
	}
	if to.full() {
		oldest := to.oldest()
		if !sealed && now.Sub(oldest.heard) < quietTime {
			return false
		}
		a.evict(oldest, now)
	}
	former := s.former
	if s.table != nil {
		s.table.remove(s)
	}
	to.put(s)
	if former != (streamKey{}) {
		s.former = former
		to.byKey[former] = to.byKey[s.key]
	}
	return true
}

// evict forgets the stream. What it counted stays in the account.
func (a *agents) evict(s *stream, now time.Time) {
	t := s.table
	t.remove(s)
	s.evictedTo = t
	t.addEvicted(s.account(true), now)
	if s.isUnknown() {
		a.forgotten.add(s.key.source.Addr())
	}
	a.forgetRecord(s)
	delete(a.ids, s.id)
	if s.key.Host != "" {
		delete(a.shared, sharedID(s.key.StreamName))
	}
	if s.audit != nil {
		a.runs -= len(s.audit.Received.Runs)
	}
	a.heldBytes -= len(s.held)
	s.held = nil
	a.leave(s)
}

// countRuns notes that the stream, which had so many ranges, may have more now. When all
// streams together have too many, the one that grows folds its oldest: its figures stay
// exact, but they cannot be united any more with those of another collector.
func (a *agents) countRuns(s *stream, before int) {
	if s.table == nil {
		return // evicted meanwhile
	}
	numbers := &s.audit.Received
	if a.runs += len(numbers.Runs) - before; a.runs > maxRuns && len(numbers.Runs) > keptRuns {
		a.runs -= len(numbers.Runs)
		numbers.Fold(len(numbers.Runs) / 2)
		a.runs += len(numbers.Runs)
	}
}

// leave takes the stream from its host, and forgets the host with its last one.
func (a *agents) leave(s *stream) {
	if s.host == nil {
		return
	}
	if s.host.streams--; s.host.streams == 0 {
		a.evictedRestarts += s.host.restarts
		a.evictedAway.Add(s.host.away)
		delete(a.hosts, s.host.name)
	}
	s.host = nil
}

// forgotAt returns when something may have been forgotten of a stream that is new here: when
// the collector was killed, or others like it had to make room. Zero: never.
func (a *agents) forgotAt(s *stream) time.Time {
	at := a.killedAt
	for _, t := range []*table{a.frames, a.probation} {
		if t.forgotAt.After(at) && (t == a.frames || s.table == a.probation) {
			at = t.forgotAt
		}
	}
	return at
}

// crowded returns the table that became nearly full, or nil: so that it is said once.
func (a *agents) crowded() *table {
	for _, t := range a.tables() {
		n := t.recent.Len()
		switch {
		case !t.crowded && 5*n >= 4*t.limit:
			t.crowded = true
			return t
		case t.crowded && 5*n < 3*t.limit:
			t.crowded = false
		}
	}
	return nil
}

// repeated reports whether the record is the one that the stream sent last.
func (a *agents) repeated(s *stream, record []byte) bool {
	return s.host != nil && s.record == maphash.Bytes(a.records, record)
}

// forget makes the next repeat of every record count as new, because a record
// was lost on its way to the sink.
func (a *agents) forget() {
	a.records = maphash.MakeSeed()
	clear(a.byBytes)
}

// bind reads an agent_init and says whose stream this is. A record of another
// process than the last one of the host's agent is a restart; a changed fact and
// another destination are none. One that does not say when its process began, as of
// a release before, is told by its process id alone.
func (a *agents) bind(s *stream, record []byte) {
	facts := readFacts(record)
	process := processDigest(facts.StartedAt, facts.PID)

	a.forgetRecord(s)
	if s.record = maphash.Bytes(a.records, record); s.audit == nil {
		a.byBytes[s.record] = s
	}
	h := a.join(s, facts.Hostname)
	if h.process != 0 && h.process != process && s.process != process {
		h.restarts++
	}
	s.arrived = s.arrived || h.process == process // another stream of the same one
	h.process, s.process = process, process
}

func (a *agents) forgetRecord(s *stream) {
	if a.byBytes[s.record] == s {
		delete(a.byBytes, s.record)
	}
}

// facts are those of an agent_init that a collector needs.
type facts struct {
	Hostname  string `json:"hostname"`
	PID       int64  `json:"pid"`
	StartedAt string `json:"started_at"`
}

// readFacts reads a record, which was checked to be JSON. A fact of another type
// than expected stays empty.
func readFacts(record []byte) (f facts) {
	_ = json.Unmarshal(record, &f)
	return f
}

// processDigest tells one process of an agent from another, in every collector alike.
// It is not 0.
func processDigest(started string, pid int64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", pid, started)
	return max(1, h.Sum64())
}

// hostName is what is kept of a host's name.
func hostName(name string) string {
	return cmp.Or(name[:min(len(name), MaxHostname)], metadata.Unknown)
}

// join makes the stream one of the host of that name.
func (a *agents) join(s *stream, hostname string) *host {
	name := hostName(hostname)
	h := a.hosts[name]
	if h == nil {
		h = &host{name: strings.Clone(name)}
		a.hosts[h.name] = h
	}
	if s.host != h {
		a.leave(s)
		s.host = h
		h.streams++
	}
	return h
}

// stats reads an agent_stats that came in the stream, which may report for the
// sender's predecessor. It returns whether that says something new: a goodbye is
// said more than once.
func (a *agents) stats(s *stream, text []byte) (news bool) {
	stats, err := ledger.ReadAgentStats(text)
	if err != nil {
		return true // it is written as it is, but nothing can be learnt from it
	}
	about := s
	if stats.ReportedBy != "" {
		if about = a.reportedOn(s, stats); about == nil {
			// It is not theirs to report on, or a sum of streams; it is said three times.
			id := cmp.Or(strings.Clone(stats.Stream[:min(len(stats.Stream), 16)]), "sum")
			news, s.reported = s.reported != id, id
			return news
		}
	} else if s.host == nil {
		a.join(s, stats.Hostname) // its agent_init was lost
		if began := s.heard.Add(-stats.Timestamp.Sub(stats.StartedAt)); began.Before(s.first) {
			s.first = began // and what came before it, perhaps
		}
	}
	news = !about.ended() || !stats.Goodbye
	if about.audit != nil && !about.audit.Claim(stats.LastNumber, s.sealed) {
		return news // too far ahead to be believed alone
	}
	next := toldBy(stats)
	next.keep(&about.told)
	about.told = next
	if about.audit != nil {
		if stats.Offered != nil {
			about.audit.Offered = *stats.Offered
		}
		if about.fresh && stats.StartedAt.After(a.forgotAt(about).Add(time.Minute)) {
			about.audit.Unknown = ledger.Ranges{} // it is younger than that
		}
		about.fresh = false
		about.audit.Announce(stats.LastNumber, stats.Sums())
		about.audit.Goodbye = about.audit.Goodbye || stats.Goodbye
		return news
	}
	about.net.Announce(stats)
	if about.id == "" && stats.Stream != "" {
		about.id = strings.Clone(stats.Stream[:min(len(stats.Stream), 16)])
		a.ids[about.id] = about
	}
	return news
}

// reportedOn returns the stream of a killed process that s reports on in its place,
// or nil if it is none of the same host's. One of which nothing ever came begins now,
// if it had a number: it was killed before.
func (a *agents) reportedOn(s *stream, stats *ledger.AgentStats) *stream {
	about := a.byID(stats.Stream, s.key.Host)
	if about == nil && s.audit != nil && s.host != nil && s.host.name == stats.Hostname {
		if id, ok := datagram.ParseStreamID([]byte(stats.Stream)); ok && id != 0 {
			about = a.numberedStream(datagram.StreamName{ID: id, Host: s.key.Host}, s.key.Host != "", s.heard)
			a.join(about, stats.Hostname)
		}
	}
	if about == nil || about.host == nil || about.host.name != stats.Hostname {
		return nil
	}
	return about
}

// byName returns the stream of that name, or nil. It does not make it the one
// heard last.
func (a *agents) byName(name datagram.StreamName) *stream {
	for _, t := range []*table{a.frames, a.probation} {
		if e, ok := t.byKey[streamKey{StreamName: name}]; ok {
			return e.Value.(*stream)
		}
	}
	return nil
}

// byID returns the stream of that id, as accounts write it, and host, or nil.
func (a *agents) byID(id, host string) *stream {
	if s := a.ids[id]; s != nil && host == "" {
		return s
	}
	number, ok := datagram.ParseStreamID([]byte(id))
	if !ok {
		return nil
	}
	return a.byName(datagram.StreamName{ID: number, Host: host})
}

// isUnknown says whether events came of which nobody knows whose they are.
func (s *stream) isUnknown() bool {
	return s.audit == nil && s.host == nil && s.id == "" && s.net.Received > 0
}

// addresses is a set of IP addresses that may say of one that it is in it, but never of one
// that is in it that it is not.
type addresses [1024]uint64

var addressSeed = maphash.MakeSeed()

func (a *addresses) place(ip netip.Addr) (*uint64, uint64) {
	bit := maphash.Comparable(addressSeed, ip) % (64 * uint64(len(a)))
	return &a[bit/64], 1 << (bit % 64)
}

func (a *addresses) add(ip netip.Addr) {
	word, bit := a.place(ip)
	*word |= bit
}

// fill makes it a set of all.
func (a *addresses) fill() {
	for i := range a {
		a[i] = ^uint64(0)
	}
}

func (a *addresses) has(ip netip.Addr) bool {
	word, bit := a.place(ip)
	return *word&bit != 0
}

// unsure returns the addresses from which events came of which nobody knows whose they are:
// an agent there may have sent them from another port.
func (a *agents) unsure() *addresses {
	unsure := a.forgotten
	for _, t := range []*table{a.sources, a.strangers} {
		t.all(func(s *stream) {
			if s.isUnknown() {
				unsure.add(s.key.source.Addr())
			}
		})
	}
	return &unsure
}

// account returns the agents by name with their streams by id; those that sent
// no agent_init come first, the evicted ones last.
func (a *agents) account() []ledger.Agent {
	byHost := map[*host]*ledger.Agent{}
	unsure := a.unsure()
	evicted := ledger.Agent{Hostname: evictedName, Restarts: a.evictedRestarts, Away: a.evictedAway}
	for _, t := range a.tables() {
		t.all(func(s *stream) {
			agent := byHost[s.host]
			if agent == nil {
				agent = &ledger.Agent{}
				if s.host != nil {
					agent.Hostname, agent.Restarts, agent.Away = s.host.name, s.host.restarts, s.host.away
				}
				byHost[s.host] = agent
			}
			agent.Streams = append(agent.Streams, s.account(s.audit == nil && unsure.has(s.key.source.Addr())))
		})
		if t.evicted.Received > 0 || t.evicted.Announced != nil {
			evicted.Streams = append(evicted.Streams, t.evicted)
		}
		if t.unfinished.Received > 0 {
			evicted.Streams = append(evicted.Streams, t.unfinished)
		}
	}
	all := make([]ledger.Agent, 0, len(byHost)+1)
	for _, agent := range byHost {
		slices.SortFunc(agent.Streams, func(x, y ledger.AgentStream) int { return strings.Compare(x.Stream, y.Stream) })
		all = append(all, *agent)
	}
	slices.SortFunc(all, func(x, y ledger.Agent) int { return strings.Compare(x.Hostname, y.Hostname) })
	if len(evicted.Streams) > 0 || evicted.Restarts > 0 || evicted.Away.Times > 0 {
		all = append(all, evicted)
	}
	return all
}
