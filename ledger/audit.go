package ledger

// Sums are what a sender has counted on one stream since its start, as each of
// its datagrams repeats them.
type Sums struct {
	Seen     uint64 `json:"seen"`
	Excluded uint64 `json:"excluded"`
	Dropped  uint64 `json:"dropped"` // before they got a number
	Refused  uint64 `json:"refused"` // numbered, but not taken by the sender's kernel
}

// grow takes over what is newer. The sums only grow, so the order in which
// datagrams arrive does not matter.
func (s *Sums) grow(other Sums) {
	s.Seen = max(s.Seen, other.Seen)
	s.Excluded = max(s.Excluded, other.Excluded)
	s.Dropped = max(s.Dropped, other.Dropped)
	s.Refused = max(s.Refused, other.Refused)
}

// Audit is what a collector knows of one stream whose events carry numbers. The
// zero value knows nothing. It has one owner.
//
// Every number up to the highest one announced was received, or refused by the
// sender, or is missing, or is unknown because this collector was killed when
// it may have come:
//
//	announced = received + refused + missing + unknown
type Audit struct {
	Window   Window
	Received Ranges
	Unknown  Ranges
	Sums     Sums
	// Announced is the highest number that the sender is known to have given.
	Announced  uint64
	Duplicates uint64 // events that came again
	LateEvents uint64 // events that came behind the window, which were not used
	Incomplete uint64 // events of which fragments were lost: part of missing
	Goodbye    bool   // Announced and Sums are final
	// Offered are events of a killed sender that it may have sent. Sums.Refused has
	// them all.
	Offered Offered
	// Blind: the collector was killed after it had noted Announced; what came
	// until the first datagram after that is unknown.
	Blind bool

	newest  uint64 // the highest event of the datagrams admitted
	ahead   place  // of the last Jump
	claimed uint64 // by an agent_stats that was not believed; 0: by none
}

// place is where in its stream a datagram stands: by its own number, and by that of
// the last event that its sender had numbered.
type place struct{ datagram, event uint64 }

// Admit says what the numbers of a datagram tell: its own, and that of the last
// event that its sender had numbered by then. It notes them if they are Fresh.
// With trusted set no step is too large: the numbers were authenticated. Nor is it
// for the first datagram of a stream.
func (a *Audit) Admit(datagram, event uint64, trusted bool) Verdict {
	v := a.Window.look(datagram)
	if v != Fresh {
		return v
	}
	if event > MaxNumber || !trusted && a.Far(datagram, event) && !a.agrees(place{datagram, event}) {
		a.ahead = place{datagram, event}
		return Jump
	}
	a.ahead, a.newest = place{}, max(a.newest, event)
	return a.Window.Admit(datagram)
}

// Far says whether the numbers are too far ahead of what is known to be believed
// alone.
func (a *Audit) Far(datagram, event uint64) bool {
	newest, heard := a.Window.Newest()
	return heard && (leap(newest, datagram) || leap(max(a.newest, a.Announced), event))
}

// agrees says whether p is near the place that was too far ahead, but not the same
// datagram again.
func (a *Audit) agrees(p place) bool {
	return a.ahead.datagram != 0 && p.datagram != a.ahead.datagram && near(p.datagram, a.ahead.datagram) && near(p.event, a.ahead.event)
}

// Claim says whether an agent_stats is believed by which all numbers up to last were
// given: if that is not too far ahead, or another one said so before.
func (a *Audit) Claim(last uint64, trusted bool) bool {
	if last > MaxNumber || !trusted && leap(max(a.newest, a.Announced), last) && (a.claimed == 0 || !near(a.claimed, last)) {
		a.claimed = last
		return false
	}
	a.claimed = 0
	return true
}

// Announce notes what a datagram says of its sender: its sums, and that all
// numbers up to last were given.
func (a *Audit) Announce(last uint64, sums Sums) {
	if a.Blind && last > a.Announced {
		// The first datagram since: its own events are received after this call.
		a.Unknown.Add(Range{First: a.Announced + 1, Last: last})
		a.Blind = false
	}
	a.Announced = max(a.Announced, last)
	a.Sums.grow(sums)
}

// Receive notes that the events numbered first to first+count-1 came, and
// returns how many of them are new.
func (a *Audit) Receive(first, count uint64) (added uint64) {
	if count == 0 || first == 0 || first > MaxNumber || count > MaxNumber-first+1 {
		return 0
	}
	added = a.Received.Add(Range{First: first, Last: first + count - 1})
	a.Duplicates += count - added
	return added
}

// Figures are what an audit comes to.
type Figures struct {
	Announced, Received, Refused, Missing, Unknown uint64
	Sent                                           uint64 // those of Offered that were sent
}

// Figures settles the holes: those that the sender's own refusals explain are
// refused, the others missing. Between two batches of the sender the split is
// provisional, since it announces a refusal only with the next batch.
func (a *Audit) Figures() Figures {
	f := Figures{Announced: max(a.Announced, a.Received.Last()), Received: a.Received.Count(), Sent: a.Offered.sent(&a.Received)}
	f.Unknown = a.Received.Holes(Range{First: 1, Last: min(a.Unknown.Folded.Through, f.Announced)}) // any of them may have come
	for _, r := range a.Unknown.Runs {
		f.Unknown += a.Received.Holes(Range{First: r.First, Last: min(r.Last, f.Announced)})
	}
	holes := f.Announced - f.Received - f.Unknown
	f.Refused = min(a.Sums.Refused-min(a.Sums.Refused, f.Sent), holes)
	f.Missing = holes - f.Refused
	return f
}

// FromStart says whether the stream's first event came: if not, another
// collector may have what is missing here.
func (a *Audit) FromStart() bool { return a.Received.Has(1) }

// Net is the audit of a stream whose events carry no numbers: what its sender
// says it sent, held against what came. It is exact once the sender said
// goodbye, where the network neither repeats nor corrupts.
type Net struct {
	Received  uint64 `json:"received"`  // events
	Announced uint64 `json:"announced"` // numbers given, at the last agent_stats
	Refused   uint64 `json:"refused"`   // likewise
	Then      uint64 `json:"then"`      // Received, at the last agent_stats
	Told      bool   `json:"told"`      // an agent_stats came
	Offered   uint64 `json:"offered"`   // the part of Refused that may have been sent, by a sender that was killed
	Goodbye   bool   `json:"goodbye"`
	// Blind: the collector was killed in between, so what came is not all counted.
	Blind bool `json:"blind"`
}

// Announce notes an agent_stats. Announced events that arrive after it count as
// missing until then.
func (n *Net) Announce(stats *AgentStats) {
	if n.Told && stats.LastNumber < n.Announced {
		return // an old one that was overtaken
	}
	n.Told, n.Then = true, n.Received
	n.Announced, n.Refused = stats.LastNumber, stats.Refused
	if stats.Offered != nil {
		n.Offered = min(stats.Offered.Events, n.Refused)
	}
	n.Goodbye = n.Goodbye || stats.Goodbye
}

// Figures returns what the audit comes to, and false if the stream sent no
// agent_stats, or if more came than was announced, as from a network that
// repeats datagrams; or if some of what a killed sender may have sent did not come,
// for without numbers nobody can tell whether it did.
func (n *Net) Figures() (Figures, bool) {
	f := Figures{Announced: n.Announced, Received: n.Received, Refused: n.Refused}
	if !n.Goodbye { // what came since was announced, too
		f.Announced += n.Received - n.Then
	}
	if f.Sent = n.Offered; f.Sent > 0 && f.Received != f.Announced-f.Refused+f.Sent {
		return Figures{}, false
	}
	f.Refused -= f.Sent
	if !n.Told || n.Blind || f.Announced < f.Received+f.Refused {
		return Figures{}, false
	}
	f.Missing = f.Announced - f.Received - f.Refused
	return f, true
}
