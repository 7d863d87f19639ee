package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"tetracast/internal/printable"
)

// appendTable appends what was lost as a table that is read from left to right:
// the way of an event, from the kernel that saw it to the sink. A question mark
// is a figure that nobody told; what a place does not know of a single agent is
// a hyphen.
func (c *Collector) appendTable(dst []byte) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintf(w, "  %s\t\n", strings.Join(cells, "\t")) }
	row("lost in", "kernel", "ring buffer", "Tetragon", "exporter", "network", "socket", "queue", "sink", "received", "away")
	var all loss
	for i := range c.Agents {
		l := c.Agents[i].loss()
		all.add(&l)
		row(append(append([]string{nameOf(&c.Agents[i])}, l.cells()...), "-", "-", "-", fmt.Sprint(l.received), l.away.String())...)
	}
	unusable := c.Dropped[UnknownDictionary] + c.Dropped[Broken] + c.Dropped[TooLong]
	row(append(append([]string{"in all"}, all.cells()...), fmt.Sprintf("%d*", c.Observed.SocketDropped),
		fmt.Sprint(c.Dropped[SinkFull]+c.Dropped[Shutdown]+unusable), fmt.Sprint(c.Dropped[SinkFailed]), fmt.Sprint(c.Received), all.away.String())...)
	_ = w.Flush() // a buffer takes all
	dst = append(dst, out.Bytes()...)
	if len(all.reasons) > 0 {
		dst = append(dst, "  exporters' reasons:"...)
		for i, reason := range slices.Sorted(maps.Keys(all.reasons)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = fmt.Appendf(dst, " %s %d", printable.Name(reason), all.reasons[reason])
		}
		dst = append(dst, '\n')
	}
	return append(dst, "  * datagrams that this host's sockets had no room for; their events are among those lost in the network\n"...)
}

// loss is what was lost of one agent's events, or of all, before the collector.
// Nil is unknown.
type loss struct {
	kernel, ring, tetragon, exporter, network *uint64
	reasons                                   map[string]uint64
	received                                  uint64
	away                                      Away
}

// loss sums the agent's streams. What Tetragon itself lost is told by each stream
// to the same agent alike, so it is the largest, not the sum, of those.
func (a *Agent) loss() (l loss) {
	l.reasons, l.away = map[string]uint64{}, a.Away
	for i := range a.Streams {
		s := &a.Streams[i]
		l.received += s.Received
		l.network = plus(l.network, s.Missing)
		if s.Sender != nil {
			n := s.Sender["dropped"] + s.Sender["refused"]
			l.exporter = plus(l.exporter, &n)
		}
		for reason, n := range s.SenderDropped {
			l.reasons[reason] += n
		}
		l.kernel = plus(l.kernel, s.Upstream["bpf_missed"])
		l.ring = plus(l.ring, s.Upstream["ring_buffer"])
		l.tetragon = plus(l.tetragon, plus(s.Upstream["event_queue"], s.Upstream["listener_overflow_all_clients"]))
	}
	return l
}

func (l *loss) add(other *loss) {
	l.kernel, l.ring, l.tetragon = plus(l.kernel, other.kernel), plus(l.ring, other.ring), plus(l.tetragon, other.tetragon)
	l.exporter, l.network = plus(l.exporter, other.exporter), plus(l.network, other.network)
	l.received += other.received
	l.away.Add(other.away)
	if l.reasons == nil {
		l.reasons = map[string]uint64{}
	}
	for reason, n := range other.reasons {
		l.reasons[reason] += n
	}
}

func (l *loss) cells() []string {
	cells := make([]string, 0, 5)
	for _, n := range []*uint64{l.kernel, l.ring, l.tetragon, l.exporter, l.network} {
		if n == nil {
			cells = append(cells, "?")
			continue
		}
		cells = append(cells, fmt.Sprint(*n))
	}
	return cells
}

// plus adds what is known.
func plus(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	sum := *a + *b
	return &sum
}

func nameOf(a *Agent) string {
	if a.Hostname == "" {
		return "(no agent_init)"
	}
	return printable.Name(a.Hostname)
}
