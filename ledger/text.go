package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tetracast/internal/printable"
)

// AppendText appends the account as lines for an operator, who reads from the
// source to the network.
func (e *Exporter) AppendText(dst []byte) []byte {
	dst = fmt.Appendf(dst, "exporter account (events): %s\n", verdict(e.Closes))
	dst = fmt.Appendf(dst, "  seen %d = excluded %d + dropped + sent + queued; dropped at intake: %s\n",
		e.Seen, e.Excluded, e.Dropped.String())
	if e.UnknownKinds > 0 {
		dst = fmt.Appendf(dst, "  of kinds unknown to this release, and sent as they came: %d\n", e.UnknownKinds)
	}
	for _, s := range e.Streams {
		dst = fmt.Appendf(dst, "  stream %s to %s: sent %d, queued %d, dropped: %s; %d datagrams, %d bytes",
			printable.Name(s.Stream), printable.Name(s.Destination), s.Sent, s.Queued, s.Dropped.String(), s.Datagrams, s.Bytes)
		if s.Outside > 0 {
			dst = fmt.Appendf(dst, "; %d before it began or after it ended", s.Outside)
		}
		if s.Ended > 1 {
			dst = fmt.Appendf(dst, "; in all %d streams that have ended", s.Ended)
		}
		dst = append(dst, '\n')
	}
	for _, f := range e.UnreadFiles {
		dst = fmt.Appendf(dst, "  file %q (%s): read up to byte %d, lines lost behind it %s\n", f.Path, f.Cause, f.ReadTo, figure(f.Lines))
	}
	if len(e.LeftOut) > 0 {
		dst = fmt.Appendf(dst, "  asked for without %s: Tetragon breaks the subscription at such a text that is not UTF-8\n", strings.Join(e.LeftOut, ", "))
	}
	return fmt.Appendf(dst, "  subscription breaks %d, blind %s ms; observed: the network namespace had no buffers for %s, ICMP answers: %s\n",
		e.SubscriptionBreaks, figure(e.BlindMS), figure(e.Observed.SndbufErrors), byName(e.Observed.ICMPAnswers))
}

// AppendText appends the account as lines for an operator, who reads from the
// network to the sink.
func (c *Collector) AppendText(dst []byte) []byte {
	dst = fmt.Appendf(dst, "collector account (events): %s\n", verdict(c.Closes))
	dst = fmt.Appendf(dst, "  received %d = delivered %d + queued %d + dropped: %s\n",
		c.Received, c.Delivered, c.Queued, c.Dropped.String())
	dst = fmt.Appendf(dst, "  %d datagrams, %d bytes; undecodable datagrams: %s; observed: the sockets dropped %d\n",
		c.Datagrams, c.Bytes, c.Undecodable.String(), c.Observed.SocketDropped)
	if len(c.Agents) == 0 {
		return dst
	}
	dst = c.appendTable(dst)
	for i := range c.Agents {
		a := &c.Agents[i]
		dst = fmt.Appendf(dst, "  agent %s: restarts %d\n", nameOf(a), a.Restarts)
		for _, s := range a.Streams {
			dst = fmt.Appendf(dst, "    stream %s: announced %s, received %d, missing %s, refused by the sender %s, duplicate %s, end %s\n",
				printable.Name(s.Stream), figure(s.Announced), s.Received, figure(s.Missing), figure(s.RefusedBySender), figure(s.Duplicate), printable.Name(s.Ended))
		}
	}
	return dst
}

func verdict(closes *bool) string {
	switch {
	case closes == nil:
		return "nothing lost here; the end of a stream is not known"
	case *closes:
		return "closes"
	}
	return "DOES NOT CLOSE"
}

// byName writes figures in the order of their names.
func byName(figures map[string]uint64) string {
	if figures == nil {
		return "unknown"
	}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		texts = append(texts, fmt.Sprintf("%s %d", name, figures[name]))
	}
	if texts == nil {
		return "none"
	}
	return strings.Join(texts, ", ")
}

func figure(n *uint64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprint(*n)
}
