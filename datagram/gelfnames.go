package datagram

import (
	"bytes"
	"strconv"
	"strings"
)

// A GELF field's name is the path to its value with points between the keys, and has
// fewer characters than a key may have. So the labels a/b and a_b would have one name,
// and {"a":{"b":1},"a.b":2} too; and a receiver keeps either of two fields of one name,
// or refuses the message. Two names are equal only where, in some object, the names of
// two members are equal, or one goes on behind the other and a point. When a member is
// learned this is found out once, so that objects without such members pay nothing; an
// object with them is looked at each time, and of those that clash in it all but one
// get a number: a_b and a_b_2, or a.b and a_b_2. The one whose name is its key keeps it.

// ownFields are the names that the packer adds to the fields of an event.
var ownFields = []string{"_event_type", "_tetracast_stream", "_tetracast_seq", "_tetracast_dropped", "_tetracast_cut_fields"}

// noteClash notes in the object whether its new member may clash with another one.
func (t *shapes) noteClash(object, s *shape) {
	isRoot := object == &t.root
	if !isRoot && object.role != roleEvent {
		object.clash = object.clash || clashes(s, object.inside, !object.isLabels)
		return
	}
	if s.role == roleEvent {
		return // it has no name
	}
	// The members of the event stand among those of the root.
	clash := clashes(s, t.root.inside, true) || clashes(s, object.inside, true)
	for event := t.root.inside; isRoot && event != nil; event = event.next {
		if event.role == roleEvent {
			clash = clash || clashes(s, event.inside, true)
		}
	}
	for _, own := range ownFields {
		clash = clash || string(fieldName(s)) == own
	}
	t.root.clash = t.root.clash || clash
}

// clashes says whether the member may clash with one of the list, which may be objects:
// labels are texts, and app and app.kubernetes.io/name are often among them.
func clashes(s, list *shape, mayBeObjects bool) bool {
	name := fieldName(s)
	for other := list; other != nil; other = other.next {
		if other == s || other.role == roleEvent {
			continue
		}
		short, long := name, fieldName(other)
		if len(short) > len(long) {
			short, long = long, short
		}
		if bytes.HasPrefix(long, short) && (len(long) == len(short) || mayBeObjects && long[len(short)] == '.') {
			return true
		}
	}
	return false
}

// fieldName returns a shape's name without what is written around it.
func fieldName(s *shape) []byte { return s.name[len(`,"`) : len(s.name)-len(`":`)] }

// repeated says whether the key at hand stood before in the object that begins at begin.
func (f *flattener) repeated(begin int, key []byte) bool {
	s := scanner{text: f.scan.text, pos: begin}
	for first := true; ; first = false {
		other, more, err := s.member(first)
		if err != nil || !more || s.pos >= f.scan.pos {
			return false
		}
		if bytes.Equal(other, key) {
			return true
		}
		if s.value() != nil {
			return false
		}
	}
}

// claims are the names that are taken in an object.
type claims struct {
	names  map[string]bool // whether more names follow behind it and a point
	behind map[string]bool // what names go on behind, up to a point
}

// take takes the name, or says that it is not free.
func (c *claims) take(name string, isObject bool) bool {
	if _, taken := c.names[name]; taken || isObject && c.behind[name] {
		return false
	}
	for i := range len(name) {
		if name[i] == '.' && c.names[name[:i]] {
			return false
		}
	}
	c.names[name] = isObject
	for i := range len(name) {
		if name[i] == '.' {
			c.behind[name[:i]] = true
		}
	}
	return true
}

// named is a member of an object that is looked at closely.
type named struct {
	shape    *shape
	name     string
	isObject bool
}

// rename looks closely at the object that begins at begin and was appended at
// dst[from:]. Where members clash it appends the object anew.
func (f *flattener) rename(dst []byte, from, begin int, object *shape, depth int) ([]byte, error) {
	s := &f.scan
	end := s.pos
	var members []named
	list := func(object *shape) error { return nil }
	list = func(object *shape) error {
		return s.members(func(key []byte) error {
			m := f.unlearned(object, key)
			if m.role == roleEvent && s.text[s.pos] == '{' {
				return list(m)
			}
			c := s.text[s.pos]
			members = append(members, named{m, string(fieldName(m)), c == '{' && !m.isText || c == '[' && m.isElements})
			return s.value()
		})
	}
	s.pos = begin
	if err := list(object); err != nil {
		return dst, err
	}
	taken := claims{names: map[string]bool{}, behind: map[string]bool{}}
	if object == &f.shapes.root {
		for _, own := range ownFields {
			taken.take(own, false)
		}
	}
	clash := false
	for _, changed := range []bool{false, true} {
		for i := range members {
			m := &members[i]
			if m.shape.changed != changed {
				continue
			}
			for n := 2; !taken.take(m.name, m.isObject); n++ {
				clash = true
				m.name = numbered(string(fieldName(m.shape)), object, n)
			}
		}
	}
	if !clash {
		s.pos = end
		return dst, nil
	}
	s.pos = begin
	return f.appendNamed(dst[:from], object, members, depth)
}

// numbered returns a member's name with a number, and without points in the key, for
// behind a point it may clash with what is in another member, whatever its number.
func numbered(name string, object *shape, n int) string {
	prefix := len("_")
	if len(object.name) > 0 {
		prefix = len(fieldName(object)) + len(".")
	}
	return name[:prefix] + strings.ReplaceAll(name[prefix:], ".", "_") + "_" + strconv.Itoa(n)
}

// unlearned returns a shape for a member that nothing leads to.
func (f *flattener) unlearned(object *shape, key []byte) *shape {
	t := shapes{count: maxShapes, oneLabels: f.shapes.oneLabels}
	parent := *object
	if object == &f.shapes.root {
		object = &t.root
	} else {
		object = &parent
	}
	var nothing *shape
	m := t.add(object, &nothing, append(append([]byte{'"'}, key...), '"', ':'), key, 0)
	m.changed = m.changed || bytes.IndexByte(key, '.') >= 0
	m.temporary = true
	return m
}

// appendNamed appends the object at hand, whose members have been given names.
func (f *flattener) appendNamed(dst []byte, object *shape, members []named, depth int) (_ []byte, err error) {
	s, i := &f.scan, 0
	list := func(depth int) error { return nil }
	list = func(depth int) error {
		return s.members(func(key []byte) error {
			if object == &f.shapes.root && depth == 0 && s.text[s.pos] == '{' && isKind(key) {
				f.headline.kind = key
				return list(1)
			}
			m := &members[i]
			i++
			if m.name == string(fieldName(m.shape)) {
				dst, err = f.appendMember(dst, m.shape, depth)
				return err
			}
			start := s.pos
			m.shape.name = append([]byte(`,"`+m.name), `":`...)
			dst, err = f.appendValue(dst, m.shape, depth+1) // not as a process, whose fields are remembered with their names
			if m.shape.role == roleNoted {
				f.headline.note(m.shape.note, textOf(s.text[start:s.pos]))
			}
			return err
		})
	}
	err = list(depth)
	return dst, err
}

// cutText returns as much of the inside of a JSON string as is a text of at most
// maxField bytes, without a character or an escape sequence in two.
func (f *flattener) cutText(inside []byte) []byte {
	i, bytes := 0, 0
	for i < len(inside) {
		size, decoded := 1, 1
		switch c := inside[i]; {
		case c == '\\' && i+5 < len(inside) && inside[i+1] == 'u':
			size, decoded = 6, 3
			if i+11 < len(inside) && inside[i+2]|0x20 == 'd' && inside[i+3] >= '8' && inside[i+6] == '\\' && inside[i+7] == 'u' {
				size, decoded = 12, 4 // two that stand for one character
			}
		case c == '\\':
			size = 2
		case c >= 0xc0:
			for size < 4 && i+size < len(inside) && inside[i+size]&0xc0 == 0x80 {
				size++
			}
			decoded = size
		}
		if bytes+decoded > f.maxField {
			f.cut++
			return inside[:i]
		}
		i, bytes = i+size, bytes+decoded
	}
	return inside
}
