package transcode

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxSolid is one more than the highest enum number that has its place in the
// table, rather than in the sorted list: those that a varint of one byte holds.
const maxSolid = 128

// enum holds the names of an enum's values as the pieces `,"NAME"`, one after
// another in the order of their numbers, so that a run of consecutive numbers,
// such as a full capability set, is one piece too.
type enum struct {
	pieces []byte     // padded by pieceSlack
	at     [][2]int32 // by number, where its piece begins and ends
	solid  int        // the numbers below it all have names
	sparse []enumName // sorted by number
}

type enumName struct {
	number   int32
	from, to int32
}

// pieceSlack lets a piece be read with moves of a fixed size.
const pieceSlack = blockSize

func (c *compiler) enum(ed protoreflect.EnumDescriptor) *enum {
	if e := c.enums[ed.FullName()]; e != nil {
		return e
	}
	e := &enum{}
	c.enums[ed.FullName()] = e
	values := make([]protoreflect.EnumValueDescriptor, ed.Values().Len())
	for i := range values {
		values[i] = ed.Values().Get(i)
	}
	slices.SortStableFunc(values, func(a, b protoreflect.EnumValueDescriptor) int { return int(a.Number()) - int(b.Number()) })
	// Of two names for one number the one declared first counts.
	values = slices.CompactFunc(values, func(a, b protoreflect.EnumValueDescriptor) bool { return a.Number() == b.Number() })
	for _, v := range values {
		from := int32(len(e.pieces))
		e.pieces = append(append(append(e.pieces, `,"`...), v.Name()...), '"')
		to := int32(len(e.pieces))
		number := int32(v.Number())
		if number < 0 || number >= maxSolid {
			e.sparse = append(e.sparse, enumName{number, from, to})
			continue
		}
		for int(number) >= len(e.at) {
			e.at = append(e.at, [2]int32{})
		}
		e.at[number] = [2]int32{from, to}
	}
	for e.solid < len(e.at) && e.at[e.solid][1] > 0 {
		e.solid++
	}
	e.pieces = append(e.pieces, make([]byte, pieceSlack)...)
	return e
}

// piece returns where the piece of a number begins and ends; from == to if the
// number has no name.
func (e *enum) piece(number int32) (from, to int) {
	if uint32(number) < uint32(len(e.at)) {
		return int(e.at[number][0]), int(e.at[number][1])
	}
	i, ok := slices.BinarySearchFunc(e.sparse, number, func(n enumName, number int32) int {
		return int(int64(n.number) - int64(number))
	})
	if !ok {
		return 0, 0
	}
	return int(e.sparse[i].from), int(e.sparse[i].to)
}

// number returns the number of a name in quotes, -1 if there is none below
// maxSolid. It tries guess first.
func (e *enum) number(quoted []byte, guess int) int {
	if e.names(guess, quoted) {
		return guess
	}
	for number := range e.at {
		if e.names(number, quoted) {
			return number
		}
	}
	return -1
}

// names reports whether the number has the name in quotes.
func (e *enum) names(number int, quoted []byte) bool {
	if uint(number) >= uint(len(e.at)) || e.at[number][1] == 0 {
		return false
	}
	return string(e.pieces[e.at[number][0]+1:e.at[number][1]]) == string(quoted)
}
