package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tetracast/internal/printable"
)

// ErrNoUnion is returned by Merge for accounts whose numbers cannot be united,
// because one has folded what another knows.
var ErrNoUnion = errors.New("ledger: the numbers of a stream were folded and cannot be united")

// Stream returns the audit's figures as a stream of an account, with the numbers
// that [Merge] needs. The memory is the caller's.
func (a *Audit) Stream(id string) AgentStream {
	numbers, unknown := a.Received.Clone(), a.Unknown.Clone()
	s := AgentStream{
		Stream: id, Ended: EndedUnknown, Sender: senderOf(a.Sums), Numbers: &numbers, UnknownNumbers: &unknown,
	}
	duplicates, late, incomplete := a.Duplicates, a.LateEvents, a.Incomplete
	s.Duplicate, s.Late, s.Incomplete = &duplicates, &late, &incomplete
	if a.Goodbye {
		s.Ended = EndedGoodbye
	}
	if a.Blind {
		after := a.Announced
		s.BlindAfter = &after
	}
	s.settle(a.Figures())
	return s
}

func senderOf(s Sums) map[string]uint64 {
	return map[string]uint64{"seen": s.Seen, "excluded": s.Excluded, "dropped": s.Dropped, "refused": s.Refused}
}

// settle states the figures.
func (s *AgentStream) settle(f Figures) {
	s.Announced, s.Received, s.Missing = &f.Announced, f.Received, &f.Missing
	s.RefusedBySender, s.Unknown = &f.Refused, &f.Unknown
}

// Merge unites the accounts of several collectors that streams moved between: an
// event is missing if none of them received it. Counts of datagrams, drops and
// deliveries are sums; an event that several received counts once in its stream
// and beside that in Overlap. Streams without numbers stand side by side.
//
// The error is ErrNoUnion, or says which account does not close by itself.
func Merge(accounts ...Collector) (Collector, error) {
	total := Collector{Side: "collector"}
	u := union{agents: map[string]*Agent{}, at: map[string]*united{}, several: map[string]bool{}}
	for i := range accounts {
		c := &accounts[i]
		if err := c.Check(); err != nil {
			return Collector{}, fmt.Errorf("ledger: account %d: %w", i+1, err)
		}
		total.Datagrams += c.Datagrams
		total.Bytes += c.Bytes
		total.Observed.SocketDropped += c.Observed.SocketDropped
		total.Observed.ChunkSetsGivenUp += c.Observed.ChunkSetsGivenUp
		total.Observed.FragmentSetsGivenUp += c.Observed.FragmentSetsGivenUp
		total.PassedOn += c.PassedOn
		total.Received += c.Received
		total.Queued += c.Queued
		total.Delivered += c.Delivered
		total.Overlap += c.Overlap
		for r, n := range c.Dropped {
			total.Dropped[r] += n
		}
		for f, n := range c.Undecodable {
			total.Undecodable[f] += n
		}
		if c.KilledAt != nil && (total.KilledAt == nil || c.KilledAt.After(*total.KilledAt)) {
			total.KilledAt = c.KilledAt
		}
		for _, a := range c.Agents {
			for j := range a.Streams {
				if err := a.Streams[j].checkNumbers(); err != nil {
					return Collector{}, fmt.Errorf("ledger: account %d: stream %s: %w", i+1, a.Streams[j].Stream, err)
				}
			}
			both, err := u.add(&a)
			if err != nil {
				return Collector{}, err
			}
			total.Overlap += both
		}
	}
	for i := range accounts {
		u.darken(&accounts[i])
	}
	total.Agents = u.all()
	return total, total.Close()
}

// checkNumbers returns nil if the numbers of the stream, which came from a file, are
// some that an [Audit] can have.
func (s *AgentStream) checkNumbers() error {
	for _, numbers := range []*Ranges{s.Numbers, s.UnknownNumbers} {
		if numbers == nil {
			continue
		}
		if err := numbers.Check(); err != nil {
			return err
		}
	}
	for _, n := range []*uint64{s.Announced, s.BlindAfter} {
		if value(n) > MaxNumber {
			return fmt.Errorf("ledger: number %d, at most %d", *n, uint64(MaxNumber))
		}
	}
	if s.Numbers != nil && s.Received != s.Numbers.Count() {
		return fmt.Errorf("ledger: received %d events, but %d numbers", s.Received, s.Numbers.Count())
	}
	return nil
}

// union gathers the agents and streams of several accounts.
type union struct {
	agents map[string]*Agent  // by hostname, without their streams
	at     map[string]*united // numbered streams, by name
	others []united           // streams without numbers
	// several are the agents that more than one collector heard.
	several map[string]bool
}

// united is a stream and whose it is.
type united struct {
	AgentStream
	hostname string
}

// add adds an agent's streams, and returns how many of their events were there
// before.
func (u *union) add(a *Agent) (both uint64, err error) {
	agent := u.agents[a.Hostname]
	if agent == nil {
		agent = &Agent{Hostname: a.Hostname, Away: a.Away}
		u.agents[a.Hostname] = agent
	} else {
		u.several[a.Hostname] = true
	}
	agent.Restarts = max(agent.Restarts, a.Restarts)
	for _, s := range a.Streams {
		if s.Numbers == nil {
			u.others = append(u.others, united{s, a.Hostname})
			continue
		}
		there := u.at[s.name()]
		if there == nil {
			numbers := s.Numbers.Clone()
			s.Numbers = &numbers
			u.at[s.name()] = &united{s, a.Hostname}
			continue
		}
		there.hostname = cmp.Or(there.hostname, a.Hostname) // one of them may not have seen agent_init
		n, err := unite(&there.AgentStream, &s)
		if err != nil {
			return 0, fmt.Errorf("%w: stream %s", err, printable.Name(s.Stream))
		}
		both += n
	}
	return both, nil
}

// clockSkew is how far the clocks of a fleet may be apart.
const clockSkew = time.Minute

// darken makes unknown what is missing of the streams that a killed collector
// does not know, but may have received some of.
func (u *union) darken(c *Collector) {
	if c.KilledAt == nil {
		return
	}
	known := map[string]bool{}
	for _, a := range c.Agents {
		for _, s := range a.Streams {
			known[s.name()] = true
		}
	}
	for id, s := range u.at {
		audit := Audit{Received: *s.Numbers, Announced: value(s.Announced)}
		if known[id] || s.StartedAfter(*c.KilledAt) || audit.Announced == 0 {
			continue
		}
		audit.Unknown.Add(Range{First: 1, Last: audit.Announced})
		audit.Sums.Refused = s.Sender["refused"]
		f := audit.Figures()
		unknown := audit.Unknown.Clone()
		s.UnknownNumbers = &unknown
		s.settle(f)
	}
}

// StartedAfter says whether the stream certainly began after that moment.
func (s *AgentStream) StartedAfter(t time.Time) bool {
	return s.StartedAt != nil && s.StartedAt.After(t.Add(clockSkew))
}

// all returns the agents by name, each with its streams by id.
func (u *union) all() []Agent {
	streams := u.others
	for _, s := range u.at {
		streams = append(streams, *s)
	}
	for _, s := range streams {
		a := u.agents[s.hostname]
		a.Streams = append(a.Streams, s.AgentStream)
	}
	var all []Agent
	for _, name := range slices.Sorted(maps.Keys(u.agents)) {
		a := u.agents[name]
		if len(a.Streams) == 0 {
			continue // another collector knew whose they are
		}
		slices.SortFunc(a.Streams, func(x, y AgentStream) int { return cmp.Compare(x.Stream, y.Stream) })
		if u.several[name] {
			a.Away = awayOf(a.Streams) // one of them may have heard it while it was away for another
		}
		all = append(all, *a)
	}
	return all
}

// unite adds s to t.
func unite(t, s *AgentStream) (both uint64, err error) {
	both, ok := t.Numbers.Union(s.Numbers)
	if !ok {
		return 0, ErrNoUnion
	}
	var unknown Ranges
	for _, list := range []*Ranges{t.UnknownNumbers, s.UnknownNumbers} {
		if list == nil {
			continue
		}
		for _, r := range list.Runs {
			unknown.Add(r)
		}
	}
	audit := Audit{Received: *t.Numbers, Unknown: unknown, Announced: max(value(t.Announced), value(s.Announced))}
	for _, after := range []*uint64{t.BlindAfter, s.BlindAfter} {
		if after != nil && *after < audit.Announced {
			audit.Unknown.Add(Range{First: *after + 1, Last: audit.Announced})
		}
	}
	told, other := t.unsettled(), s.unsettled()
	audit.Sums.Refused = max(told.Sender["refused"], other.Sender["refused"])
	for _, o := range []*Settled{t.Offered, s.Offered} {
		if o != nil {
			audit.Offered = o.Offered
		}
	}
	audit.Duplicates = value(t.Duplicate) + value(s.Duplicate)
	audit.LateEvents = value(t.Late) + value(s.Late)
	audit.Incomplete = value(t.Incomplete) + value(s.Incomplete)
	audit.Goodbye = t.Ended == EndedGoodbye || s.Ended == EndedGoodbye
	newest := told
	if other.Sender["seen"] > told.Sender["seen"] || t.Offered == nil && s.Offered != nil {
		newest = other
	}
	blind := t.BlindAfter
	if s.BlindAfter != nil && (blind == nil || *s.BlindAfter < *blind) {
		blind = s.BlindAfter
	}
	started := t.StartedAt
	if started == nil {
		started = s.StartedAt
	}
	keyHost, heard := t.KeyHost, heardBoth(t.Heard, s.Heard)
	*t = audit.Stream(t.Stream)
	t.KeyHost, t.Heard = keyHost, heard
	t.BlindAfter, t.StartedAt = blind, started
	t.Sender, t.SenderDropped, t.Upstream = newest.Sender, newest.SenderDropped, newest.Upstream
	t.Settle(audit.Offered, audit.Figures().Sent)
	return both, nil
}

func value(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
