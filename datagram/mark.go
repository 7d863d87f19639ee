package datagram

import "strconv"

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

// AppendStreamID appends a stream id as all texts have it: 16 hexadecimal digits.
func AppendStreamID(dst []byte, stream uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[stream>>shift&0xf])
	}
	return dst
}

// ParseStreamID is the reverse of AppendStreamID.
func ParseStreamID(text []byte) (stream uint64, ok bool) {
	stream, err := strconv.ParseUint(string(text), 16, 64)
	return stream, err == nil && len(text) == streamDigits
}

// Possible says whether its numbers can be those of an event.
func (m *Mark) Possible() bool {
	return m.Number > 0 && m.Number <= MaxNumber && m.Dropped <= MaxNumber
}

// set reads a member of a mark as text; names and values that it does not know
// change nothing.
func (m *Mark) set(name, value []byte) {
	switch string(name) {
	case "stream":
		if stream, ok := ParseStreamID(value); ok {
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
