package transcode

import "math"

// span is a part of a message's bytes that holds fields put off, in order.
type span struct {
	first, last uint16 // order of the fields
	from, to    int
}

// message writes the object of the message in wire at buf[n:], in the fast
// form, and returns where it ends, or a negative number after fail.
//
// The fast form takes the fields as they come. It gives up with faultOrder
// where they do not come in the order of the descriptor: Go's marshaller writes
// them by number, which is that order in Tetragon's messages but for the fields
// after a oneof, and those are put off (opLate).
func (t *Transcoder) message(m *message, wire []byte, n int) int {
	if t.depth++; t.depth > maxDepth {
		return t.fail(faultDepth)
	}
	start := n
	if t.memo != nil && m.site != 0 && t.memo.sites[m.site].awake(len(wire)) {
		n = t.pieces(m, wire, n)
	} else {
		n = t.fields(m, wire, n)
	}
	if n < 0 {
		return n
	}
	t.depth--
	return t.closeObject(start, n)
}

// sub is message for the sub-message in a field.
func (t *Transcoder) sub(f *field, wire []byte, n int) int {
	if t.memo != nil && f.site != 0 && len(wire) >= minMemo && len(wire) <= maxMemo {
		return t.piece(f.sub, f.site, wire, n, false)
	}
	return t.message(f.sub, wire, n)
}

// closeObject turns the comma of the first field into the opening brace.
func (t *Transcoder) closeObject(start, n int) int {
	if len(t.buf)-n < 2 {
		t.grow(n, 2)
	}
	if n == start {
		n++
	}
	t.buf[start], t.buf[n] = '{', '}'
	return n + 1
}

// fields writes the fields in wire, each with a comma before it.
func (t *Transcoder) fields(m *message, wire []byte, n int) int {
	last := uint16(0)
	lates := len(t.late)
	for i := 0; i < len(wire); {
		at := i
		tag := uint32(wire[i])
		i++
		if tag >= 0x80 {
			if i < len(wire) && wire[i] < 0x80 {
				tag = tag&0x7f | uint32(wire[i])<<7
				i++
			} else if tag, i = fieldTag(wire, at); i < 0 {
				return t.fail(faultMalformed)
			}
		}
		f := m.find(tag >> 3)
		if f.tag != tag {
			if f.tag != 0 && f.list {
				return t.fail(faultOrder) // may be packed where it need not, or the other way
			}
			if tag>>3 == 0 {
				return t.fail(faultMalformed)
			}
			if i = skip(wire, i, tag); i < 0 {
				return t.fail(faultMalformed)
			}
			t.info.Unknown++
			continue
		}
		if f.order <= last {
			return t.fail(faultOrder)
		}
		previous := last
		last = f.order
		if len(t.buf)-n < headroom {
			t.grow(n, headroom)
		}
		var v []byte
		var x uint64
		switch tag & 7 {
		case wireBytes:
			// The usual length of one byte, without the call.
			if rest := wire[i:]; len(rest) > 0 && rest[0] < 0x80 && int(rest[0]) < len(rest) {
				l := int(rest[0]) + 1
				v, i = rest[1:l:l], i+l
			} else {
				v, i = chunk(wire, i)
			}
		case wireVarint:
			if i < len(wire) && wire[i] < 0x80 {
				x = uint64(wire[i])
				i++
			} else {
				x, i = uvarint(wire, i)
			}
			if f.implicit && i >= 0 && f.isZero(x) {
				continue
			}
		case wireFixed64:
			if i += 8; i <= len(wire) {
				x = load64(wire, i-8)
			}
		case wireFixed32:
			if i += 4; i <= len(wire) {
				x = uint64(load32(wire, i-4))
			}
		}
		if i < 0 || i > len(wire) {
			return t.fail(faultMalformed)
		}
		// The key is written for all alike; what writes no value leaves it behind
		// the end of the output.
		k := n + int(f.keyLen)
		storeBlock(t.buf, n, &f.key)
		if f.keyLen > maxKey {
			k = t.longKey(f, n)
		}
		switch f.op {
		case opString:
			if len(v) != 0 || !f.implicit {
				n = t.text(k, v)
			}
		case opMessage:
			n = t.sub(f, v, k)
		case opMessages:
			n, i = t.messages(f, v, wire, i, n)
		case opUint32:
			n = putUint(t.buf, k, uint64(uint32(x)))
		case opUint32Value:
			if len(v) == 2 && v[0] == 1<<3|wireVarint && v[1] < 0x80 {
				n = putUint(t.buf, k, uint64(v[1]))
			} else {
				n = t.uint32Value(f, v, n, k)
			}
		case opBoolValue:
			switch {
			case len(v) == 0:
				n = putBool(t.buf, k, 0)
			case len(v) == 2 && v[0] == 1<<3|wireVarint && v[1] < 0x80:
				n = putBool(t.buf, k, uint64(v[1]))
			default:
				n = t.single(f, occurrence{f: f, v: v}, n)
			}
		case opTimestamp:
			n = t.fastTimestamp(f, v, n, k)
		case opEnum:
			n = t.enumName(f.enum, int32(x), k)
		case opEnums:
			n = t.enums(f, v, n)
			if n < 0 {
				return t.fail(faultMalformed)
			}
		case opUint64:
			n = putUint(t.buf, k, x)
			t.buf[n] = '"'
			n++
		case opInt32:
			n = putInt(t.buf, k, int64(int32(x)))
		case opInt64:
			n = putInt(t.buf, k, int64(x))
			t.buf[n] = '"'
			n++
		case opBool:
			n = putBool(t.buf, k, x)
		case opBytes:
			if len(v) != 0 || !f.implicit {
				n = t.base64(k, v)
			}
		case opStrings:
			n, i = t.strings(f, v, wire, i, n)
		case opMap:
			n, i = t.fastMap(f, v, wire, i, n)
		case opOther:
			n = t.single(f, occurrence{f: f, x: x, v: v}, n)
		case opLate:
			last = previous
			if i = t.putOff(f, lates, at, i); i < 0 {
				return t.fail(faultOrder)
			}
		case opUnsupported:
			return t.fail(faultUnsupported)
		default:
			return t.fail(faultOrder)
		}
		if n < 0 {
			return n
		}
	}
	if len(t.late) > lates {
		return t.lateFields(m, wire, n, last, lates)
	}
	return n
}

// key writes a field's key, which ends at the value.
func (t *Transcoder) key(f *field, n int) int {
	storeBlock(t.buf, n, &f.key)
	if f.keyLen > maxKey {
		return t.longKey(f, n)
	}
	return n + int(f.keyLen)
}

// longKey is key for a key that one move cannot copy.
func (t *Transcoder) longKey(f *field, n int) int {
	if len(t.buf)-n < len(f.long)+headroom {
		t.grow(n, len(f.long)+headroom)
	}
	n += copy(t.buf[n:], f.long)
	switch f.op {
	case opString, opUint64, opInt64, opBytes:
		t.buf[n] = '"'
		n++
	case opMessages:
		t.buf[n] = '['
		n++
	}
	return n
}

// again reports whether the field goes on at wire[i:], and where its next value
// begins.
func (f *field) again(wire []byte, i int) (next int, ok bool) {
	if f.tag < 0x80 {
		return i + 1, i < len(wire) && wire[i] == byte(f.tag)
	}
	tag, next := fieldTag(wire, i)
	return next, next >= 0 && tag == f.tag
}

// messages writes a list of messages; v is the first, the others follow at i.
func (t *Transcoder) messages(f *field, v, wire []byte, i, n int) (end, next int) {
	n = t.key(f, n)
	for {
		if n = t.sub(f, v, n); n < 0 {
			return n, i
		}
		if len(t.buf)-n < headroom {
			t.grow(n, headroom)
		}
		value, ok := f.again(wire, i)
		if !ok {
			t.buf[n] = ']'
			return n + 1, i
		}
		if v, i = chunk(wire, value); i < 0 {
			return t.fail(faultMalformed), i
		}
		t.buf[n] = ','
		n++
	}
}

// strings writes a list of strings; v is the first, the others follow at i.
func (t *Transcoder) strings(f *field, v, wire []byte, i, n int) (end, next int) {
	n = t.key(f, n)
	t.buf[n] = '['
	for {
		t.buf[n+1] = '"'
		n = t.text(n+2, v)
		if len(t.buf)-n < headroom {
			t.grow(n, headroom)
		}
		value, ok := f.again(wire, i)
		if !ok {
			t.buf[n] = ']'
			return n + 1, i
		}
		if v, i = chunk(wire, value); i < 0 {
			return t.fail(faultMalformed), i
		}
		t.buf[n] = ','
	}
}

// enumName writes an enum's name with its quotes, or its number.
func (t *Transcoder) enumName(e *enum, number int32, n int) int {
	from, to := e.piece(number)
	if from == to {
		t.unknownNumber()
		return putInt(t.buf, n, int64(number))
	}
	if to-from > blockSize {
		if len(t.buf)-n < to-from+headroom {
			t.grow(n, to-from+headroom)
		}
		return n + copy(t.buf[n:], e.pieces[from+1:to])
	}
	storeBlock(t.buf, n, loadBlock(e.pieces, from+1))
	return n + to - from - 1
}

// maxUnknown is how many enum numbers without a name a stranger's message may have:
// they cost more than those with one.
const maxUnknown = 1024

// unknownNumber counts an enum number without a name.
func (t *Transcoder) unknownNumber() {
	if t.info.Unknown++; t.info.Unknown > maxUnknown && t.limit != math.MaxInt {
		panic(errLimit)
	}
}

// enums writes a packed list of enum numbers. A run of consecutive numbers, such
// as a full capability set, is one piece of text.
func (t *Transcoder) enums(f *field, v []byte, n int) int {
	if len(v) == 0 {
		return n
	}
	e := f.enum
	n = t.key(f, n)
	start := n
	for i := 0; i < len(v); {
		run := e.run(v[i:])
		from, to := 0, 0
		if run > 0 {
			from, to = int(e.at[v[i]][0]), int(e.at[int(v[i])+run-1][1])
			i += run
		} else {
			var x uint64
			if x, i = uvarint(v, i); i < 0 {
				return -1
			}
			if from, to = e.piece(int32(x)); from == to {
				if len(t.buf)-n < headroom {
					t.grow(n, headroom)
				}
				t.unknownNumber()
				t.buf[n] = ','
				n = putInt(t.buf, n+1, int64(int32(x)))
				continue
			}
		}
		if len(t.buf)-n < to-from+headroom {
			t.grow(n, to-from+headroom)
		}
		n += copy(t.buf[n:], e.pieces[from:to])
	}
	t.buf[start], t.buf[n] = '[', ']'
	return n + 1
}

// run returns how many consecutive numbers with names v begins with, one byte
// each; eight are compared at a time.
func (e *enum) run(v []byte) int {
	first := int(v[0])
	if first >= e.solid {
		return 0
	}
	most := min(len(v), e.solid-first)
	k := 1
	for k+8 <= most && load64(v, k) == uint64(first+k)*ones+0x0706050403020100 {
		k += 8
	}
	for k < most && int(v[k]) == first+k {
		k++
	}
	return k
}

// uint32Value writes a google.protobuf.UInt32Value as a number, behind the key
// that ends at key.
func (t *Transcoder) uint32Value(f *field, v []byte, n, key int) int {
	x := uint64(0)
	if len(v) > 0 {
		i := -1
		if v[0] == 1<<3|wireVarint {
			x, i = uvarint1(v, 1)
		}
		if i != len(v) {
			return t.single(f, occurrence{f: f, v: v}, n)
		}
	}
	return putUint(t.buf, key, uint64(uint32(x)))
}

// fastTimestamp writes a google.protobuf.Timestamp, behind the key that ends at
// key.
func (t *Transcoder) fastTimestamp(f *field, v []byte, n, key int) int {
	var seconds, nanos uint64
	i := 0
	if len(v) >= 9 && v[0] == 1<<3|wireVarint { // the usual form, without a loop
		var size int
		seconds, size = uvarint8(load64(v, 1))
		if size += 2; size <= 10 && size < len(v) && size >= len(v)-8 && v[size-1] == 2<<3|wireVarint {
			nanos, i = uvarint8(load64(v, len(v)-8) >> (64 - 8*(len(v)-size)))
			if size+i == len(v) {
				return t.timestamp(key, int64(seconds), int32(nanos))
			}
		}
		seconds, nanos, i = 0, 0, 0
	}
	if i < len(v) && v[i] == 1<<3|wireVarint {
		seconds, i = uvarint(v, i+1)
	}
	if i >= 0 && i < len(v) && v[i] == 2<<3|wireVarint {
		nanos, i = uvarint(v, i+1)
	}
	if i != len(v) {
		return t.single(f, occurrence{f: f, v: v}, n)
	}
	return t.timestamp(key, int64(seconds), int32(nanos))
}

// fastMap writes a map; v is the first entry, the others follow at i.
func (t *Transcoder) fastMap(f *field, v, wire []byte, i, n int) (end, next int) {
	base := len(t.entries)
	for {
		if !t.addEntry(f, v) {
			return t.fail(faultMalformed), i
		}
		value, ok := f.again(wire, i)
		if !ok {
			return t.mapEntries(f, base, n), i
		}
		if v, i = chunk(wire, value); i < 0 {
			return t.fail(faultMalformed), i
		}
	}
}

// putOff notes the field at wire[at:], whose first value ends at i, for
// lateFields. It returns a negative number if the order is lost.
func (t *Transcoder) putOff(f *field, lates, at, i int) int {
	if k := len(t.late) - 1; k >= lates {
		l := &t.late[k]
		if l.last > f.order || l.last == f.order && !(f.list && l.to == at) {
			return -1
		}
		if l.to == at {
			l.last, l.to = f.order, i
			return i
		}
	}
	t.late = append(t.late, span{f.order, f.order, at, i})
	return i
}

// lateFields writes the fields put off since lates.
func (t *Transcoder) lateFields(m *message, wire []byte, n int, last uint16, lates int) int {
	for k := lates; k < len(t.late) && n >= 0; k++ {
		l := t.late[k]
		if l.first <= last {
			return t.fail(faultOrder)
		}
		n = t.fields(m.late, wire[l.from:l.to], n)
	}
	t.late = t.late[:lates]
	return n
}
