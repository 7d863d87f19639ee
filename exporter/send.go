package exporter

import (
	"sync"

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
			return e.refuse(ledger.Invalid)
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
// an event is dropped as invalid.
func (e *UDPExporter) SendJSON(line []byte) error {
	payload, err := datagram.UnpackJSON(line)
	if err != nil && !payload.Kindred {
		return e.refuse(ledger.Invalid)
	}
	line = append(append(make([]byte, 0, len(payload.JSON)+1), payload.JSON...), '\n')
	return e.take([][]byte{line}, formLine)
}

// refuse counts an event that intake cannot use.
func (e *UDPExporter) refuse(reason ledger.Reason) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.storeIntake()
	e.seen++
	if e.closed {
		e.dropped[ledger.Shutdown]++
		return ErrClosed
	}
	e.dropped[reason]++
	return nil
}
