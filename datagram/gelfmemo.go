package datagram

import (
	"bytes"
	"encoding/binary"
)

// A process comes again and again, in its own events and in those of its
// children, byte for byte. So what became of it is kept: BenchmarkGELF with and
// without measures what that saves.
const (
	memoSlots = 256 // of each role: process, parent, ancestors
	memoText  = 8 << 10 // bytes of the longest JSON that is kept
	memoAhead = 12      // where the exec_id begins: {"exec_id":" or [{"exec_id":"
)

// memo keeps what became of processes it has seen: at most 3 × 256 of at most 8
// KiB each as JSON. They are found by their exec_id; a slot holds the last that
// fell into it.
type memo struct{ process, parent, ancestors memoTable }

type memoTable [memoSlots]remembered

// remembered is a value and its fields, or a list and its text.
type remembered struct {
	json, fields           []byte
	binary, namespace, pod span // of a process, in fields
}

// matches says whether text begins with the value that is remembered. A list or
// an object ends where its bracket closes, so text holds this one and no longer
// one.
func (r *remembered) matches(text []byte) bool {
	return len(r.json) > 0 && bytes.HasPrefix(text, r.json)
}

// keep remembers a value that is not too long.
func (r *remembered) keep(json, fields []byte) {
	if len(json) <= memoText {
		r.json, r.fields = append(r.json[:0], json...), append(r.fields[:0], fields...)
	}
}

// span is a part of a text; 0, 0 is none.
type span struct{ from, to int }

func (s span) of(text []byte) []byte {
	if s.to == 0 {
		return nil
	}
	return text[s.from:s.to]
}

// fieldText finds the text of a field among fields. start is what the field
// begins with, up to the quote before its text; that cannot stand inside a text,
// for quotes in there are escaped.
func fieldText(fields []byte, start string) span {
	from := bytes.Index(fields, []byte(start))
	if from < 0 {
		return span{}
	}
	s := scanner{text: fields, pos: from + len(start) - 1}
	if s.string() != nil {
		return span{}
	}
	return span{from + len(start), s.pos - 1}
}

// slot returns where the value at the start of text is kept, nil if it is none
// that is kept.
func (t *memoTable) slot(text []byte) *remembered {
	if len(text) < memoAhead+8 || string(text[1:9]) != `"exec_id` && string(text[1:9]) != `{"exec_i` {
		return nil
	}
	id := text[memoAhead:]
	id = id[:max(0, bytes.IndexByte(id, '"'))]
	hash := uint64(len(id))
	for ; len(id) >= 8; id = id[8:] {
		hash = (hash ^ binary.LittleEndian.Uint64(id)) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	for _, c := range id {
		hash = (hash ^ uint64(c)) * 0x9e3779b97f4a7c15
	}
	return &t[hash>>56%memoSlots]
}

// appendProcess appends the value at hand, the process, its parent or the
// ancestors.
func (f *flattener) appendProcess(dst []byte, field *shape, depth int) ([]byte, error) {
	table := &f.memo.ancestors
	switch field.role {
	case roleProcess:
		table = &f.memo.process
	case roleParent:
		table = &f.memo.parent
	}
	at, start := len(dst), f.scan.pos
	text := f.scan.text[start:]
	slot := table.slot(text)
	if slot != nil && slot.matches(text) {
		f.scan.pos += len(slot.json)
		dst = append(dst, slot.fields...)
		if field.role == roleProcess {
			f.headline.setProcess(dst[at:], slot.binary, slot.namespace, slot.pod)
		}
		return dst, nil
	}
	dst, err := f.appendValue(dst, field, depth)
	if err != nil {
		return dst, err
	}
	fields := dst[at:]
	if slot != nil {
		slot.keep(f.scan.text[start:f.scan.pos], fields)
	}
	if field.role == roleProcess {
		binary := fieldText(fields, `,"_process.binary":"`)
		namespace, pod := fieldText(fields, `,"_process.pod.namespace":"`), fieldText(fields, `,"_process.pod.name":"`)
		f.headline.setProcess(fields, binary, namespace, pod)
		if slot != nil {
			slot.binary, slot.namespace, slot.pod = binary, namespace, pod
		}
	}
	return dst, nil
}

func (h *headline) setProcess(fields []byte, binary, namespace, pod span) {
	h.binary, h.namespace, h.pod = binary.of(fields), namespace.of(fields), pod.of(fields)
}
