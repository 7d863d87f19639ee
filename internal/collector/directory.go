package collector

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"tetracast/datagram"
	"tetracast/metadata"
)

const (
	// askInterval is the time between two questions about one stream. In between a
	// watcher tells.
	askInterval = 15 * time.Second
	// publishInterval is the least time between two entries with the same record of
	// one stream. An agent repeats it every ten minutes.
	publishInterval = time.Minute
)

// shared is what the directory was told of a stream, and asked. Times are as in
// stream.heard.
type shared struct {
	record    uint64    // digest of the agent_init that is known, as frames carry it; 0: none
	wanted    uint64    // likewise of the one asked for
	open      bool      // an answer is wanted
	asked     time.Time // last
	published time.Time // last
}

// sharedID is the number under which collectors share what they know of a stream: its id,
// and of one that is sealed with a host's key one that no other host can choose.
func sharedID(name datagram.StreamName) uint64 {
	if name.Host == "" {
		return name.ID
	}
	h := sha256.New()
	fmt.Fprintf(h, "%016x %s", name.ID, name.Host)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// byShared is the reverse of sharedID.
func (a *agents) byShared(id uint64) *stream {
	if s := a.byName(datagram.StreamName{ID: id}); s != nil {
		return s
	}
	return a.shared[id]
}

// ask looks for the agent of a stream whose agent_init did not come here, as the
// digest in its frames tells, and keeps the entry of one that is known from
// expiring. Called with the lock, as are those below.
func (c *Collector) ask(s *stream, record uint64) {
	d := c.config.Directory
	if d == nil || s.table == nil {
		return
	}
	known := s.host != nil
	if record != 0 {
		known = record == s.shared.record
	}
	switch {
	case !known && s.heard.Sub(s.shared.asked) >= askInterval:
		s.shared.wanted, s.shared.open, s.shared.asked = record, true, s.heard
		d.Ask(sharedID(s.key.StreamName), record)
	case known && d.Refreshes() > 0 && s.heard.Sub(s.shared.published) >= d.Refreshes():
		s.shared.published = s.heard
		d.Refresh(sharedID(s.key.StreamName), s.shared.record)
	}
}

// askRestored asks for the streams whose agent the process before this one had not
// found out: they may never be heard here again.
func (c *Collector) askRestored() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range []*table{c.agents.frames, c.agents.probation} {
		t.all(func(s *stream) {
			if s.host == nil {
				c.ask(s, 0)
			}
		})
	}
}

// publish tells of an agent_init that came in a stream with an id; no other
// collector could make use of others.
func (c *Collector) publish(s *stream, record []byte, digest uint64) {
	if c.config.Directory == nil || s.audit == nil {
		return
	}
	s.shared.record, s.shared.open = digest, false
	if !c.agents.repeated(s, record) || s.heard.Sub(s.shared.published) >= publishInterval {
		s.shared.published = s.heard
		c.config.Directory.Publish(sharedID(s.key.StreamName), record)
	}
}

// found takes what the directory knows of a stream.
func (c *Collector) found(f metadata.Found) {
	c.mu.Lock()
	wasEmpty := c.queue.empty()
	if s := c.agents.byShared(f.Stream); s != nil && !c.closed {
		c.answer(s, f)
	}
	due := wasEmpty && !c.queue.empty()
	c.mu.Unlock()
	if due {
		c.wakeWriter()
	}
}

// answer says whose stream it is. The stream's own agent_init is written as if it
// had come here; an older one is good enough for a name, if there is none.
func (c *Collector) answer(s *stream, f metadata.Found) {
	asked := f.Digest == s.shared.wanted
	if !s.shared.open || !asked && s.host != nil {
		return
	}
	if !c.agents.mayClaim(s, readFacts(f.Record).Hostname) {
		return // whoever put it there
	}
	s.shared.record, s.shared.published = f.Digest, s.heard
	if f.Exact {
		s.shared.open = !asked
		c.learn(s, f.Record)
	} else if s.host == nil {
		c.agents.join(s, readFacts(f.Record).Hostname)
	}
}
