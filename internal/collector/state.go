package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// saveInterval is the time between two saves, and with settleWait the longest
// that a kill can make unknown.
const (
	saveInterval = time.Second
	settleWait   = 10 * time.Millisecond // between two looks whether a snapshot's events are written
)

// stateVersion is that of the state file's form.
const stateVersion = 1

// state is what a collector knows of its senders, and its totals, as they are
// kept from one process to the next. It holds only events that the sink has, or
// that are counted as lost: what waits in memory does not survive a kill.
type state struct {
	Version         int                  `json:"version"`
	Clean           bool                 `json:"clean"` // the process ended in order: what it knows is all there is
	Totals          ledger.Collector     `json:"totals"`
	Hosts           []savedHost          `json:"hosts"`
	Streams         []savedStream        `json:"streams"`
	Sources         []savedSource        `json:"sources"`
	Evicted         []ledger.AgentStream `json:"evicted"`
	Unfinished      []ledger.AgentStream `json:"unfinished"`
	EvictedRestarts uint64               `json:"evicted_restarts"`
	EvictedAway     ledger.Away          `json:"evicted_away,omitzero"`
}

type savedHost struct {
	Name     string `json:"name"`
	Process  uint64 `json:"process"`
	Restarts uint64 `json:"restarts"`
	Keyed    bool   `json:"keyed,omitempty"`
	// Heard is when something new came of it last; zero: nothing did.
	Heard time.Time   `json:"heard,omitzero"`
	Away  ledger.Away `json:"away,omitzero"`
}

// savedStream is a stream with numbers. Its window begins anew behind the newest
// datagram.
type savedStream struct {
	ID         string        `json:"stream"`
	KeyHost    string        `json:"key_host,omitempty"` // whose key it is sealed with
	Hostname   string        `json:"hostname"`
	Record     uint64        `json:"record,omitempty"` // digest of its agent_init
	Trusted    bool          `json:"trusted"`          // not on probation
	Newest     uint64        `json:"newest_datagram"`
	Numbers    ledger.Ranges `json:"numbers"`
	Unknown    ledger.Ranges `json:"unknown"`
	Sums       ledger.Sums   `json:"sums"`
	Announced  uint64        `json:"announced"`
	Duplicate  uint64        `json:"duplicate"`
	Late       uint64        `json:"late"`
	Incomplete uint64        `json:"incomplete"`
	Goodbye    bool          `json:"goodbye"`
	Told       told          `json:"told"`
	Heard      *ledger.Heard `json:"heard,omitempty"`
}

// savedSource is a stream without numbers.
type savedSource struct {
	Source   netip.AddrPort `json:"source"`
	Hostname string         `json:"hostname"`
	ID       string         `json:"stream"`
	Net      ledger.Net     `json:"net"`
	Told     told           `json:"told"`
	Heard    *ledger.Heard  `json:"heard,omitempty"`
}

// snapshot returns what is known now. Its totals count what waits for the sink
// as Queued. Called with the lock.
func (c *Collector) snapshot() *state {
	s := &state{Version: stateVersion, Totals: c.account, EvictedRestarts: c.agents.evictedRestarts, EvictedAway: c.agents.evictedAway}
	s.Totals.Queued = c.queue.events()
	s.Totals.Observed.SocketDropped = c.socketDropped + c.socketDroppedBefore
	if !c.received {
		s.Totals.Observed.SocketDropped += c.in.dropped()
	}
	for _, h := range c.agents.hosts {
		s.Hosts = append(s.Hosts, savedHost{Name: h.name, Process: h.process, Restarts: h.restarts, Keyed: h.keyed, Heard: h.heard.UTC(), Away: h.away})
	}
	name := func(x *stream) string {
		if x.host == nil {
			return ""
		}
		return x.host.name
	}
	for _, t := range c.agents.tables() {
		s.Evicted, s.Unfinished = append(s.Evicted, t.evicted.Clone()), append(s.Unfinished, t.unfinished)
		// The one silent longest first, so that putting them back keeps the order.
		t.allFromOldest(func(x *stream) {
			if x.audit == nil {
				s.Sources = append(s.Sources, savedSource{Source: x.key.source, Hostname: name(x), ID: x.id, Net: x.net, Told: x.told, Heard: x.heardAs()})
				return
			}
			newest, _ := x.audit.Window.Newest()
			s.Streams = append(s.Streams, savedStream{
				ID: streamID(x.key.ID), KeyHost: x.key.Host, Hostname: name(x), Record: x.shared.record, Trusted: t == c.agents.frames, Newest: newest,
				Numbers: x.audit.Received.Clone(), Unknown: x.audit.Unknown.Clone(), Sums: x.audit.Sums, Announced: x.audit.Announced,
				Duplicate: x.audit.Duplicates, Late: x.audit.LateEvents, Incomplete: x.audit.Incomplete, Goodbye: x.audit.Goodbye, Told: x.told, Heard: x.heardAs(),
			})
		})
	}
	return s
}

// settled says whether the sink has taken all that waited when the snapshot was
// made, and completes its totals. Queues are first in, first out, so those are
// the first events that were delivered or dropped since. Called with the lock.
func (s *state) settled(now *ledger.Collector) (done, sure bool) {
	delivered := now.Delivered - s.Totals.Delivered
	failed := now.Dropped[ledger.SinkFailed] - s.Totals.Dropped[ledger.SinkFailed]
	waiting := s.Totals.Queued
	switch {
	case delivered+failed < waiting:
		return false, true
	case failed == 0:
		s.Totals.Delivered += waiting
	case delivered == 0:
		s.Totals.Dropped[ledger.SinkFailed] += waiting
	case delivered+failed == waiting:
		s.Totals.Delivered += delivered
		s.Totals.Dropped[ledger.SinkFailed] += failed
	default:
		return true, false // which of them the sink refused cannot be told
	}
	s.Totals.Queued = 0
	return true, true
}

// keep saves the state every saveInterval until ctx ends.
func (c *Collector) keep(ctx context.Context) {
	ticker := time.NewTicker(saveInterval)
	defer ticker.Stop()
	var trouble sinkLog
	var saved uint64 // datagrams, at the last save
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		idle := c.account.Datagrams == saved
		var s *state
		if !idle {
			s = c.snapshot()
		}
		c.mu.Unlock()
		if idle || !c.awaitSettled(ctx, s) {
			continue
		}
		err := writeState(c.config.StateFile, s)
		if err == nil {
			saved = s.Totals.Datagrams
		}
		trouble.reportState(c, err)
	}
}

// awaitSettled waits until the snapshot's events left the process, but not past
// the next save.
func (c *Collector) awaitSettled(ctx context.Context, s *state) bool {
	for end := time.Now().Add(saveInterval); time.Now().Before(end); {
		c.mu.Lock()
		done, sure := s.settled(&c.account)
		c.mu.Unlock()
		if done {
			return sure
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(settleWait):
		}
	}
	return false
}

// saveAtStart saves what is known before anything came, as of a process that has
// not ended in order.
func (c *Collector) saveAtStart() error {
	c.mu.Lock()
	s := c.snapshot()
	c.mu.Unlock()
	return writeState(c.config.StateFile, s)
}

// saveAtEnd saves the state of a collector that has ended: nothing is unknown.
func (c *Collector) saveAtEnd() error {
	if c.config.StateFile == "" {
		return nil
	}
	c.mu.Lock()
	s := c.snapshot()
	c.mu.Unlock()
	s.Clean = true
	return writeState(c.config.StateFile, s)
}

// writeState replaces the file at once: a reader, or a process after a crash,
// sees the old state or the new one.
func writeState(path string, s *state) error {
	fail := func(err error) error { return fmt.Errorf("collector: saving the state to %s: %w", path, err) }
	text, err := json.Marshal(s)
	if err != nil {
		return fail(err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fail(err)
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fail(err)
	}
	return nil
}

// loadState reads the state that the last process left. A file that does not
// exist is a first start. One that cannot be read is put aside: the collector
// then knows nothing, rather than something wrong.
func (c *Collector) loadState() {
	path := c.config.StateFile
	if path == "" {
		return
	}
	log := c.config.Log.With("file", path)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var s state
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && s.Version != stateVersion {
		err = fmt.Errorf("collector: state of version %d, want %d", s.Version, stateVersion)
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		aside := path + ".unreadable"
		log.Warn("The state of the last process cannot be read and is put aside", "as", aside, "cause", err, "put_aside", os.Rename(path, aside) == nil)
		return
	}
	c.restore(&s, time.Now())
	log.Info("Going on from the state of the last process", "streams", len(s.Streams)+len(s.Sources), "ended_in_order", s.Clean)
}

// check returns nil if the state is one that a collector can have saved.
func (s *state) check() error {
	if err := s.Totals.CheckTotals(); err != nil {
		return err
	}
	received := uint64(0)
	for i := range s.Evicted {
		received += s.Evicted[i].Received
	}
	for i := range s.Streams {
		x := &s.Streams[i]
		received += x.Numbers.Count()
		if _, ok := datagram.ParseStreamID([]byte(x.ID)); !ok {
			return fmt.Errorf("collector: the stream id %q", x.ID)
		}
		if err := errors.Join(x.Numbers.Check(), x.Unknown.Check()); err != nil {
			return fmt.Errorf("collector: stream %s: %w", x.ID, err)
		}
		if x.Announced > ledger.MaxNumber || x.Newest > ledger.MaxNumber || x.Unknown.Last() > max(x.Announced, x.Numbers.Last()) {
			return fmt.Errorf("collector: stream %s: announced %d, datagram %d, unknown up to %d", x.ID, x.Announced, x.Newest, x.Unknown.Last())
		}
	}
	for i := range s.Sources {
		n := &s.Sources[i].Net
		received += n.Received
		if n.Announced > ledger.MaxNumber || n.Refused > ledger.MaxNumber || n.Then > n.Received {
			return fmt.Errorf("collector: source %s: announced %d, refused %d, received %d then and %d now", s.Sources[i].Source, n.Announced, n.Refused, n.Then, n.Received)
		}
	}
	if received != s.Totals.Received {
		return fmt.Errorf("collector: received %d, but the streams %d", s.Totals.Received, received)
	}
	return nil
}

// resume takes over when the stream was heard.
func (s *stream) resume(h *ledger.Heard) {
	s.first = s.heard
	if h != nil {
		s.arrived, s.first, s.news = true, h.First, h.Last
	}
}

// restore takes over a saved state.
func (c *Collector) restore(s *state, now time.Time) {
	c.account = s.Totals
	c.account.Agents, c.account.Closes, c.account.Queued = nil, nil, 0
	c.socketDroppedBefore = s.Totals.Observed.SocketDropped
	c.account.Observed = ledger.Observed{}
	a := c.agents
	if s.Totals.KilledAt != nil {
		a.killedAt = *s.Totals.KilledAt
	}
	if !s.Clean {
		a.killedAt = now.UTC()
		c.account.KilledAt = &a.killedAt
	}
	a.evictedRestarts, a.evictedAway = s.EvictedRestarts, s.EvictedAway
	for i, t := range a.tables() {
		if i < len(s.Evicted) {
			t.evicted = s.Evicted[i]
		}
		if i < len(s.Unfinished) {
			t.unfinished = s.Unfinished[i]
		}
		if t.unfinished.Received > 0 && (t == a.sources || t == a.strangers) {
			a.forgotten.fill() // from where they came was not saved
		}
	}
	for _, h := range s.Hosts {
		a.hosts[h.Name] = &host{name: h.Name, process: h.Process, restarts: h.Restarts, keyed: h.Keyed, heard: h.Heard, away: h.Away}
	}
	join := func(x *stream, hostname string) {
		if hostname != "" {
			a.join(x, hostname)
		}
	}
	for _, saved := range s.Streams {
		id, ok := datagram.ParseStreamID([]byte(saved.ID))
		if !ok {
			continue
		}
		x := &stream{key: streamKey{StreamName: datagram.StreamName{ID: id, Host: saved.KeyHost}}, heard: now, told: saved.Told, shared: shared{record: saved.Record}, audit: &ledger.Audit{
			Received: saved.Numbers, Unknown: saved.Unknown, Sums: saved.Sums, Announced: saved.Announced,
			Duplicates: saved.Duplicate, LateEvents: saved.Late, Incomplete: saved.Incomplete,
			Goodbye: saved.Goodbye, Blind: !s.Clean && !saved.Goodbye,
		}}
		if saved.Told.Offered != nil {
			x.audit.Offered = *saved.Told.Offered
		}
		x.audit.Window.Resume(saved.Newest)
		t := a.probation
		if saved.Trusted {
			t, x.frames = a.frames, probationFrames
		}
		a.putBack(t, x, now)
		x.resume(saved.Heard)
		a.authenticate(x)
		if a.mayClaim(x, saved.Hostname) {
			join(x, saved.Hostname)
		}
	}
	for _, saved := range s.Sources {
		x := &stream{key: streamKey{source: saved.Source}, heard: now, id: saved.ID, net: saved.Net, told: saved.Told}
		x.net.Blind = x.net.Blind || !s.Clean && !x.net.Goodbye
		a.putBack(a.sources, x, now)
		x.resume(saved.Heard)
		if x.id != "" {
			a.ids[x.id] = x
		}
		join(x, saved.Hostname)
	}
}

// putBack puts a saved stream into its table. They come in the order in which they were
// heard, so if the table has become smaller, those silent longest make room.
func (a *agents) putBack(t *table, x *stream, now time.Time) {
	if t.full() {
		a.evict(t.oldest(), now)
	}
	t.put(x)
	if x.audit != nil {
		a.runs += len(x.audit.Received.Runs)
	}
}
