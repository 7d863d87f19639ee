package datagram

import "bytes"

// flattener turns a line into the fields of a GELF message. Values keep the
// bytes they have; only names and what is no string or number change.
//
// The event's own members and those beside it become fields of their own, so
// the binary is _process.binary whatever the kind. Objects go on with a point;
// the lists args and data go on with the number of the element. Any other list
// is one field: its elements with commas between them, or JSON text where they
// are objects, so that an index of such messages does not get a field for each
// element of each ancestor.
//
// No two fields have one name, whatever the names in the event; see gelfnames.go.
//
// The members of an event come in the same order again and again, so a
// flattener learns them: what follows which, and what their names become.
type flattener struct {
	headline headline
	scan     scanner
	shapes   shapes
	memo     memo
	kinds    int  // events in the line at hand: one
	odd      bool // a label in it is no text
	maxField int  // bytes of a field's text; 0: no bound
	cut      int  // fields of the line at hand that were cut to it
}

// append appends the fields of a line, an event or a record.
func (f *flattener) append(dst, line []byte) ([]byte, error) {
	f.headline = headline{}
	f.scan = scanner{text: line}
	f.kinds, f.odd, f.cut = 0, false, 0
	return f.appendObject(dst, &f.shapes.root, 0)
}

// maxFlat is how deep objects are taken apart; deeper ones are JSON text.
const maxFlat = 16

// appendObject appends the object at hand, whose members are in the shape.
func (f *flattener) appendObject(dst []byte, object *shape, depth int) ([]byte, error) {
	s := &f.scan
	from, begin := len(dst), s.pos
	strange := false // two members may have one name that otherwise have not
	at := &object.inside
	for first := true; ; first = false {
		next := s.known(at, first)
		if next == nil {
			key, more, err := s.member(first)
			if err != nil {
				return dst, err
			}
			if !more {
				break
			}
			var isNew bool
			next, isNew = f.shapes.learn(object, at, key)
			strange = strange || !isNew && (next.temporary || f.repeated(begin, key))
		}
		at = &next.next
		var err error
		if dst, err = f.appendMember(dst, next, depth); err != nil {
			return dst, err
		}
	}
	if object.role == roleEvent {
		f.shapes.root.strange = f.shapes.root.strange || strange // its names stand at the root
		return dst, nil
	}
	if object == &f.shapes.root {
		strange = strange || object.strange
		object.strange = false
	}
	if !strange && !object.clash && !(f.odd && object.isLabels) {
		return dst, nil
	}
	return f.rename(dst, from, begin, object, depth)
}

// appendMember appends the value at hand, a member of an object.
func (f *flattener) appendMember(dst []byte, next *shape, depth int) (_ []byte, err error) {
	s := &f.scan
	start := s.pos
	switch next.role {
	case rolePlain, rolePod:
		dst, err = f.appendValue(dst, next, depth+1)
	case roleNoted:
		dst, err = f.appendValue(dst, next, depth+1)
		f.headline.note(next.note, textOf(s.text[start:s.pos]))
	case roleEvent:
		if f.kinds++; f.kinds > 1 {
			f.shapes.root.strange = true // the members of two events
		}
		if s.text[start] == '{' {
			f.headline.kind = next.key[1 : len(next.key)-len(`":`)]
			dst, err = f.appendObject(dst, next, 1)
		} else {
			dst, err = f.appendValue(dst, next, depth+1)
		}
	default:
		dst, err = f.appendProcess(dst, next, depth+1)
	}
	return dst, err
}

// textOf returns the inside of a JSON value if it is a string.
func textOf(value []byte) []byte {
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	return value[1 : len(value)-1]
}

// undecodedName is the name of the field that holds a whole event in base64.
var undecodedName = []byte(`,"_tetracast_undecoded"`)

// appendValue appends the value at hand under the shape's name, as one field or
// more.
func (f *flattener) appendValue(dst []byte, field *shape, depth int) ([]byte, error) {
	s := &f.scan
	start := s.pos
	switch c := s.text[start]; {
	case c == '"':
		if err := s.passString(); err != nil {
			return dst, err
		}
		dst = append(dst, field.name...)
		if f.maxField > 0 && s.pos-start-len(`""`) > f.maxField {
			text := f.cutText(s.text[start+1 : s.pos-1])
			if bytes.HasPrefix(field.name, undecodedName) {
				text = text[:len(text)&^3] // what is left of base64 can be decoded
			}
			return append(append(append(dst, '"'), text...), '"'), nil
		}
		return append(dst, s.text[start:s.pos]...), nil
	case c == '{' && depth < maxFlat && !field.isText:
		f.odd = f.odd || field.isLabel
		return f.appendObject(dst, field, depth)
	case c == '[' && field.isElements:
		return f.appendElements(dst, field, depth)
	case c == '{', c == '[':
		return f.appendList(dst, field)
	default:
		if err := s.scalar(c); err != nil {
			return dst, err
		}
		if c == 'n' {
			return dst, nil
		}
		dst = append(dst, field.name...)
		if c == 't' || c == 'f' { // GELF has strings and numbers only
			return append(append(append(dst, '"'), s.text[start:s.pos]...), '"'), nil
		}
		return append(dst, s.text[start:s.pos]...), nil
	}
}

// appendElements appends the list at hand under the name and the elements'
// numbers.
func (f *flattener) appendElements(dst []byte, list *shape, depth int) ([]byte, error) {
	at := &list.elements
	for i := 0; ; i++ {
		more, err := f.scan.element(i == 0)
		if err != nil || !more {
			return dst, err
		}
		next := *at
		if next == nil {
			next = f.shapes.add(list, at, nil, appendSmall(nil, i), i)
		}
		at = &next.next
		if dst, err = f.appendValue(dst, next, depth+1); err != nil {
			return dst, err
		}
	}
}

// appendSmall appends a number that mostly has one digit.
func appendSmall(dst []byte, n int) []byte {
	if n > 9 {
		dst = appendSmall(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// appendList appends the list or object at hand as one field. A field such as
// the capabilities of a process mostly holds the list that it held before.
func (f *flattener) appendList(dst []byte, field *shape) ([]byte, error) {
	s := &f.scan
	start := s.pos
	last := &field.last
	if last.matches(s.text[start:]) {
		s.pos += len(last.json)
		return append(dst, last.fields...), nil
	}
	if err := s.value(); err != nil {
		return dst, err
	}
	list, at := s.text[start:s.pos], len(dst)
	dst = append(append(dst, field.name...), '"')
	text, cut := len(dst), f.cut
	dst = appendJoined(dst, list)
	if f.maxField > 0 && len(dst)-text > f.maxField {
		dst = dst[:text+len(f.cutText(dst[text:]))]
	}
	dst = append(dst, '"')
	if f.cut == cut {
		last.keep(list, dst[at:])
	}
	return dst, nil
}

// appendJoined appends a list of strings and numbers with commas between them,
// and any other list or object as JSON text. list is valid JSON.
func appendJoined(dst, list []byte) []byte {
	start := len(dst)
	s := scanner{text: list}
	for first := true; ; first = false {
		more, err := s.element(first)
		if err != nil || more && (list[s.pos] == '{' || list[s.pos] == '[') {
			return appendEscaped(dst[:start], list)
		}
		if !more {
			return dst
		}
		at := s.pos
		_ = s.value() // it is valid
		value := list[at:s.pos]
		if text := textOf(value); text != nil {
			value = text
		}
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, value...)
	}
}

// passString moves behind the string at hand without a look at what is in it.
// The line is trusted to be JSON, as the packer JSON trusts it; this takes half
// the time of string.
func (s *scanner) passString() error {
	for i := s.pos + 1; ; i++ {
		n := bytes.IndexByte(s.text[i:], '"')
		if n < 0 {
			return ErrCutOff
		}
		i += n
		before := i
		for s.text[before-1] == '\\' { // ends at the opening quote at the latest
			before--
		}
		if (i-before)%2 == 0 {
			s.pos = i + 1
			return nil
		}
	}
}

// element moves to a list's next element, as member does in an object.
func (s *scanner) element(first bool) (more bool, err error) {
	s.space()
	if s.pos == len(s.text) {
		return false, ErrCutOff
	}
	c := s.text[s.pos]
	switch {
	case first && c == '[':
		s.pos++
		s.space()
		if s.pos < len(s.text) && s.text[s.pos] == ']' {
			s.pos++
			return false, nil
		}
	case !first && c == ']':
		s.pos++
		return false, nil
	case !first && c == ',':
		s.pos++
		s.space()
	default:
		return false, ErrNotJSON
	}
	if s.pos == len(s.text) {
		return false, ErrCutOff
	}
	return true, nil
}

// legal are the characters of a field's name: ^[\w.-]*$.
var legal = func() (table [256]bool) {
	for c := range table {
		table[c] = bytes.IndexByte([]byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"), byte(c)) >= 0
	}
	return table
}()
