package exporter

import (
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// The times between two agent_stats of a stream: a frame carries the most
// important figures anyway, and its collector settles holes by them.
const (
	frameStatsInterval = 10 * time.Second
	statsInterval      = 60 * time.Second
)

// A goodbye is said so often, so far apart: what makes one datagram vanish seldom
// lasts longer. A full send buffer delays it, but not for ever.
const (
	goodbyes       = 3
	goodbyeSpacing = 20 * time.Millisecond
	goodbyeWait    = 500 * time.Millisecond
)

// Upstream is what an exporter cannot count itself, because it happened before
// an event reached it.
type Upstream struct {
	Breaks    uint64        // of the subscription
	BlindTime time.Duration // without a subscription
	// BlindUnknown: there was more of it, and nobody knows how much.
	BlindUnknown bool
	Overlap      uint64             // events that may have come twice
	Losses       map[string]*uint64 // by stage, as ledger.UpstreamStages names them; nil is unknown
}

// intake is what was counted, and learnt, before the streams.
type intake struct {
	seen, excluded uint64
	dropped        ledger.Drops
	clusterName    string
}

// statsPacker is a packer whose format has a place of its own for agent_stats.
type statsPacker interface {
	PackStats(b *datagram.Batch, stats []byte, goodbye bool)
}

// sums are the figures that each frame of the stream repeats.
func (s *stream) sums(in *intake) datagram.Sums {
	return datagram.Sums{
		Seen:     in.seen,
		Excluded: in.excluded,
		Dropped:  in.dropped.Total() + s.counts.dropped.Total() - s.counts.refused,
		Refused:  s.counts.refused,
	}
}

// counters are the stream's own figures, without those of intake.
func (s *stream) counters() ledger.Counters {
	c := ledger.Counters{
		Destination: s.destinationKey, Began: s.before,
		Stream: s.id, StartedAt: s.started, Dropped: s.counts.dropped, Refused: s.counts.refused,
		LastNumber: s.number, Sent: s.counts.sent, Datagrams: s.counts.datagrams, Truncated: s.counts.truncated, Goodbye: s.saidGoodbye,
	}
	if s.parted {
		c.Ended = s.until + 1
	}
	return c
}

// withIntake completes a stream's counters.
func withIntake(c ledger.Counters, seen, excluded uint64, dropped *ledger.Drops) ledger.Counters {
	c.Seen, c.Excluded = seen, excluded
	for reason, n := range dropped {
		c.Dropped[reason] += n
	}
	return c
}

// statsOf makes an agent_stats of counters.
func (s *stream) statsOf(c *ledger.Counters, in *intake, now time.Time) *ledger.AgentStats {
	if r := s.cache.Current(); r != nil {
		s.hostname = r.Event().Hostname
	}
	stats := &ledger.AgentStats{
		Timestamp:     now.UTC(),
		Event:         ledger.EventAgentStats,
		Stream:        streamIDText(c.Stream),
		Hostname:      s.hostname,
		ClusterName:   in.clusterName,
		StartedAt:     c.StartedAt.UTC(),
		UptimeSeconds: uint64(max(0, now.Sub(c.StartedAt)/time.Second)),
		Seen:          c.Seen,
		Excluded:      c.Excluded,
		Dropped:       map[string]uint64{},
		Refused:       c.Refused,
		LastNumber:    c.LastNumber,
		Sent:          c.Sent,
		Datagrams:     c.Datagrams,
		Truncated:     c.Truncated,
		Upstream:      new(ledger.Losses).ByStage(),
		Goodbye:       c.Goodbye,
	}
	for reason, n := range c.Dropped {
		if n > 0 {
			stats.Dropped[ledger.Reason(reason).String()] = n
		}
	}
	return stats
}

// sendStats sends the stream's agent_stats, ahead of all that waits. It returns
// false if the destination does not take it now; it then stays due.
func (s *stream) sendStats(in *intake, now time.Time, goodbye bool) bool {
	c := withIntake(s.counters(), in.seen, in.excluded, &in.dropped)
	c.Goodbye = goodbye
	stats := s.statsOf(&c, in, now)
	answers := s.befell.answers.Total()
	stats.ICMPAnswers = &answers
	if s.upstream != nil {
		up := s.upstream()
		before := up.before()
		setBefore(stats, &before)
		for stage, n := range up.Losses {
			stats.Upstream[stage] = n
		}
	}
	if s.trySendLine(append(stats.AppendJSON(nil), '\n'), now, goodbye) == 0 {
		return false
	}
	s.statsDue = nextAnnounce(now, s.statsInterval)
	s.saidGoodbye = s.saidGoodbye || goodbye
	return true
}

// setBefore states what was lost before the exporter.
func setBefore(stats *ledger.AgentStats, before *ledger.Before) {
	stats.SubscriptionBreaks = before.Breaks
	if blind := uint64(before.BlindTime.Milliseconds()); !before.BlindUnknown {
		stats.BlindMS = &blind
	}
	stats.Upstream = before.Losses.ByStage()
}

// reportPredecessor tells what a process that was killed had counted on a stream to
// the same destination, as the goodbye that it could not say.
func (s *stream) reportPredecessor(in *intake, now time.Time) {
	for len(s.predecessors) > 0 {
		p := s.predecessors[0]
		stats := s.statsOf(&p.Counters, in, now)
		setBefore(stats, &p.Before)
		stats.ReportedBy = s.idText
		stats.UptimeSeconds = uint64(max(0, p.Counted.Wall.Sub(p.StartedAt)/time.Second))
		if p.Offered.Events > 0 {
			stats.Offered = &p.Offered
		}
		if p.Streams > 1 {
			stats.Stream, stats.Streams = "", p.Streams
		}
		if s.trySendLine(append(stats.AppendJSON(nil), '\n'), now, false) == 0 {
			return
		}
		if s.reported++; s.reported < goodbyes {
			s.statsDue = now.Add(goodbyeSpacing)
			return
		}
		s.told(p)
		s.predecessors, s.reported = s.predecessors[1:], 0
		s.statsDue = nextAnnounce(now, s.statsInterval)
	}
}

// trySendLine sends a line that is no event, and returns 0 if the destination
// does not take it now.
func (s *stream) trySendLine(line []byte, now time.Time, goodbye bool) (done int) {
	if p, ok := s.packer.(statsPacker); ok {
		p.PackStats(&s.extra, line, goodbye)
	} else {
		s.packer.PackRecord(&s.extra, line)
	}
	done = s.trySend(&s.extra, 0, now)
	s.extra.Reset()
	return done
}
