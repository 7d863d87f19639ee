package collector

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// formats are the formats that a collector can be told to take, by name. "auto"
// tells a datagram's format from its first bytes.
var formats = map[string]takes{
	"auto":   {json: true, gelf: true, syslog: true, frame: true},
	"json":   {json: true},
	"ndjson": {json: true}, // one object is a line, too
	"gelf":   {gelf: true},
	"syslog": {syslog: true},
	"frame":  {frame: true},
}

// takes says which formats a collector takes.
type takes struct{ json, gelf, syslog, frame bool }

// text says whether it takes any but frames.
func (t takes) text() bool { return t.json || t.gelf || t.syslog }

func formatNames() string {
	return strings.Join(slices.Sorted(maps.Keys(formats)), ", ")
}

// mayspeak says whether datagrams from the address are taken.
func (c *Collector) mayspeak(source netip.Addr) bool {
	if c.config.AllowSources == nil {
		return true
	}
	source = source.Unmap()
	return slices.ContainsFunc(c.config.AllowSources, func(p netip.Prefix) bool { return p.Contains(source) })
}

// place is where in its stream a datagram stands: by its own number, and by that of
// the last event that its sender had numbered. Where the format numbers only events,
// the two are the same.
type place struct{ datagram, event uint64 }

// admit says whose datagram this is, and what its numbers tell. One too far ahead
// is kept aside; held says that there is one to look at again.
func (c *Collector) admit(name datagram.StreamName, at place, sealed bool, d []byte, now time.Time) (s *stream, verdict ledger.Verdict, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s = c.agents.numberedStream(name, sealed, now)
	verdict = s.audit.Admit(at.datagram, at.event, sealed)
	switch verdict {
	case ledger.Fresh:
		if newest, _ := s.audit.Window.Newest(); newest != at.datagram {
			c.reordered++
		}
		c.agents.consistent(s, now)
	case ledger.Jump:
		c.hold(s, at, d)
	}
	return s, verdict, s.held != nil
}

// repeat counts the events of a datagram that came before, or too late.
func (c *Collector) repeat(s *stream, v ledger.Verdict, events uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v == ledger.Late {
		s.audit.LateEvents += events
		return
	}
	s.audit.Duplicates += events
}

// hold keeps a datagram that is too far ahead until another agrees with it. Until
// then, and if there is no room for it, it counts as undecodable.
func (c *Collector) hold(s *stream, at place, d []byte) {
	c.undecoded(formatOf(d), ledger.FaultJump, 1)
	c.agents.heldBytes -= len(s.held)
	s.held = nil
	if c.agents.heldBytes+len(d) <= maxHeldBytes {
		s.held, s.heldAt = bytes.Clone(d), at
		c.agents.heldBytes += len(d)
	}
}

// believed returns the datagram that was held, if it is now near enough.
func (c *Collector) believed(s *stream) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.held == nil || s.audit.Far(s.heldAt.datagram, s.heldAt.event) {
		return nil
	}
	d := s.held
	c.undecoded(formatOf(d), ledger.FaultJump, -1)
	c.agents.heldBytes -= len(d)
	s.held = nil
	return d
}

// faultOf returns what the account calls an error of a datagram.
func faultOf(err error) ledger.Fault {
	for _, f := range faults {
		if errors.Is(err, f.err) {
			return f.fault
		}
	}
	return ledger.FaultNotJSON
}

var faults = []struct {
	err   error
	fault ledger.Fault
}{
	{datagram.ErrEmpty, ledger.FaultEmpty},
	{datagram.ErrCutOff, ledger.FaultCutOff},
	{datagram.ErrNotEvent, ledger.FaultNotEvent},
	{datagram.ErrNotJSON, ledger.FaultNotJSON},
	{datagram.ErrVersion, ledger.FaultVersion},
	{datagram.ErrFlag, ledger.FaultFlag},
	{datagram.ErrHeader, ledger.FaultHeader},
	{datagram.ErrNotSealed, ledger.FaultUnsealed},
	{datagram.ErrUnknownKey, ledger.FaultUnknownKey},
	{datagram.ErrCheck, ledger.FaultCheck},
	{datagram.ErrFragment, ledger.FaultFragment},
	{datagram.ErrChunk, ledger.FaultFragment},
	{datagram.ErrInflate, ledger.FaultInflate},
	{datagram.ErrInflateBomb, ledger.FaultBomb},
}

// reasonOf returns why the events of a frame with a good header cannot be used.
func reasonOf(err error) (ledger.Reason, bool) {
	switch {
	case errors.Is(err, datagram.ErrDictionary):
		return ledger.UnknownDictionary, true
	case errors.Is(err, datagram.ErrBroken):
		return ledger.Broken, true
	case errors.Is(err, datagram.ErrTooLong):
		return ledger.TooLong, true
	}
	return 0, false
}
