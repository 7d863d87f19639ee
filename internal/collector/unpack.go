package collector

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"tetracast/datagram"
	"tetracast/ledger"
)

// unpacker reads one datagram of a format and queues its lines. The error says
// why the datagram cannot be decoded; nothing has changed then. It is called
// with the collector's lock held.
type unpacker func(*Collector, *packet, time.Time) error

// unpackers are the formats by name. "auto" tells a datagram's format from its
// first bytes.
var unpackers = map[string]unpacker{
	"auto": (*Collector).unpackJSON, // every datagram of the one format begins with a brace
	"json": (*Collector).unpackJSON,
}

func formatNames() string {
	return strings.Join(slices.Sorted(maps.Keys(unpackers)), ", ")
}

func (c *Collector) unpackJSON(p *packet, now time.Time) error {
	payload, err := datagram.UnpackJSON(p.Payload)
	if err != nil {
		return err
	}
	s := c.agents.source(p.Source, now)
	switch payload.Kind {
	case datagram.KindAgentInit:
		if c.agents.repeated(s, payload.JSON) {
			return nil
		}
		c.agents.bind(s, payload.JSON)
		if !c.queue.put(payload.JSON, false) {
			s.record = 0 // its next repeat is written
		}
	case datagram.KindAgentStats:
		if c.agents.stats(s, payload.JSON) {
			c.queue.put(payload.JSON, false)
		}
	default:
		s.net.Received++
		c.account.Received++
		if !c.queue.put(payload.JSON, true) {
			c.account.Dropped[ledger.SinkFull]++
		}
	}
	return nil
}

// errTruncated stands for a datagram longer than the receive buffer.
var errTruncated = errors.New("collector: datagram longer than the receive buffer")

// faultOf returns what the account calls an unpacker's error.
func faultOf(err error) ledger.Fault {
	switch {
	case errors.Is(err, datagram.ErrEmpty):
		return ledger.FaultEmpty
	case errors.Is(err, errTruncated):
		return ledger.FaultTruncated
	case errors.Is(err, datagram.ErrCutOff):
		return ledger.FaultCutOff
	case errors.Is(err, datagram.ErrNotEvent):
		return ledger.FaultNotEvent
	}
	return ledger.FaultNotJSON
}
