package datagram

import (
	"encoding/hex"
	"strconv"
)

// Mark is an event's place in its stream, as syslog and gelf carry it. The zero
// value means that the datagram says nothing about it.
type Mark struct {
	Stream  uint64 // random, of one exporter process and destination
	Number  uint64 // of the event; 0 for agent_init and agent_stats
	Dropped uint64 // events lost before packing, since the stream began
}

// stamp is what a packer writes into each datagram beside the event: who sends
// and what it lost so far. Packers embed it.
type stamp struct {
	stream  uint64
	dropped uint64
}

// SetDropped sets how many events the stream lost before packing, for the
// datagrams made from now on.
func (s *stamp) SetDropped(events uint64) { s.dropped = events }

// streamDigits is the length of a stream id as text.
const streamDigits = 16

// appendStream appends the stream id as 16 hexadecimal digits.
func appendStream(dst []byte, stream uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[stream>>shift&0xf])
	}
	return dst
}

// parseStream is the reverse of appendStream.
func parseStream(text []byte) (stream uint64, ok bool) {
	var id [streamDigits / 2]byte
	if len(text) != streamDigits {
		return 0, false
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return 0, false
	}
	for _, b := range id {
		stream = stream<<8 | uint64(b)
	}
	return stream, true
}

// set reads a member of a mark as text; names and values that it does not know
// change nothing.
func (m *Mark) set(name, value []byte) {
	switch string(name) {
	case "stream":
		if stream, ok := parseStream(value); ok {
			m.Stream = stream
		}
	case "seq":
		m.Number = parseCount(value, m.Number)
	case "dropped":
		m.Dropped = parseCount(value, m.Dropped)
	}
}

func parseCount(text []byte, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}
