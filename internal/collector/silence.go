package collector

import (
	"context"
	"time"

	"tetracast/ledger"
)

// DefaultSilentAfter is how long an agent says nothing until that is said. An agent
// that lives sends agent_stats every 10 seconds in frames and every 60 in other
// formats, give or take a tenth: at least four of them in a row have to be lost.
const DefaultSilentAfter = 5 * time.Minute

// farewellTime is how long a goodbye is said again.
const farewellTime = time.Second

// maxLookInterval is the longest between two looks for silent agents.
const maxLookInterval = 10 * time.Second

// silence says in the output which agents are not heard, and which are again. An
// agent is a host: one that was restarted, or sends to two destinations, is silent
// only when all its streams are. What proves that one lives is a datagram that is
// new: one that was recorded and is sent again proves nothing. It is guarded by the
// collector's lock.
type silence struct {
	after    time.Duration // 0: nobody is missed
	began    time.Time     // before that nobody listened
	expected map[string]*expectation
}

// expectation is of a host that shall be heard.
type expectation struct {
	missed bool // said never to have been seen
}

func newSilence(config Config) silence {
	s := silence{after: config.SilentAfter, began: time.Now(), expected: make(map[string]*expectation, len(config.Expected))}
	for _, name := range config.Expected {
		s.expected[name] = &expectation{}
	}
	return s
}

// counts returns how many hosts are silent, and how many are expected and were never
// heard.
func (s *silence) counts(a *agents) (silent, unseen int) {
	for _, h := range a.hosts {
		if h.silent {
			silent++
		}
	}
	for name := range s.expected {
		if h := a.hosts[name]; h == nil || h.heard.IsZero() {
			unseen++
		}
	}
	return silent, unseen
}

// keepLooking looks for silent agents until ctx ends.
func (c *Collector) keepLooking(ctx context.Context) {
	ticker := time.NewTicker(max(time.Millisecond, min(c.config.SilentAfter/10, maxLookInterval)))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			c.look(now)
		}
	}
}

// look says who became silent.
func (c *Collector) look(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wasEmpty := c.queue.empty()
	s := &c.silence
	for _, h := range c.agents.hosts {
		if h.silent || h.heard.IsZero() || now.Sub(h.heard) < s.after || now.Sub(s.began) < s.after {
			continue
		}
		if s.expected[h.name] == nil && h.saidGoodbye() {
			continue // it was ended, and nobody wants it back
		}
		h.silent = c.say(&ledger.AgentSilence{Event: ledger.EventAgentSilent, Hostname: h.name, Stream: h.stream(), LastHeard: &h.heard,
			Goodbye: h.saidGoodbye()}, h.heard, now)
	}
	for name, e := range s.expected {
		if h := c.agents.hosts[name]; !e.missed && (h == nil || h.heard.IsZero()) && now.Sub(s.began) >= s.after {
			e.missed = c.say(&ledger.AgentSilence{Event: ledger.EventAgentSilent, Hostname: name}, s.began, now)
		}
	}
	if wasEmpty && !c.queue.empty() {
		c.wakeWriter()
	}
}

// heardFrom notes that something new came of a stream, before it is queued. Called
// with the lock.
func (c *Collector) heardFrom(s *stream, now time.Time) {
	h := s.host
	if h == nil || s.table == c.agents.probation {
		return // whoever it is, it may be anybody
	}
	if s.farewell && now.Sub(s.news) < farewellTime {
		return // the goodbye is said again: nothing was counted any more
	}
	s.farewell = s.ended()
	if h.silent {
		h.silent = !c.say(&ledger.AgentSilence{Event: ledger.EventAgentBack, Hostname: h.name, Stream: s.idText(), LastHeard: &h.heard}, h.heard, now)
	} else if h.heard.IsZero() {
		if e := c.silence.expected[h.name]; e != nil && e.missed {
			e.missed = false
			c.say(&ledger.AgentSilence{Event: ledger.EventAgentBack, Hostname: h.name, Stream: s.idText()}, c.silence.began, now)
		}
	}
	if !s.arrived {
		s.arrived = true
		h.away.Note(h.heard, s.first)
	}
	h.heard, h.last, s.news = now, s, now
}

// say queues the event; it is none of Tetragon's. It returns false if there is no
// room: it is then said later.
func (c *Collector) say(e *ledger.AgentSilence, since, now time.Time) bool {
	e.Timestamp = now.UTC()
	e.SilentSeconds = uint64(max(0, now.Sub(since)/time.Second))
	return !c.closed && c.queue.put(e.AppendJSON(nil), false)
}

// saidGoodbye says whether what was heard last of the host was a goodbye.
func (h *host) saidGoodbye() bool { return h.last != nil && h.last.ended() }

// stream names the stream that was heard last, as accounts do; empty: it was heard by
// the process before this one.
func (h *host) stream() string {
	if h.last == nil {
		return ""
	}
	return h.last.idText()
}
