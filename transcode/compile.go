package transcode

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Program is a message type compiled into the tables that a [Transcoder] runs.
//
// It is immutable, holds no reference to the descriptor, and is safe for any
// number of goroutines. The zero value is not usable: call [Compile].
type Program struct {
	root  *message
	sites int   // places that the memo looks at, and one
	caps  *enum // Tetragon's capabilities, nil if the type does not reach them
}

// Compile makes the program for messages of the type md, and of all types that
// it reaches.
//
// It takes under a millisecond for Tetragon's GetEventsResponse (figures in
// the package comment), and is meant to be called once. The error is
// [ErrUnsupported] if md itself cannot be transcoded: a message set, a type
// with required fields or extensions, or one of the well-known types Any,
// Struct, Value, ListValue and FieldMask. Such a type further down is accepted:
// only an event that holds it fails, and goes to [Options.Fallback].
func Compile(md protoreflect.MessageDescriptor) (*Program, error) {
	c := compiler{messages: map[protoreflect.FullName]*message{}, enums: map[protoreflect.FullName]*enum{}, sites: map[string]uint16{}}
	root := c.message(md)
	if root.shape == shapeUnsupported {
		return nil, fmt.Errorf("transcode: compiling %s: %w", md.FullName(), ErrUnsupported)
	}
	for i := range root.fields {
		root.fields[i].site = 0 // the member of an event never comes twice
	}
	return &Program{root: root, sites: len(c.sites) + 1, caps: c.enums["tetragon.CapabilitiesType"]}, nil
}

// shape says how a message looks in JSON.
type shape uint8

const (
	shapeObject shape = iota
	shapeTimestamp
	shapeDuration
	shapeWrapper
	shapeUnsupported
)

// op is what the interpreter does with a field. The common ones have their own
// code in run.go; opOther goes through the general code in careful.go.
type op uint8

const (
	opUnknown op = iota // not in the descriptor
	opString
	opMessage
	opMessages // repeated
	opUint32
	opUint32Value // google.protobuf.UInt32Value
	opBoolValue   // google.protobuf.BoolValue
	opTimestamp
	opEnum
	opEnums // repeated, packed
	opUint64
	opInt32
	opInt64
	opBool
	opBytes
	opStrings // repeated
	opMap
	opOther   // everything else that is not repeated
	opCareful // repeated fields of the rarer kinds
	opLate    // stands before a oneof on the wire and after it in JSON
	opUnsupported
)

// maxKey is the length up to which a key is copied with one fixed-size move.
const maxKey = 32

// field is one field of a message: where it stands, what to do, what to write.
type field struct {
	tag      uint32 // number<<3 | the wire type that op reads
	order    uint16 // place in the JSON, from 1; members of a oneof share it
	op       op
	keyLen   uint8 // length of key; more than maxKey: use long
	kind     protoreflect.Kind
	implicit bool // a zero value is not written
	list     bool
	oneof    bool
	process  bool     // of the type tetragon.Process
	site     uint16   // number for the memo, 0: never looked up
	key      block    // `,"name":`, and the quote or bracket that op wants
	sub      *message // of a message, or of a map's entry
	enum     *enum
	long     string // `,"name":` in full
}

// number returns the field number, 0 for the entry of unknown fields.
func (f *field) number() uint32 { return f.tag >> 3 }

// message is one message type.
type message struct {
	shape    shape
	number   uint32   // of the type
	site     uint16   // number for the memo of the fields beside processes, 0: not made of pieces
	fields   []field  // fields[0] stands for every unknown field
	byNumber []*field // for the numbers below its length
	sparse   []uint16 // indexes into fields of the numbers above
	late     *message // the same without opLate, nil if there is none
}

// maxDense is the highest field number that byNumber covers. It is the highest
// that a tag of two bytes can hold.
const maxDense = 2047

// find returns the field of a number, fields[0] if there is none.
func (m *message) find(number uint32) *field {
	if number < uint32(len(m.byNumber)) {
		return m.byNumber[number]
	}
	for _, i := range m.sparse {
		if m.fields[i].number() == number {
			return &m.fields[i]
		}
	}
	return &m.fields[0]
}

type compiler struct {
	messages map[protoreflect.FullName]*message
	enums    map[protoreflect.FullName]*enum
	sites    map[string]uint16 // numbers of the places that the memo looks at, from 1
}

// site returns the number of a place. Fields of one name and type are one place,
// for the process that an event of one kind brings is found by those of another.
func (c *compiler) site(name string) uint16 {
	if c.sites[name] == 0 && len(c.sites) < math.MaxUint16 { // beyond, pieces are not looked up
		c.sites[name] = uint16(len(c.sites) + 1)
	}
	return c.sites[name]
}

func (c *compiler) message(md protoreflect.MessageDescriptor) *message {
	if m := c.messages[md.FullName()]; m != nil {
		return m
	}
	m := &message{shape: shapeOf(md), number: uint32(len(c.messages))}
	c.messages[md.FullName()] = m // before its fields, for types may be recursive
	if m.shape == shapeUnsupported {
		return m
	}
	fds := md.Fields()
	m.fields = make([]field, 1, fds.Len()+1)
	firstOneof := uint16(0)
	for i := range fds.Len() {
		f := c.field(fds.Get(i))
		f.order = uint16(i + 1)
		if f.oneof {
			f.order = uint16(fds.Get(i).ContainingOneof().Fields().Get(0).Index() + 1)
			if firstOneof == 0 {
				firstOneof = f.order
			}
		}
		m.fields = append(m.fields, f)
	}
	m.postpone(firstOneof)
	m.index()
	if m.late == nil && slices.ContainsFunc(m.fields, func(f field) bool { return f.process }) {
		m.site = c.site(string(md.FullName()))
	}
	return m
}

// index fills the tables that find reads.
func (m *message) index() {
	m.byNumber, m.sparse = nil, nil
	for i := range m.fields[1:] {
		number := int(m.fields[i+1].number())
		if number > maxDense {
			m.sparse = append(m.sparse, uint16(i+1))
			continue
		}
		for number >= len(m.byNumber) {
			m.byNumber = append(m.byNumber, &m.fields[0])
		}
		m.byNumber[number] = &m.fields[i+1]
	}
}

// postpone marks the fields that Go's marshaller puts before the oneof which
// they follow in the descriptor: it writes the members of oneofs last.
func (m *message) postpone(firstOneof uint16) {
	if firstOneof == 0 || !slices.ContainsFunc(m.fields, func(f field) bool { return !f.oneof && f.order > firstOneof }) {
		return
	}
	late := *m
	late.fields = slices.Clone(m.fields)
	late.index()
	m.late = &late
	for i := range m.fields {
		if f := &m.fields[i]; !f.oneof && f.order > firstOneof {
			f.op = opLate
		}
	}
}

func (c *compiler) field(fd protoreflect.FieldDescriptor) field {
	f := field{
		kind:     fd.Kind(),
		implicit: !fd.HasPresence(),
		list:     fd.IsList() || fd.IsMap(),
		oneof:    fd.ContainingOneof() != nil && !fd.ContainingOneof().IsSynthetic(),
		long:     `,"` + fd.TextName() + `":`,
	}
	switch f.kind {
	case protoreflect.MessageKind:
		f.sub = c.message(fd.Message())
	case protoreflect.EnumKind:
		f.enum = c.enum(fd.Enum())
	}
	f.op = opOf(fd, f.sub)
	if f.op == opMessage || f.op == opMessages {
		f.site = c.site(string(fd.Name()) + " " + string(fd.Message().FullName()))
		f.process = fd.Message().FullName() == "tetragon.Process"
	}
	f.tag = uint32(fd.Number())<<3 | uint32(wireOf(f.kind))
	if fd.IsPacked() {
		f.tag = uint32(fd.Number())<<3 | wireBytes
	}
	text := f.long
	switch f.op {
	case opString, opUint64, opInt64, opBytes:
		text += `"`
	case opMessages:
		text += `[`
	}
	f.keyLen = uint8(min(len(text), maxKey+1))
	copy(f.key.bytes[:], text)
	return f
}

func opOf(fd protoreflect.FieldDescriptor, sub *message) op {
	switch {
	case sub != nil && sub.shape == shapeUnsupported,
		fd.Kind() == protoreflect.GroupKind,
		fd.Kind() == protoreflect.EnumKind && fd.Enum().IsClosed(),
		fd.IsMap() && !supported(fd.MapValue(), sub):
		return opUnsupported
	case fd.IsMap():
		return opMap
	case fd.IsList():
		switch {
		case sub != nil && sub.shape == shapeObject:
			return opMessages
		case fd.Kind() == protoreflect.StringKind:
			return opStrings
		case fd.Kind() == protoreflect.EnumKind && fd.IsPacked():
			return opEnums
		}
		return opCareful
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return opString
	case protoreflect.BytesKind:
		return opBytes
	case protoreflect.BoolKind:
		return opBool
	case protoreflect.EnumKind:
		return opEnum
	case protoreflect.Uint32Kind:
		return opUint32
	case protoreflect.Uint64Kind:
		return opUint64
	case protoreflect.Int32Kind:
		return opInt32
	case protoreflect.Int64Kind:
		return opInt64
	case protoreflect.MessageKind:
		switch {
		case sub.shape == shapeObject:
			return opMessage
		case sub.shape == shapeTimestamp:
			return opTimestamp
		case fd.Message().FullName() == "google.protobuf.UInt32Value":
			return opUint32Value
		case fd.Message().FullName() == "google.protobuf.BoolValue":
			return opBoolValue
		}
	}
	return opOther
}

// supported says whether a map's value can be transcoded.
func supported(value protoreflect.FieldDescriptor, entry *message) bool {
	return entry.find(uint32(value.Number())).op != opUnsupported
}

func shapeOf(md protoreflect.MessageDescriptor) shape {
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		return shapeTimestamp
	case "google.protobuf.Duration":
		return shapeDuration
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.Int32Value", "google.protobuf.Int64Value",
		"google.protobuf.UInt32Value", "google.protobuf.UInt64Value",
		"google.protobuf.FloatValue", "google.protobuf.DoubleValue":
		return shapeWrapper
	case "google.protobuf.Any", "google.protobuf.Struct", "google.protobuf.Value",
		"google.protobuf.ListValue", "google.protobuf.FieldMask":
		return shapeUnsupported
	}
	if md.ExtensionRanges().Len() > 0 || md.RequiredNumbers().Len() > 0 || md.Fields().Len() >= 1<<16-1 {
		return shapeUnsupported
	}
	return shapeObject
}

// Wire types, https://protobuf.dev/programming-guides/encoding/#structure.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireGroup   = 3
	wireEnd     = 4
	wireFixed32 = 5
)

func wireOf(k protoreflect.Kind) int {
	switch k {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return wireBytes
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return wireFixed64
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return wireFixed32
	case protoreflect.GroupKind:
		return wireGroup
	}
	return wireVarint
}
