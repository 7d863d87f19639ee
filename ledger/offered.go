package ledger

import "maps"

// Offered are the events that the kernel was being given when their process was
// killed: how many of them it took nobody on that side knows. They are part of
// what was killed. The zero value is none.
type Offered struct {
	First  uint64 `json:"first"`  // their numbers, with those in between that were refused before
	Last   uint64 `json:"last"`   //
	Events uint64 `json:"events"` // how many they are
}

// Settled is what became of offered events.
type Settled struct {
	Offered
	Sent uint64 `json:"sent"` // certainly: they came, or one behind them did
}

// Settle moves those of the offered events that were certainly sent, as the audit has
// it, from what the stream's sender said was killed to what it sent. The stream's
// maps are changed.
func (s *AgentStream) Settle(offered Offered, sent uint64) {
	if offered.Events == 0 {
		return
	}
	s.Offered = &Settled{Offered: offered, Sent: sent}
	killed := Killed.String()
	s.Sender["sent"] += sent
	s.Sender["refused"] -= min(sent, s.Sender["refused"])
	s.SenderDropped[killed] -= min(sent, s.SenderDropped[killed])
}

// unsettled returns the stream as its sender told it, with maps of its own.
func (s AgentStream) unsettled() AgentStream {
	s.Sender, s.SenderDropped = maps.Clone(s.Sender), maps.Clone(s.SenderDropped)
	if s.Offered != nil {
		s.Sender["sent"] -= s.Offered.Sent
		s.Sender["refused"] += s.Offered.Sent
		s.SenderDropped[Killed.String()] += s.Offered.Sent
	}
	return s
}

// sent returns how many of them were certainly sent, since they came or one behind
// them did: the kernel takes datagrams in order.
func (o *Offered) sent(received *Ranges) (events uint64) {
	if o.Events == 0 || o.First == 0 || o.First > o.Last || o.Last > MaxNumber {
		return 0
	}
	all := Range{First: o.First, Last: o.Last}
	came := all.Count() - received.Holes(all)
	if o.Events < all.Count() || came == 0 {
		return min(came, o.Events) // with refused ones among the numbers
	}
	for i := len(received.Runs) - 1; i >= 0; i-- {
		if run := received.Runs[i]; run.First <= o.Last {
			return min(run.Last, o.Last) - o.First + 1
		}
	}
	return came // all of it is folded
}
