package transcode

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// occurrence is a field's value as it stands on the wire: x for the numeric wire
// types, v for the others.
type occurrence struct {
	f      *field
	x      uint64
	v      []byte
	packed bool // v holds numbers of a list
}

// carefulMessage writes the value of the message type m at buf[n:], in the form
// that relies on no order: fields may come in any order and several times, and
// count as protobuf merges them. The last number or string counts, sub-messages
// are joined, and of a oneof the last member counts.
//
// Values that do not count are not looked at: bytes that protobuf refuses only
// for their sake are transcoded.
func (t *Transcoder) carefulMessage(m *message, wire []byte, n int) int {
	if m.shape != shapeObject {
		return t.wellKnown(m, wire, n)
	}
	if t.depth++; t.depth > maxDepth {
		return t.fail(faultDepth)
	}
	base := len(t.occurrences)
	if !t.collect(m, wire) {
		if t.fault != faultLimit {
			t.fault = faultMalformed
		}
		return -1
	}
	t.sortOccurrences(base)
	start, end := n, len(t.occurrences)
	for i := base; i < end; {
		j := i + 1
		for j < end && t.occurrences[j].f.order == t.occurrences[i].f.order {
			j++
		}
		if n = t.carefulField(i, j, n); n < 0 {
			return n
		}
		i = j
	}
	t.occurrences = t.occurrences[:base]
	t.depth--
	return t.closeObject(start, n)
}

// The bounds of the memory that the careful form takes. No event of Tetragon comes
// near; a stranger's message may have a field in every two bytes.
const (
	maxOccurrences = 1 << 14
	maxJoined      = 8 << 20
)

// sortOccurrences sorts those from base on by the order of their fields, and leaves
// those of one field as they came. There are few fields, so they are counted.
func (t *Transcoder) sortOccurrences(base int) {
	part := t.occurrences[base:]
	byOrder := func(a, b occurrence) int { return cmp.Compare(a.f.order, b.f.order) }
	if len(part) < 32 {
		slices.SortStableFunc(part, byOrder)
		return
	}
	if slices.IsSortedFunc(part, byOrder) {
		return
	}
	var at [256]int // where the next one of an order goes
	for i := range part {
		if int(part[i].f.order) >= len(at)-1 {
			slices.SortStableFunc(part, byOrder)
			return
		}
		at[part[i].f.order+1]++
	}
	for i := 1; i < len(at); i++ {
		at[i] += at[i-1]
	}
	for _, o := range slices.Clone(part) {
		part[at[o.f.order]] = o
		at[o.f.order]++
	}
}

// collect appends the fields in wire to t.occurrences.
func (t *Transcoder) collect(m *message, wire []byte) bool {
	for i := 0; i < len(wire); {
		tag, next := fieldTag(wire, i)
		if next < 0 {
			return false
		}
		i = next
		f := m.find(tag >> 3)
		if f.op == opLate {
			f = m.late.find(tag >> 3)
		}
		o := occurrence{f: f}
		scalarList := f.list && f.sub == nil && f.kind != protoreflect.StringKind && f.kind != protoreflect.BytesKind
		known := f.tag != 0 && tag&7 == uint32(wireOf(f.kind))
		if !known && scalarList && tag&7 == wireBytes {
			known, o.packed = true, true
		}
		if !known {
			if i = skip(wire, i, tag); i < 0 {
				return false
			}
			t.info.Unknown++
			continue
		}
		if i = o.read(wire, i, tag); i < 0 {
			return false
		}
		if len(t.occurrences) == maxOccurrences {
			t.fault = faultLimit
			return false
		}
		t.occurrences = append(t.occurrences, o)
	}
	return true
}

// read reads a value and returns where it ends.
func (o *occurrence) read(wire []byte, i int, tag uint32) (end int) {
	switch tag & 7 {
	case wireVarint:
		o.x, i = uvarint(wire, i)
	case wireFixed64:
		if i += 8; i <= len(wire) {
			o.x = load64(wire, i-8)
		}
	case wireFixed32:
		if i += 4; i <= len(wire) {
			o.x = uint64(load32(wire, i-4))
		}
	case wireBytes:
		o.v, i = chunk(wire, i)
	default:
		i = skip(wire, i, tag)
	}
	if i > len(wire) {
		return -1
	}
	return i
}

// carefulField writes one field, or one oneof, from its occurrences i to j.
func (t *Transcoder) carefulField(i, j, n int) int {
	f := t.occurrences[j-1].f
	switch {
	case f.op == opUnsupported:
		return t.fail(faultUnsupported)
	case f.op == opMap:
		base := len(t.entries)
		for ; i < j; i++ {
			if !t.addEntry(f, t.occurrences[i].v) {
				return t.fail(faultMalformed)
			}
		}
		return t.mapEntries(f, base, n)
	case f.list:
		return t.carefulList(f, i, j, n)
	}
	first := j - 1
	for first > i && t.occurrences[first-1].f == f {
		first--
	}
	o := t.occurrences[j-1]
	if f.sub != nil && j-first > 1 {
		from := len(t.joined)
		for _, part := range t.occurrences[first:j] {
			if len(t.joined)+len(part.v) > maxJoined {
				return t.fail(faultLimit)
			}
			t.joined = append(t.joined, part.v...)
		}
		o.v = t.joined[from:len(t.joined):len(t.joined)]
	}
	return t.single(f, o, n)
}

// single writes a field that is not repeated, unless its value is left out.
func (t *Transcoder) single(f *field, o occurrence, n int) int {
	if f.implicit && len(o.v) == 0 && f.isZero(o.x) {
		return n
	}
	return t.value(f, o, t.plainKey(f, n))
}

// carefulList writes a list.
func (t *Transcoder) carefulList(f *field, i, j, n int) int {
	n = t.plainKey(f, n)
	start := n
	for ; i < j; i++ {
		o := t.occurrences[i]
		if !o.packed {
			t.buf[n] = ','
			if n = t.value(f, o, n+1); n < 0 {
				return n
			}
			continue
		}
		for k := 0; k < len(o.v); {
			item := occurrence{f: f}
			if k = item.read(o.v, k, uint32(wireOf(f.kind))); k < 0 {
				return t.fail(faultMalformed)
			}
			t.buf[n] = ','
			if n = t.value(f, item, n+1); n < 0 {
				return n
			}
		}
	}
	if n == start {
		return n - len(f.long) // only empty packed lists: the key goes again
	}
	t.buf[start], t.buf[n] = '[', ']'
	return n + 1
}

// plainKey writes `,"name":` and makes headroom.
func (t *Transcoder) plainKey(f *field, n int) int {
	if len(t.buf)-n < len(f.long)+headroom {
		t.grow(n, len(f.long)+headroom)
	}
	return n + copy(t.buf[n:], f.long)
}

// value writes one value of any kind at the headroom, and leaves headroom.
func (t *Transcoder) value(f *field, o occurrence, n int) int {
	switch f.kind {
	case protoreflect.StringKind:
		t.buf[n] = '"'
		n = t.text(n+1, o.v)
	case protoreflect.BytesKind:
		t.buf[n] = '"'
		n = t.base64(n+1, o.v)
	case protoreflect.MessageKind:
		n = t.carefulMessage(f.sub, o.v, n)
	case protoreflect.EnumKind:
		n = t.enumName(f.enum, int32(o.x), n)
	case protoreflect.BoolKind:
		n = putBool(t.buf, n, o.x)
	case protoreflect.FloatKind:
		n = putFloat(t.buf, n, float64(math.Float32frombits(uint32(o.x))), 32)
	case protoreflect.DoubleKind:
		n = putFloat(t.buf, n, math.Float64frombits(o.x), 64)
	default:
		n = putInteger(t.buf, n, f.kind, o.x)
	}
	if n >= 0 && len(t.buf)-n < headroom {
		t.grow(n, headroom)
	}
	return n
}

// isZero reports whether x is the zero value of f's kind.
func (f *field) isZero(x uint64) bool {
	switch f.kind {
	case protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Sint32Kind, protoreflect.EnumKind:
		return uint32(x) == 0
	}
	return x == 0
}

// putInteger writes an integer of any kind; those of 64 bits are quoted.
func putInteger(b []byte, n int, kind protoreflect.Kind, x uint64) int {
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return putUint(b, n, uint64(uint32(x)))
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		return putInt(b, n, int64(int32(x)))
	case protoreflect.Sint32Kind:
		x = uint64(uint32(x))
		return putInt(b, n, int64(int32(x>>1)^-int32(x&1)))
	}
	b[n] = '"'
	switch kind {
	case protoreflect.Sint64Kind:
		n = putInt(b, n+1, int64(x>>1)^-int64(x&1))
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		n = putInt(b, n+1, int64(x))
	default:
		n = putUint(b, n+1, x)
	}
	b[n] = '"'
	return n + 1
}

func putBool(b []byte, n int, x uint64) int {
	word, size := uint64(0x65736c6166), 5 // "false"
	if x != 0 {
		word, size = 0x65757274, 4 // "true"
	}
	store64(b, n, word)
	return n + size
}

// wellKnown writes a Timestamp, a Duration or a wrapper at the headroom.
func (t *Transcoder) wellKnown(m *message, wire []byte, n int) int {
	if m.shape == shapeUnsupported {
		return t.fail(faultUnsupported)
	}
	base := len(t.occurrences)
	if !t.collect(m, wire) {
		return t.fail(faultMalformed)
	}
	var last [3]occurrence
	for _, o := range t.occurrences[base:] {
		last[o.f.order] = o
	}
	t.occurrences = t.occurrences[:base]
	if len(t.buf)-n < headroom {
		t.grow(n, headroom)
	}
	switch m.shape {
	case shapeTimestamp:
		return t.timestamp(n, int64(last[1].x), int32(last[2].x))
	case shapeDuration:
		return t.duration(n, int64(last[1].x), int32(last[2].x))
	}
	return t.value(&m.fields[1], last[1], n)
}

// entry is an entry of a map: its key, as text or as a number, and its value.
type entry struct {
	text   []byte
	number uint64
	value  occurrence
}

// addEntry appends the entry in v to t.entries. A missing key or value is the
// zero value, of two the last counts, message values are joined.
func (t *Transcoder) addEntry(f *field, v []byte) bool {
	base := len(t.occurrences)
	if !t.collect(f.sub, v) {
		return false
	}
	value := f.sub.find(2)
	e := entry{value: occurrence{f: value}}
	from, parts := len(t.joined), 0
	for _, o := range t.occurrences[base:] {
		switch {
		case o.f != value:
			e.text, e.number = o.v, o.x
		case value.sub == nil:
			e.value = o
		default:
			t.joined = append(t.joined, o.v...)
			parts++
			e.value = o
		}
	}
	if parts > 1 {
		e.value.v = t.joined[from:len(t.joined):len(t.joined)]
	}
	t.occurrences = t.occurrences[:base]
	if len(t.entries) == maxOccurrences {
		return false
	}
	t.entries = append(t.entries, e)
	return true
}

// mapEntries writes the entries from base on, sorted by key, as the map f.
func (t *Transcoder) mapEntries(f *field, base, n int) int {
	kind := f.sub.find(1).kind
	slices.SortStableFunc(t.entries[base:], func(a, b entry) int { return compareKeys(kind, &a, &b) })
	n = t.plainKey(f, n)
	start, end := n, len(t.entries)
	for i := base; i < end; i++ {
		e := t.entries[i]
		if i+1 < end && compareKeys(kind, &e, &t.entries[i+1]) == 0 {
			continue // a later one replaces it
		}
		if len(t.buf)-n < headroom {
			t.grow(n, headroom)
		}
		t.buf[n], t.buf[n+1] = ',', '"'
		n = t.mapKey(kind, &e, n+2)
		t.buf[n] = ':'
		if n = t.value(e.value.f, e.value, n+1); n < 0 {
			return n
		}
	}
	t.entries = t.entries[:base]
	t.buf[start], t.buf[n] = '{', '}'
	return n + 1
}

// mapKey writes a key and its closing quote.
func (t *Transcoder) mapKey(kind protoreflect.Kind, e *entry, n int) int {
	switch kind {
	case protoreflect.StringKind:
		return t.text(n, e.text)
	case protoreflect.BoolKind:
		n = putBool(t.buf, n, e.number)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Int32Kind, protoreflect.Sfixed32Kind, protoreflect.Sint32Kind:
		n = putInteger(t.buf, n, kind, e.number)
	default:
		return putInteger(t.buf, n-1, kind, e.number) // writes both quotes
	}
	t.buf[n] = '"'
	return n + 1
}

// compareKeys orders keys as protojson does: text by bytes, numbers by value,
// false before true.
func compareKeys(kind protoreflect.Kind, a, b *entry) int {
	switch kind {
	case protoreflect.StringKind:
		return bytes.Compare(a.text, b.text)
	case protoreflect.BoolKind:
		return cmp.Compare(min(a.number, 1), min(b.number, 1))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return cmp.Compare(uint32(a.number), uint32(b.number))
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		return cmp.Compare(int32(a.number), int32(b.number))
	case protoreflect.Sint32Kind:
		x, y := uint32(a.number), uint32(b.number)
		return cmp.Compare(int32(x>>1)^-int32(x&1), int32(y>>1)^-int32(y&1))
	case protoreflect.Sint64Kind:
		return cmp.Compare(int64(a.number>>1)^-int64(a.number&1), int64(b.number>>1)^-int64(b.number&1))
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return cmp.Compare(int64(a.number), int64(b.number))
	}
	return cmp.Compare(a.number, b.number)
}
