package exporter

import (
	"strings"
	"sync"
	"unicode"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/ledger"
)

// marshalled holds the buffers in which Send marshals. A buffer of an unusually
// large event is not kept.
var marshalled = sync.Pool{New: func() any { return new([]byte) }}

const maxPooledBytes = 64 << 10

// Send takes an event as a Go struct. It is marshalled at once and not kept.
// Strings that are not UTF-8, which protobuf refuses, are repaired in a copy.
// The only error is ErrClosed: an event that cannot be marshalled is counted,
// and a server that sends to many clients must not end this one for it.
func (e *UDPExporter) Send(event *tetragon.GetEventsResponse) error {
	buffer := marshalled.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= maxPooledBytes {
			marshalled.Put(buffer)
		}
	}()
	wire, err := proto.MarshalOptions{}.MarshalAppend((*buffer)[:0], event)
	if err != nil {
		repaired := proto.CloneOf(event)
		repair(repaired.ProtoReflect())
		if wire, err = (proto.MarshalOptions{}).MarshalAppend((*buffer)[:0], repaired); err != nil {
			return e.refuse(nil, err)
		}
		e.mu.Lock()
		e.repaired++
		e.mu.Unlock()
	}
	*buffer = wire
	return e.SendWire(wire)
}

// SendWire takes one event as protobuf bytes of type GetEventsResponse. The
// bytes are only read, and not kept.
func (e *UDPExporter) SendWire(wire []byte) error {
	return e.take([][]byte{wire}, formWire)
}

// SendJSON takes one event as the JSON that Tetragon's export file holds: one
// object, with or without a newline after it. It is sent as it is; what is not
// an event is dropped as invalid, and shown in the log once a minute.
func (e *UDPExporter) SendJSON(line []byte) error {
	payload, err := datagram.UnpackJSON(line)
	if err != nil && !payload.Kindred {
		return e.refuse(line, err)
	}
	line = append(append(make([]byte, 0, len(payload.JSON)+1), payload.JSON...), '\n')
	return e.take([][]byte{line}, formLine)
}

// excerptBytes is how much of a line that was refused is shown.
const excerptBytes = 120

// refuse counts an event that intake cannot use, and tells of it once a minute. The
// line is nil if there is none to show.
func (e *UDPExporter) refuse(line []byte, cause error) error {
	e.mu.Lock()
	e.seen++
	if e.closed {
		e.dropped[ledger.Shutdown]++
		e.storeIntake()
		e.mu.Unlock()
		return ErrClosed
	}
	e.dropped[ledger.Invalid]++
	events, tell := e.refusals.allow()
	e.storeIntake()
	e.mu.Unlock()
	if tell {
		e.config.Logger.Warn("What came is no event, and is dropped", "events", events, "reason", ledger.Invalid, "error", cause, "bytes", len(line), "begins", excerpt(line))
	}
	return nil
}

// excerpt returns the beginning of a line that anybody may have written, without what
// a terminal would obey.
func excerpt(line []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, string(line[:min(len(line), excerptBytes)]))
}
