package bench

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

// This file is the rival that a careful engineer writes by hand for two kinds of
// events: structs of its own, which are used again for each event, a decoder with
// a switch for each message, strings that point into the message, and a writer
// that appends. It knows the fields that occur in process_exec and process_kprobe
// of recording a, and refuses others.

var errHandmade = errors.New("bench: a field that the handmade decoder does not know")

// handEvent is a GetEventsResponse.
type handEvent struct {
	kind            uint64 // number of the member
	process, parent handProcess
	hasParent       bool
	ancestors       []handProcess
	function        []byte
	args            []handArg
	returned        handArg
	hasReturn       bool
	action          uint64
	policy          []byte
	returnAction    uint64
	message         []byte
	tags            [][]byte
	node, cluster   []byte
	at              handTime
}

type handTime struct {
	set           bool
	seconds, nano int64
}

type handUint struct {
	set   bool
	value uint32
}

type handProcess struct {
	execID, cwd, binary, arguments, flags, docker, parentExecID []byte
	pid, uid, auid, tid                                         handUint
	start                                                       handTime
	refcnt                                                      uint32
	hasInit, inInit                                             bool
}

// handArg is a KprobeArgument: the number of its member, and that member.
type handArg struct {
	number   uint64
	text     []byte // string_arg, bytes_arg and the hexadecimal capabilities
	integer  uint64
	strings  [8][]byte // of path, file, sock, skb and binprm, by their order there
	integers [12]uint64
	label    []byte
}

// handReader reads fields.
type handReader struct {
	rest []byte
	bad  bool
}

func (r *handReader) field() (number uint64, kind int, value uint64, bytes []byte) {
	tag, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0, 0, 0, nil
	}
	r.rest = r.rest[n:]
	if kind = int(tag & 7); kind != 0 && kind != 2 {
		r.bad, r.rest = true, nil
		return 0, 0, 0, nil
	}
	if value, n = binary.Uvarint(r.rest); n <= 0 || kind == 2 && value > uint64(len(r.rest)-n) {
		r.bad, r.rest = true, nil
		return 0, 0, 0, nil
	}
	r.rest = r.rest[n:]
	if kind == 2 {
		bytes, r.rest = r.rest[:value], r.rest[value:]
	}
	return tag >> 3, kind, value, bytes
}

func (e *handEvent) decode(wire []byte) error {
	*e = handEvent{ancestors: e.ancestors[:0], args: e.args[:0], tags: e.tags[:0]}
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		number, _, _, bytes := r.field()
		ok := true
		switch number {
		case 1:
			e.kind, ok = 1, e.exec(bytes)
		case 9:
			e.kind, ok = 9, e.kprobe(bytes)
		case 1000:
			e.node = bytes
		case 1001:
			ok = e.at.decode(bytes)
		case 1003:
			e.cluster = bytes
		default:
			ok = false
		}
		if !ok {
			return errHandmade
		}
	}
	if r.bad || e.kind == 0 {
		return errHandmade
	}
	return nil
}

func (e *handEvent) exec(wire []byte) bool {
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		number, _, _, bytes := r.field()
		if !e.common(number, bytes, 3) {
			return false
		}
	}
	return !r.bad
}

// common decodes the processes of a member.
func (e *handEvent) common(number uint64, bytes []byte, ancestors uint64) bool {
	switch number {
	case 1:
		return e.process.decode(bytes)
	case 2:
		e.hasParent = true
		return e.parent.decode(bytes)
	case ancestors:
		e.ancestors = append(e.ancestors, handProcess{})
		return e.ancestors[len(e.ancestors)-1].decode(bytes)
	}
	return false
}

func (e *handEvent) kprobe(wire []byte) bool {
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		number, _, value, bytes := r.field()
		ok := true
		switch number {
		case 3:
			e.function = bytes
		case 4:
			e.args = append(e.args, handArg{})
			ok = e.args[len(e.args)-1].decode(bytes)
		case 5:
			e.hasReturn = true
			ok = e.returned.decode(bytes)
		case 6:
			e.action = value
		case 8:
			e.policy = bytes
		case 9:
			e.returnAction = value
		case 10:
			e.message = bytes
		case 11:
			e.tags = append(e.tags, bytes)
		default:
			ok = e.common(number, bytes, 13)
		}
		if !ok {
			return false
		}
	}
	return !r.bad
}

func (t *handTime) decode(wire []byte) bool {
	t.set = true
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		switch number, _, value, _ := r.field(); number {
		case 1:
			t.seconds = int64(value)
		case 2:
			t.nano = int64(value)
		}
	}
	return !r.bad
}

func (u *handUint) decode(wire []byte) bool {
	u.set = true
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		_, _, value, _ := r.field()
		u.value = uint32(value)
	}
	return !r.bad
}

func (p *handProcess) decode(wire []byte) bool {
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		number, _, value, bytes := r.field()
		ok := true
		switch number {
		case 1:
			p.execID = bytes
		case 2:
			ok = p.pid.decode(bytes)
		case 3:
			ok = p.uid.decode(bytes)
		case 4:
			p.cwd = bytes
		case 5:
			p.binary = bytes
		case 6:
			p.arguments = bytes
		case 7:
			p.flags = bytes
		case 8:
			ok = p.start.decode(bytes)
		case 9:
			ok = p.auid.decode(bytes)
		case 11:
			p.docker = bytes
		case 12:
			p.parentExecID = bytes
		case 13:
			p.refcnt = uint32(value)
		case 16:
			ok = p.tid.decode(bytes)
		case 20:
			var init handUint
			ok = init.decode(bytes)
			p.hasInit, p.inInit = true, init.value != 0
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !r.bad
}

func (a *handArg) decode(wire []byte) bool {
	r := handReader{rest: wire}
	for len(r.rest) > 0 {
		number, _, value, bytes := r.field()
		switch number {
		case 18:
			a.label = bytes
		case 1, 5, 22, 23, 24, 25:
			a.number, a.text = number, bytes
		case 2, 4, 11, 15:
			a.number, a.integer = number, value
		case 3, 6, 7, 9, 26, 30:
			a.number = number
			m := handReader{rest: bytes}
			for len(m.rest) > 0 {
				n, kind, value, bytes := m.field()
				if n > 13 || kind == 2 && handOrder(number, n) > 7 {
					return false
				}
				if kind == 2 {
					a.strings[handOrder(number, n)] = bytes
				} else {
					a.integers[n-1] = value
				}
			}
			if m.bad {
				return false
			}
		default:
			return false
		}
	}
	return !r.bad
}

// handOrder is where the text field of a member is kept.
func handOrder(member, number uint64) uint64 {
	switch {
	case member == 9 && number >= 6: // sock: saddr, daddr, state
		return map[uint64]uint64{6: 3, 7: 4, 11: 5}[number]
	case member == 3: // skb
		return map[uint64]uint64{5: 0, 6: 1, 12: 2, 13: 3}[number]
	}
	return number - 1
}

// handWriter writes JSON.
type handWriter struct{ out []byte }

func (w *handWriter) key(name string) {
	if last := w.out[len(w.out)-1]; last != '{' {
		w.out = append(w.out, ',')
	}
	w.out = append(append(append(w.out, '"'), name...), '"', ':')
}

func (w *handWriter) text(name string, value []byte) {
	if len(value) > 0 {
		w.key(name)
		w.quoted(value)
	}
}

func (w *handWriter) quoted(value []byte) {
	w.out = append(w.out, '"')
	start := 0
	for i, c := range value {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		w.out = append(w.out, value[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			w.out = append(w.out, '\\', c)
		case '\n':
			w.out = append(w.out, `\n`...)
		case '\r':
			w.out = append(w.out, `\r`...)
		case '\t':
			w.out = append(w.out, `\t`...)
		case '\b':
			w.out = append(w.out, `\b`...)
		case '\f':
			w.out = append(w.out, `\f`...)
		default:
			const hex = "0123456789abcdef"
			w.out = append(w.out, `\u00`...)
			w.out = append(w.out, hex[c>>4], hex[c&15])
		}
	}
	w.out = append(append(w.out, value[start:]...), '"')
}

func (w *handWriter) number(name string, value uint64) {
	if value != 0 {
		w.key(name)
		w.out = strconv.AppendUint(w.out, value, 10)
	}
}

func (w *handWriter) wrapped(name string, u handUint) {
	if u.set {
		w.key(name)
		w.out = strconv.AppendUint(w.out, uint64(u.value), 10)
	}
}

func (w *handWriter) time(name string, t handTime) {
	if !t.set {
		return
	}
	w.key(name)
	at := time.Unix(t.seconds, t.nano).UTC()
	w.out = append(w.out, '"')
	w.out = at.AppendFormat(w.out, "2006-01-02T15:04:05")
	switch {
	case t.nano == 0:
	case t.nano%1_000_000 == 0:
		w.out = at.AppendFormat(w.out, ".000")
	case t.nano%1_000 == 0:
		w.out = at.AppendFormat(w.out, ".000000")
	default:
		w.out = at.AppendFormat(w.out, ".000000000")
	}
	w.out = append(w.out, 'Z', '"')
}

func (w *handWriter) process(name string, p *handProcess) {
	w.key(name)
	w.fields(p)
}

func (w *handWriter) fields(p *handProcess) {
	w.out = append(w.out, '{')
	w.text("exec_id", p.execID)
	w.wrapped("pid", p.pid)
	w.wrapped("uid", p.uid)
	w.text("cwd", p.cwd)
	w.text("binary", p.binary)
	w.text("arguments", p.arguments)
	w.text("flags", p.flags)
	w.time("start_time", p.start)
	w.wrapped("auid", p.auid)
	w.text("docker", p.docker)
	w.text("parent_exec_id", p.parentExecID)
	w.number("refcnt", uint64(p.refcnt))
	w.wrapped("tid", p.tid)
	if p.hasInit {
		w.key("in_init_tree")
		w.out = strconv.AppendBool(w.out, p.inInit)
	}
	w.out = append(w.out, '}')
}

func (w *handWriter) arg(a *handArg) {
	w.out = append(w.out, '{')
	switch a.number {
	case 1, 22, 23, 24, 25: // a member of a oneof is written even if it is empty
		w.key(map[uint64]string{1: "string_arg", 22: "kernel_cap_t_arg", 23: "cap_inheritable_arg", 24: "cap_permitted_arg", 25: "cap_effective_arg"}[a.number])
		w.quoted(a.text)
	case 5:
		w.key("bytes_arg")
		w.out = append(w.out, '"')
		w.out = base64.StdEncoding.AppendEncode(w.out, a.text)
		w.out = append(w.out, '"')
	case 2:
		w.key("int_arg")
		w.out = strconv.AppendInt(w.out, int64(int32(a.integer)), 10)
	case 15:
		w.key("uint_arg")
		w.out = strconv.AppendUint(w.out, uint64(uint32(a.integer)), 10)
	case 4, 11:
		w.key(map[uint64]string{4: "size_arg", 11: "long_arg"}[a.number])
		w.out = append(w.out, '"')
		if a.number == 4 {
			w.out = strconv.AppendUint(w.out, a.integer, 10)
		} else {
			w.out = strconv.AppendInt(w.out, int64(a.integer), 10)
		}
		w.out = append(w.out, '"')
	case 6, 7:
		w.key(map[uint64]string{6: "path_arg", 7: "file_arg"}[a.number])
		w.members(a, "mount", "path", "flags", "permission")
	case 26:
		w.key("linux_binprm_arg")
		w.members(a, "path", "flags", "permission")
	case 30:
		w.key("sockaddr_arg")
		w.out = append(w.out, '{')
		w.text("family", a.strings[0])
		w.text("addr", a.strings[1])
		w.number("port", a.integers[2])
		w.out = append(w.out, '}')
	case 9:
		w.sock(a)
	case 3:
		w.skb(a)
	}
	w.text("label", a.label)
	w.out = append(w.out, '}')
}

func (w *handWriter) members(a *handArg, names ...string) {
	w.out = append(w.out, '{')
	for i, name := range names {
		w.text(name, a.strings[i])
	}
	w.out = append(w.out, '}')
}

func (w *handWriter) sock(a *handArg) {
	w.key("sock_arg")
	w.members(a, "family", "type", "protocol")
	w.out = w.out[:len(w.out)-1]
	w.number("mark", a.integers[3])
	w.number("priority", a.integers[4])
	w.text("saddr", a.strings[3])
	w.text("daddr", a.strings[4])
	w.number("sport", a.integers[7])
	w.number("dport", a.integers[8])
	if a.integers[9] != 0 {
		w.key("cookie")
		w.out = append(w.out, '"')
		w.out = append(strconv.AppendUint(w.out, a.integers[9], 10), '"')
	}
	w.text("state", a.strings[5])
	w.out = append(w.out, '}')
}

func (w *handWriter) skb(a *handArg) {
	w.key("skb_arg")
	w.out = append(w.out, '{')
	for i, name := range []string{"hash", "len", "priority", "mark"} {
		w.number(name, a.integers[i])
	}
	w.text("saddr", a.strings[0])
	w.text("daddr", a.strings[1])
	for i, name := range []string{"sport", "dport", "proto", "sec_path_len", "sec_path_olen"} {
		w.number(name, a.integers[6+i])
	}
	w.text("protocol", a.strings[2])
	w.text("family", a.strings[3])
	w.out = append(w.out, '}')
}

// append appends the event's JSON, or says that its strings are not UTF-8.
func (e *handEvent) append(dst, wire []byte) ([]byte, error) {
	if err := e.decode(wire); err != nil {
		return dst, err
	}
	w := handWriter{out: append(dst, '{')}
	if e.kind == 1 {
		w.key("process_exec")
	} else {
		w.key("process_kprobe")
	}
	w.out = append(w.out, '{')
	w.process("process", &e.process)
	if e.hasParent {
		w.process("parent", &e.parent)
	}
	if e.kind == 9 {
		e.appendKprobe(&w)
	}
	if len(e.ancestors) > 0 {
		w.key("ancestors")
		w.out = append(w.out, '[')
		for i := range e.ancestors {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.fields(&e.ancestors[i])
		}
		w.out = append(w.out, ']')
	}
	w.out = append(w.out, '}')
	w.text("node_name", e.node)
	w.time("time", e.at)
	w.text("cluster_name", e.cluster)
	w.out = append(w.out, '}')
	if !utf8.Valid(w.out[len(dst):]) {
		return dst, errHandmade
	}
	return w.out, nil
}

func (e *handEvent) appendKprobe(w *handWriter) {
	w.text("function_name", e.function)
	if len(e.args) > 0 {
		w.key("args")
		w.out = append(w.out, '[')
		for i := range e.args {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.arg(&e.args[i])
		}
		w.out = append(w.out, ']')
	}
	if e.hasReturn {
		w.key("return")
		w.arg(&e.returned)
	}
	w.enum("action", e.action)
	w.text("policy_name", e.policy)
	w.enum("return_action", e.returnAction)
	w.text("message", e.message)
	if len(e.tags) > 0 {
		w.key("tags")
		w.out = append(w.out, '[')
		for i, tag := range e.tags {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.quoted(tag)
		}
		w.out = append(w.out, ']')
	}
}

func (w *handWriter) enum(name string, value uint64) {
	if value != 0 {
		w.key(name)
		w.out = append(append(append(w.out, '"'), tetragon.KprobeAction_name[int32(value)]...), '"')
	}
}
