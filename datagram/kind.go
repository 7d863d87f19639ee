package datagram

import "bytes"

// rootMembers says which members an object at the root of a datagram has, as far as they
// tell an event from what others send as JSON.
type rootMembers struct {
	kind bool // one of Tetragon's kinds, whose value is an object
	time bool
	node bool
	// foreign: one that no event has beside its kind.
	foreign bool
}

// note takes a member of the root; first is the byte that its value begins with.
func (m *rootMembers) note(key []byte, first byte) {
	switch string(key) {
	case "time":
		m.time = m.time || first == '"'
	case "node_name":
		m.node = m.node || first == '"'
	case "aggregation_info", "cluster_name", "node_labels", "tetracast", "tetracast_truncated", "tetracast_kind":
	case "tetracast_undecoded": // in the place of a kind that the exporter's release did not know
		m.kind = m.kind || first == '"'
	default:
		if isKind(key) && first == '{' {
			m.kind = true
			return
		}
		m.foreign = true
	}
}

// event says whether these are the members of an event: a kind with an object in it, and a
// time or a node. Of a kind that this release does not know only what stands beside it
// is there, and then all of that, and nothing else.
func (m *rootMembers) event() bool {
	if m.kind {
		return m.time || m.node
	}
	return m.time && m.node && !m.foreign
}

// kindred says whether it is one if it comes from who sends events.
func (m *rootMembers) kindred() bool {
	return m.kind || (m.time || m.node) && !m.foreign
}

// isKind says whether a member at the root is the event itself, if it is an
// object.
func isKind(key []byte) bool {
	return bytes.HasPrefix(key, []byte("process_")) || string(key) == "test" || string(key) == "rate_limit_info"
}

// kindOf tells the kind of an object with these members.
func kindOf(object []byte, m *rootMembers) Kind {
	if m.event() {
		return KindEvent
	}
	return recordKind(object)
}

// recordKind tells the kind of an event of our own, which begins with "@timestamp" and
// "event"; 0: it is none.
func recordKind(object []byte) Kind {
	key, rest := firstString(object[1:])
	if string(key) != "@timestamp" {
		return 0
	}
	_, rest = firstString(rest)
	if key, rest = firstString(rest); string(key) != "event" {
		return 0
	}
	switch value, _ := firstString(rest); string(value) {
	case "agent_init":
		return KindAgentInit
	case "agent_stats":
		return KindAgentStats
	}
	return 0
}

// firstString returns what stands between the next two quotes and what follows
// them. The keys and values that recordKind looks for hold no escapes.
func firstString(text []byte) (value, rest []byte) {
	open := bytes.IndexByte(text, '"')
	if open < 0 {
		return nil, nil
	}
	text = text[open+1:]
	end := bytes.IndexByte(text, '"')
	if end < 0 {
		return nil, nil
	}
	return text[:end], text[end+1:]
}
