package transcode

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// tree is the JSON of one event, taken apart so that parts can be left out. It
// is made only of events too large for where they go.
type tree struct {
	text  []byte
	nodes []node // in the order of the text; nodes[0] is the whole
	caps  *enum
}

// node is a value, with its key if it is a member of an object.
type node struct {
	key, keyEnd int // of `"name"` in the text; equal for an element of a list
	value, end  int
	parent      int // index, -1 for the whole
	next        int // index of the node behind this one and all inside it
	size        int // bytes of the value as it would be written now
	live        int // how many of its children are written
	capset      uint64
	first       byte // of the value
	identity    bool // a string that is worth nothing when cut
	role        role
	stage       stage
	state       state
}

// state says how much of a node is left.
type state uint8

const (
	whole state = iota
	gone
	cut       // a string, to size bytes
	inNumbers // a list of capabilities, as the hexadecimal number capset
)

// capsetSize is the length of a capability set in hexadecimal digits, as
// /proc/PID/status shows it, with quotes.
const capsetSize = 18

// maxTreeDepth bounds the recursion: each of maxDepth messages may stand in a
// list, and the innermost hold a map.
const maxTreeDepth = 2*maxDepth + 8

// read takes the text apart. It returns false if that is not valid enough.
func (t *tree) read() bool {
	t.nodes = t.nodes[:0]
	i := t.value(t.space(0), node{parent: -1}, 0)
	return i >= 0 && t.space(i) == len(t.text) && t.nodes[0].first == '{'
}

// space returns the place of the next byte that is no white space; the fallback
// may have written some.
func (t *tree) space(i int) int {
	for i < len(t.text) && (t.text[i] == ' ' || t.text[i] == '\n' || t.text[i] == '\t' || t.text[i] == '\r') {
		i++
	}
	return i
}

// value appends the node n, whose value begins at i, and all inside it. It
// returns where the value ends, or -1.
func (t *tree) value(i int, n node, depth int) int {
	if i >= len(t.text) || depth > maxTreeDepth {
		return -1
	}
	n.value, n.first = i, t.text[i]
	end, size := 0, 0
	if n.stage == stageCapabilities {
		if n.capset, end = t.capset(i); end > 0 {
			n.end, n.size, n.next = end, end-i, len(t.nodes)+1
			t.nodes = append(t.nodes, n)
			return end
		}
		n.stage = stageNever
	}
	at := len(t.nodes)
	t.nodes = append(t.nodes, n)
	switch n.first {
	case '{', '[':
		if end, size = t.inside(i+1, at, depth); end < 0 {
			return -1
		}
	case '"':
		end = t.stringEnd(i)
		size = end - i
	default:
		for end = i; end < len(t.text) && bytes.IndexByte([]byte(",]} \n\t\r"), t.text[end]) < 0; {
			end++
		}
		size = end - i
	}
	if end <= i {
		return -1
	}
	done := &t.nodes[at]
	done.end, done.size, done.next = end, size, len(t.nodes)
	return end
}

// inside reads the children of nodes[at] and the closing bracket. It returns
// where that ends and the size of it all without white space.
func (t *tree) inside(i, at, depth int) (end, size int) {
	closing := t.nodes[at].first + 2 // '{' and '}', '[' and ']' are two apart
	size = 2
	if i = t.space(i); i < len(t.text) && t.text[i] == closing {
		return i + 1, size
	}
	for {
		child := node{key: i, keyEnd: i, parent: at}
		if closing == '}' {
			if i >= len(t.text) || t.text[i] != '"' {
				return -1, 0
			}
			if child.keyEnd = t.stringEnd(i); child.keyEnd < 0 {
				return -1, 0
			}
			if i = t.space(child.keyEnd); i >= len(t.text) || t.text[i] != ':' {
				return -1, 0
			}
			i = t.space(i + 1)
			size += child.keyEnd - child.key + 1
		}
		if i < len(t.text) {
			child.first = t.text[i]
			child.classify(&t.nodes[at], t.text)
		}
		index := len(t.nodes)
		if i = t.value(i, child, depth+1); i < 0 {
			return -1, 0
		}
		size += t.nodes[index].size
		t.nodes[at].live++
		if i = t.space(i); i >= len(t.text) {
			return -1, 0
		}
		switch t.text[i] {
		case closing:
			return i + 1, size
		case ',':
			size++
			i = t.space(i + 1)
		default:
			return -1, 0
		}
	}
}

// stringEnd returns where the string that begins at i ends, or -1.
func (t *tree) stringEnd(i int) int {
	for i++; i < len(t.text); {
		if i+8 <= len(t.text) {
			clean := bits.TrailingZeros64(special(load64(t.text, i))) >> 3
			if i += clean; clean == 8 {
				continue
			}
		}
		switch t.text[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
		i++
	}
	return -1
}

// capset reads the list of capabilities at i as a set of bits, and returns where
// it ends; 0 if it holds anything but names and numbers of capabilities.
func (t *tree) capset(i int) (set uint64, end int) {
	if t.caps == nil || t.text[i] != '[' {
		return 0, 0
	}
	for number := -1; ; {
		if i = t.space(i + 1); i >= len(t.text) {
			return 0, 0
		}
		start := i
		if t.text[i] == '"' {
			if i = t.stringEnd(i); i < 0 {
				return 0, 0
			}
			number = t.caps.number(t.text[start:i], number+1)
		} else {
			number = 0
			for ; i < len(t.text) && t.text[i] >= '0' && t.text[i] <= '9' && number < 64; i++ {
				number = 10*number + int(t.text[i]-'0')
			}
		}
		if i == start || number < 0 || number >= 64 {
			return 0, 0
		}
		set |= 1 << number
		if i = t.space(i); i >= len(t.text) || t.text[i] != ',' {
			break
		}
	}
	if i >= len(t.text) || t.text[i] != ']' {
		return 0, 0
	}
	return set, i + 1
}

// shrink takes saved bytes off a node and all around it.
func (t *tree) shrink(i, saved int) {
	for ; i >= 0; i = t.nodes[i].parent {
		t.nodes[i].size -= saved
	}
}

// remove leaves out nodes[i] and all inside it.
func (t *tree) remove(i int) {
	n := &t.nodes[i]
	parent := &t.nodes[n.parent]
	saved := n.size
	if n.keyEnd > n.key {
		saved += n.keyEnd - n.key + 1
	}
	if parent.live > 1 {
		saved++ // a comma
	}
	parent.live--
	for k := i; k < n.next; k++ {
		t.nodes[k].state = gone
	}
	t.shrink(n.parent, saved)
}

// append appends what is left of nodes[i], without white space.
func (t *tree) append(dst []byte, i int) []byte {
	n := &t.nodes[i]
	if n.keyEnd > n.key {
		dst = append(append(dst, t.text[n.key:n.keyEnd]...), ':')
	}
	switch {
	case n.state == inNumbers:
		var set [8]byte
		binary.BigEndian.PutUint64(set[:], n.capset)
		dst = append(dst, '"')
		for _, b := range set {
			dst = append(dst, hexDigits[b>>4], hexDigits[b&15])
		}
		return append(dst, '"')
	case n.state == cut:
		return append(append(dst, t.text[n.value:n.value+n.size-1]...), '"')
	case n.stage == stageCapabilities, n.first != '{' && n.first != '[':
		return append(dst, t.text[n.value:n.end]...)
	}
	dst = append(dst, n.first)
	separate := false
	for k := i + 1; k < n.next; k = t.nodes[k].next {
		if t.nodes[k].state == gone {
			continue
		}
		if separate {
			dst = append(dst, ',')
		}
		dst = t.append(dst, k)
		separate = true
	}
	return append(dst, n.first+2)
}
