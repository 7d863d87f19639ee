package exporter

import (
	"bytes"
	"sync/atomic"
)

// unknownKinds counts the events of kinds that this release does not know, as of a
// newer or a commercial Tetragon. They are sent like all others: as JSON whole where
// they came as JSON, in frames as they came, and else as the transcoder's Undecoded
// has it.
type unknownKinds struct {
	events atomic.Uint64
	said   atomic.Bool
}

// countUnknown counts an event of the kind's number; 0 is none.
func (e *UDPExporter) countUnknown(number uint32) {
	if number != 0 {
		e.unknown.events.Add(1)
		e.warnUnknown(number)
	}
}

// countUnknownName counts an event of the kind's name; nil is none.
func (e *UDPExporter) countUnknownName(name []byte) {
	if name != nil {
		e.unknown.events.Add(1)
		if !e.unknown.said.Load() {
			e.warnUnknown(string(name))
		}
	}
}

func (e *UDPExporter) warnUnknown(kind any) {
	if e.unknown.said.CompareAndSwap(false, true) {
		e.config.Logger.Warn("Events of a kind that this release does not know are sent as they came", "kind", kind,
			"hint", "a newer release may know it; the account counts such events as unknown_kinds")
	}
}

// unknownKindOfLine returns the name of the kind of an event as JSON, in which it is
// the first member, if the kind is none that is known.
func unknownKindOfLine(line []byte) []byte {
	const prefix, longest = `{"process_`, 64
	rest, ok := bytes.CutPrefix(line, []byte(prefix))
	if !ok {
		return nil
	}
	n := bytes.IndexByte(rest[:min(len(rest), longest)], '"')
	if n < 0 {
		return nil
	}
	switch string(rest[:n]) {
	case "exec", "exit", "kprobe", "tracepoint", "loader", "uprobe", "throttle", "lsm", "usdt":
		return nil
	}
	return line[len(`{"`) : len(prefix)+n]
}
