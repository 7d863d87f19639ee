package transcode

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// stage says when a part of an event goes, if the event is too large. Stages
// come one after another, and each stops as soon as the event fits. Within a
// stage the last part of the text goes first: the oldest ancestor, then the
// parent, then the process itself.
type stage uint8

const (
	stageNever        stage = iota // goes only with what it is in
	stageCapabilities              // lists of names become numbers
	stageEnvironment
	stageStacks
	stageAncestors
	stageCredentials // and namespaces
	stageParent      // field by field
	stageLabels      // after it, strings are cut, longest first
	stageProcess     // what else the process has; its exec_id leads to it
	stageRest        // what else the event has
	stageKept        // cut at the very end, if it is a string
)

// role says what a node is, where that decides about the nodes inside.
type role uint8

const (
	roleOther role = iota
	roleEvent      // the member of the oneof
	roleProcess
	roleParent
	roleAncestors
	roleAncestor
	roleList // of arguments and the like
)

// classify sets what decides when n goes; its first byte is known.
func (n *node) classify(parent *node, text []byte) {
	var name []byte
	if n.keyEnd > n.key {
		name = text[n.key+1 : n.keyEnd-1]
	}
	switch string(name) {
	case "permitted", "effective", "inheritable":
		n.stage = stageCapabilities
		return
	case "pod_labels", "pod_annotations", "node_labels":
		n.stage = stageLabels
		return
	case "exec_id", "parent_exec_id":
		n.identity = true
	}
	switch parent.role {
	case roleEvent:
		n.inEvent(name)
	case roleProcess, roleParent, roleAncestor:
		n.inProcess(name, parent.role)
	case roleAncestors:
		n.role, n.stage = roleAncestor, stageAncestors
	case roleList:
		n.stage = stageRest
	case roleOther:
		if parent.parent < 0 {
			n.inRoot(name)
		}
	}
}

func (n *node) inRoot(name []byte) {
	switch string(name) {
	case "time", "node_name", "tetracast_kind":
		n.stage = stageKept
	case "aggregation_info", "cluster_name":
		n.stage = stageRest
	default:
		if n.role = roleEvent; n.first != '{' {
			n.stage = stageRest
		}
	}
}

func (n *node) inEvent(name []byte) {
	switch string(name) {
	case "process":
		n.role = roleProcess
	case "parent":
		n.role, n.stage = roleParent, stageParent
	case "ancestors":
		n.role, n.stage = roleAncestors, stageAncestors
	case "kernel_stack_trace", "user_stack_trace":
		n.stage = stageStacks
	case "policy_name", "action", "function_name", "subsys", "event", "symbol", "provider", "name", "type":
		n.stage = stageKept
	default:
		n.role, n.stage = roleList, stageRest
		if n.first != '[' {
			n.role = roleOther
		}
	}
}

func (n *node) inProcess(name []byte, of role) {
	switch string(name) {
	case "environment_variables":
		n.stage = stageEnvironment
		return
	case "cap", "ns", "process_credentials":
		n.stage = stageCredentials
		return
	}
	switch of {
	case roleParent:
		n.stage = stageParent
	case roleProcess:
		n.stage = stageProcess
		switch string(name) {
		case "exec_id", "pid", "binary":
			n.stage = stageKept
		}
	}
}

const (
	// minString is the length below which no string is cut. It is a multiple of
	// four, as all cuts are, so that what is left of base64 can be decoded.
	minString = 64
	// maxNames bounds the names in tetracast_truncated, in bytes.
	maxNames = 512
	// noteSize is the length of tetracast_truncated without names, with the comma
	// before it and the largest numbers.
	noteSize = len(`,"tetracast_truncated":{"fields":1234567890,"bytes":1234567890}`)
)

// AppendMax is Append for an event that must take at most limit bytes. One that
// takes more is appended in a form that fits, which is valid JSON always.
//
// What goes first is what is largest and says least about what happened;
// docs/transcode.md gives the reasons. In this order, and only until it fits:
//
//   - lists of capabilities become one number each, in 16 hexadecimal digits;
//   - environment variables; stack traces; ancestors, from the oldest;
//   - namespaces, credentials and capabilities; the parent; labels and
//     annotations of pods and nodes;
//   - strings are cut, longest first, to 64 bytes at least, never within a
//     character or an escape sequence;
//   - the other fields of the process, then those of the event, from the last.
//
// Kind, time, node_name, exec_id, pid, binary, policy_name, action and what names
// the hook (function_name; subsys and event; symbol; provider and name) stay. If
// even they are too much their strings are cut, but exec_id. [ErrBudget] says
// that this did not suffice either; it never does so at 1,024 bytes and more
// unless exec_id is longer than Tetragon's.
//
// The event ends with a member tetracast_truncated: the number of fields left out
// or shortened, how many bytes they took, and the names of as many as fit.
// Info.Truncated is that number; it is 0 for an event that fits as it is.
//
// dst, wire and errors are as with Append.
func (t *Transcoder) AppendMax(dst, wire []byte, limit int) ([]byte, Info, error) {
	out, info, err := t.Append(dst, wire)
	if err != nil || len(out)-len(dst) <= limit {
		return out, info, err
	}
	out, info.Truncated, err = t.fit(out[:len(dst)], out[len(dst):], limit)
	if err != nil {
		return dst, Info{}, err
	}
	return out, info, nil
}

// AppendLineMax appends the event in line, which is JSON as Append or Tetragon
// itself writes it, in at most limit bytes, as AppendMax does. The error is
// [ErrBudget], also for a line that is not the JSON of an object; numbers and
// literals in it are not checked.
//
// Line may be the spare capacity of dst.
func (t *Transcoder) AppendLineMax(dst, line []byte, limit int) ([]byte, Info, error) {
	if len(line) <= limit {
		return append(dst, line...), Info{}, nil
	}
	out, truncated, err := t.fit(dst, line, limit)
	return out, Info{Truncated: truncated}, err
}

// fit appends the event in line in at most limit bytes, and returns the number
// of fields that lost something.
func (t *Transcoder) fit(dst, line []byte, limit int) (out []byte, truncated int, err error) {
	e := &t.tree
	e.text = append(e.text[:0], line...)
	if !e.read() {
		return dst, 0, fmt.Errorf("%w: not an object in %d bytes of JSON", ErrBudget, len(line))
	}
	before := e.nodes[0].size
	if before <= limit {
		return e.append(dst, 0), 0, nil // the fallback's white space was too much
	}
	if !e.reduce(limit) {
		return dst, 0, fmt.Errorf("%w: %d bytes at least, the limit is %d", ErrBudget, e.nodes[0].size+noteSize, limit)
	}
	start := len(dst)
	out = e.append(dst, 0)
	out, truncated = e.note(out, before, limit-(len(out)-start))
	return out, truncated, nil
}

// reduce leaves out and shortens until the event and its note fit.
func (t *tree) reduce(limit int) bool {
	target := limit - noteSize - min(limit/16, maxNames)
	for s := stageCapabilities; s <= stageLabels; s++ {
		if t.drop(s, target) {
			return true
		}
	}
	return t.shorten(target, false) ||
		t.drop(stageProcess, target) || t.drop(stageRest, target) ||
		t.nodes[0].size <= limit-noteSize || t.shorten(limit-noteSize, true)
}

// drop takes what belongs to the stage, from the last node on, until the event
// takes at most target bytes.
func (t *tree) drop(s stage, target int) bool {
	for i := len(t.nodes) - 1; i > 0 && t.nodes[0].size > target; i-- {
		n := &t.nodes[i]
		if n.stage != s || n.state == gone {
			continue
		}
		if s != stageCapabilities {
			t.remove(i)
		} else if n.size > capsetSize {
			n.state = inNumbers
			t.shrink(i, n.size-capsetSize)
		}
	}
	return t.nodes[0].size <= target
}

// shorten cuts strings to one length, the largest with which the event takes at
// most target bytes, or to minString: those that are kept, or else the others.
func (t *tree) shorten(target int, kept bool) bool {
	longest := 0
	for i := range t.nodes {
		if n := &t.nodes[i]; n.cuttable(kept) {
			longest = max(longest, n.size-2)
		}
	}
	low, high := minString/4, longest/4+1 // in units of four bytes
	for high-low > 1 {
		level, saved := (low+high)/2, 0
		for i := range t.nodes {
			if n := &t.nodes[i]; n.cuttable(kept) {
				saved += max(0, n.size-2-4*level)
			}
		}
		if t.nodes[0].size-saved <= target {
			low = level
		} else {
			high = level
		}
	}
	for i := range t.nodes {
		if n := &t.nodes[i]; n.cuttable(kept) && n.size-2 > 4*low {
			length := boundary(t.text[n.value+1:n.end-1], 4*low)
			n.state = cut
			t.shrink(i, n.size-2-length)
		}
	}
	return t.nodes[0].size <= target
}

// cuttable reports whether n is a string to be cut.
func (n *node) cuttable(kept bool) bool {
	return n.first == '"' && n.state != gone && n.state != inNumbers && !n.identity && (n.stage == stageKept) == kept
}

// boundary returns the largest length up to most at which the inside of a JSON
// string can end: not within a UTF-8 sequence, an escape sequence, or two of
// them that stand for one character.
func boundary(s []byte, most int) int {
	i := 0
	for {
		size := 1
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			_, size = utf8.DecodeRune(s[i:])
		case c == '\\' && i+1 < len(s) && s[i+1] == 'u':
			size = 6
			if i+8 < len(s) && (s[i+2]|0x20) == 'd' && s[i+3] >= '8' && s[i+6] == '\\' {
				size = 12
			}
		case c == '\\':
			size = 2
		}
		if i+size > most {
			return i
		}
		i += size
	}
}

// note puts tetracast_truncated behind the last member of the object that text
// ends with; room says how many bytes it may take. It returns the number of
// fields.
func (t *tree) note(text []byte, before, room int) ([]byte, int) {
	text = text[:len(text)-1]
	if t.nodes[0].live > 0 {
		text = append(text, ',')
	}
	fields := 0
	for i := range t.nodes {
		if t.touched(i) {
			fields++
		}
	}
	text = append(text, `"tetracast_truncated":{"fields":`...)
	text = strconv.AppendInt(text, int64(fields), 10)
	text = append(text, `,"bytes":`...)
	text = strconv.AppendInt(text, int64(before-t.nodes[0].size), 10)
	start := len(text)
	most := start + min(maxNames, room-noteSize) - len(`]`)
	separator := `,"names":[`
	for i := range t.nodes {
		if !t.touched(i) {
			continue
		}
		end := len(text)
		text = append(text, separator...)
		name := len(text)
		text = append(t.path(append(text, '"'), i), '"')
		if len(text) > most || bytes.Contains(text[start:end], text[name:]) {
			text = text[:end]
			continue
		}
		separator = ","
	}
	if len(text) > start {
		text = append(text, ']')
	}
	return append(text, "}}"...), fields
}

// touched reports whether nodes[i] was left out or shortened itself, rather than
// something around it.
func (t *tree) touched(i int) bool {
	n := &t.nodes[i]
	return n.state != whole && (n.state != gone || t.nodes[n.parent].state != gone)
}

// path appends the name of nodes[i]: the keys that lead to it from the event's
// member on, with points between them. Capability sets go by the name of what
// holds the three of them.
func (t *tree) path(dst []byte, i int) []byte {
	n := &t.nodes[i]
	if n.state == inNumbers {
		return t.path(dst, n.parent)
	}
	if p := n.parent; p > 0 && t.nodes[p].role != roleEvent {
		if dst = t.path(dst, p); n.keyEnd > n.key {
			dst = append(dst, '.')
		}
	}
	if n.keyEnd > n.key {
		dst = append(dst, t.text[n.key+1:n.keyEnd-1]...)
	}
	return dst
}
