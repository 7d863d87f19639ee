package datagram

import "bytes"

// The most shapes that are learned, of all and of one object's members, and the
// longest key that one is learned of: labels can have any name.
const (
	maxShapes   = 2048
	maxMembers  = 64
	maxShapeKey = 128
)

// shape is a member that objects at its place had: what its field is called,
// which members it has inside, and which follow it. The members of an object are
// a list in the order in which they come, for protojson has one order.
type shape struct {
	key          []byte // with its quotes and the colon; nil of a list's element
	name         []byte // ,"_ the field's name and ":
	inside, next *shape
	elements     *shape // of a list that is taken apart
	role         shapeRole
	note         note
	isElements   bool       // its list is taken apart
	isText       bool       // its object is one field
	isLabels     bool       // its object is labels, whose values are texts
	isLabel      bool       // it is one of them
	changed      bool       // the name is not the key
	temporary    bool       // nothing leads to it
	clash        bool       // of an object: two members may have one name
	strange      bool       // of the root: members of this event may have one name
	last         remembered // the last list that it held, with its name
}

// shapeRole says what a member is beside a value.
type shapeRole uint8

const (
	rolePlain   shapeRole = iota
	rolePod               // of the process
	roleNoted             // it stands in the headline too
	roleEvent             // the event itself, whose members stand at the root
	roleProcess           // these three come again and again
	roleParent
	roleAncestors
)

// shapes holds all that was learned.
type shapes struct {
	root      shape
	count     int
	oneLabels bool // labels are one field
}

// maxSkipped is how many members that are missing this time are looked behind.
const maxSkipped = 16

// known moves to the value of the object's next member if that is at, or one
// that may follow it. It is nil where anything is not as it always was.
func (s *scanner) known(at **shape, first bool) *shape {
	const before, least = len(`{`), len(`,"":0`)
	if len(s.text)-s.pos < least || s.text[s.pos] != ',' && !first {
		return nil
	}
	if first && s.text[s.pos] != '{' {
		return nil
	}
	rest := s.text[s.pos+before:]
	for next, n := *at, 0; next != nil && n < maxSkipped; next, n = next.next, n+1 {
		if bytes.HasPrefix(rest, next.key) && len(rest) > len(next.key) && rest[len(next.key)] > ' ' {
			s.pos += before + len(next.key)
			return next
		}
	}
	return nil
}

// learn returns the shape of a member that is not where it was expected, and whether
// it is new and learned: then what it has in common with others is known for good.
func (t *shapes) learn(object *shape, at **shape, key []byte) (s *shape, isNew bool) {
	members := 0
	for next := object.inside; next != nil; next = next.next {
		if bytes.Equal(next.key[1:len(next.key)-len(`":`)], key) {
			return next, false
		}
		members++
	}
	quoted := append(append([]byte{'"'}, key...), '"', ':')
	before := t.count
	s = t.add(object, at, quoted, key, members)
	t.noteClash(object, s)
	return s, t.count > before
}

// add puts a new shape at its place among an object's members. part is what it
// adds to the name.
func (t *shapes) add(object *shape, at **shape, quoted, part []byte, members int) *shape {
	next := &shape{next: *at}
	if !object.temporary && t.count < maxShapes && members < maxMembers && len(part) <= maxShapeKey {
		t.count++
		*at = next
	} else {
		next.temporary = true
	}
	next.key = quoted
	isRoot, isEvent := object == &t.root, object.role == roleEvent
	next.isLabel = object.isLabels
	next.describe(object, part, isRoot, t.oneLabels)
	if isRoot || isEvent {
		next.name = append(next.name, `,"_`...)
		if keeps(part, isEvent) {
			next.name = append(next.name, "event_"...)
			part = bytes.TrimPrefix(part, []byte("@"))
			next.changed = true
		}
	} else {
		next.name = append(next.name, object.name[:len(object.name)-len(`":`)]...)
		next.name = append(next.name, '.')
	}
	for _, c := range part {
		if !legal[c] {
			c, next.changed = '_', true
		}
		next.name = append(next.name, c)
	}
	next.name = append(next.name, `":`...)
	return next
}

// describe says what a member of the object is.
func (s *shape) describe(object *shape, key []byte, isRoot, oneLabels bool) {
	switch {
	case isRoot && isKind(key):
		s.role = roleEvent
		return
	case isRoot, object.role == roleEvent:
		s.note = noteOf(key, !isRoot)
	case object.role == roleProcess || object.role == rolePod:
		s.note = noteOfProcess(key, object.role == rolePod)
	}
	if s.note != noteNothing {
		s.role = roleNoted
	}
	switch text := string(key); {
	case object.role == roleProcess && text == "pod":
		s.role = rolePod
	case text == "pod_labels", text == "pod_annotations", text == "node_labels", isRoot && text == "labels":
		s.isLabels, s.isText = true, oneLabels
	case object.role != roleEvent:
	case text == "process":
		s.role = roleProcess
	case text == "parent":
		s.role = roleParent
	case text == "ancestors":
		s.role = roleAncestors
	case text == "args", text == "data":
		s.isElements = true
	}
}

// keeps says whether a name is taken: a member of the event by one that stands
// beside the event, any by GELF or Graylog, which keep some for themselves. _id
// must not be sent, and Graylog drops a field _message.
func keeps(key []byte, ofEvent bool) bool {
	switch string(key) {
	case "time", "node_name", "aggregation_info", "cluster_name", "node_labels":
		return ofEvent
	case "id", "message", "source", "timestamp", "@timestamp", "level", "full_message", "facility", "line", "file", "event_type":
		return true
	}
	return false
}
