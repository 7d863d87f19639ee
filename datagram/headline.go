package datagram

import (
	"time"

	"tetracast/transcode"
)

// headline is what a JSON line says first to a person: the texts between the
// quotes, still escaped as JSON has it. They are slices of the line.
type headline struct {
	kind       []byte // the name of the kind, or of the record: agent_init
	binary     []byte
	namespace  []byte // of the pod
	pod        []byte
	policy     []byte
	action     []byte
	function   []byte // what was hooked, or the path that was loaded
	subsystem  []byte
	time       []byte
	throttling []byte // whether it begins or ends
}

// note says where a member's text stands in a headline.
type note uint8

const (
	noteNothing note = iota
	noteKind
	noteTime
	notePolicy
	noteAction
	noteFunction
	notePath // the function, if there is nothing better
	noteSubsystem
	noteThrottling
	noteBinary
	noteNamespace
	notePod
)

// noteOf returns the note of a member of the event, or of one beside it or of a
// record.
func noteOf(key []byte, ofEvent bool) note {
	if !ofEvent {
		switch string(key) {
		case "time", "@timestamp":
			return noteTime
		case "event":
			return noteKind
		}
		return noteNothing
	}
	switch string(key) {
	case "policy_name":
		return notePolicy
	case "action":
		return noteAction
	case "function_name", "event", "symbol", "name", "cgroup":
		return noteFunction
	case "path":
		return notePath
	case "subsys":
		return noteSubsystem
	case "type":
		return noteThrottling
	}
	return noteNothing
}

// noteOfProcess returns the note of a member of the event's process or of that
// one's pod.
func noteOfProcess(key []byte, inPod bool) note {
	switch {
	case inPod && string(key) == "namespace":
		return noteNamespace
	case inPod && string(key) == "name":
		return notePod
	case !inPod && string(key) == "binary":
		return noteBinary
	}
	return noteNothing
}

// note takes a text.
func (h *headline) note(n note, text []byte) {
	switch n {
	case noteKind:
		h.kind = text
	case noteTime:
		h.time = text
	case notePolicy:
		h.policy = text
	case noteAction:
		h.action = text
	case noteFunction:
		h.function = text
	case notePath:
		if h.function == nil {
			h.function = text
		}
	case noteSubsystem:
		h.subsystem = text
	case noteThrottling:
		h.throttling = text
	case noteBinary:
		h.binary = text
	case noteNamespace:
		h.namespace = text
	case notePod:
		h.pod = text
	}
}

// member moves to the value of an object's next member and returns its key,
// still escaped. first says that the object's brace comes next. more is false
// at the object's end, which is then behind s.pos.
func (s *scanner) member(first bool) (key []byte, more bool, err error) {
	s.space()
	if s.pos == len(s.text) {
		return nil, false, ErrCutOff
	}
	c := s.text[s.pos]
	s.pos++
	switch {
	case first && c == '{':
		s.space()
		if s.pos < len(s.text) && s.text[s.pos] == '}' {
			s.pos++
			return nil, false, nil
		}
	case !first && c == '}':
		return nil, false, nil
	case first || c != ',':
		return nil, false, ErrNotJSON
	}
	s.space()
	if s.pos == len(s.text) {
		return nil, false, ErrCutOff
	}
	if s.text[s.pos] != '"' {
		return nil, false, ErrNotJSON
	}
	start := s.pos + 1
	if err := s.string(); err != nil {
		return nil, false, err
	}
	key = s.text[start : s.pos-1]
	s.space()
	if s.pos < len(s.text) && s.text[s.pos] != ':' {
		return nil, false, ErrNotJSON
	}
	s.pos++
	s.space()
	if s.pos >= len(s.text) {
		return nil, false, ErrCutOff
	}
	return key, true, nil
}

// skip scans a value and returns the text of a string, nil of anything else.
func (s *scanner) skip() ([]byte, error) {
	start := s.pos
	if err := s.value(); err != nil {
		return nil, err
	}
	if s.text[start] != '"' {
		return nil, nil
	}
	return s.text[start+1 : s.pos-1], nil
}

// members calls take for each member of the object at hand, at its value. take moves
// behind that.
func (s *scanner) members(take func(key []byte) error) error {
	for first := true; ; first = false {
		key, more, err := s.member(first)
		if err != nil || !more {
			return err
		}
		if err := take(key); err != nil {
			return err
		}
	}
}

// readHeadline reads a line, an event or a record.
func readHeadline(line []byte) (h headline, err error) {
	s := scanner{text: line}
	err = s.members(func(key []byte) error {
		if s.text[s.pos] == '{' && isKind(key) {
			h.kind = key
			return h.readKind(&s)
		}
		return h.take(&s, noteOf(key, false))
	})
	return h, err
}

func (h *headline) readKind(s *scanner) error {
	return s.members(func(key []byte) error {
		if string(key) == "process" && s.text[s.pos] == '{' {
			return h.readProcess(s, false)
		}
		return h.take(s, noteOf(key, true))
	})
}

// readProcess reads a process, or the pod in it.
func (h *headline) readProcess(s *scanner, inPod bool) error {
	return s.members(func(key []byte) error {
		if !inPod && string(key) == "pod" && s.text[s.pos] == '{' {
			return h.readProcess(s, true)
		}
		return h.take(s, noteOfProcess(key, inPod))
	})
}

// take notes the value at hand, if it is a text.
func (h *headline) take(s *scanner, n note) error {
	text, err := s.skip()
	h.note(n, text)
	return err
}

// summarize reads from a line what [transcode.Scan] reads from an event's
// bytes, as far as syslog needs it: kind, action and time. What cannot be read
// stays zero.
func summarize(line []byte) transcode.Summary {
	h, _ := readHeadline(line)
	s := transcode.Summary{Kind: kindNamed(h.kind), Action: actionNamed(h.action)}
	var t time.Time
	if len(h.time) > 0 && t.UnmarshalText(h.time) == nil {
		s.HasTime, s.Seconds, s.Nanos = true, t.Unix(), int32(t.Nanosecond())
	}
	return s
}

// kinds are those that have a name.
var kinds = [...]transcode.Kind{
	transcode.KindProcessExec, transcode.KindProcessExit, transcode.KindProcessKprobe, transcode.KindProcessTracepoint,
	transcode.KindProcessLoader, transcode.KindProcessUprobe, transcode.KindProcessThrottle, transcode.KindProcessLsm,
	transcode.KindProcessUsdt, transcode.KindTest, transcode.KindRateLimitInfo,
}

// kindNamed is the reverse of the kind's String.
func kindNamed(name []byte) transcode.Kind {
	for _, kind := range kinds {
		if kind.String() == string(name) {
			return kind
		}
	}
	return 0
}

// actionNamed reads the name that protojson writes for an action, as far as it
// has a severity of its own.
func actionNamed(name []byte) transcode.Action {
	switch string(name) {
	case "KPROBE_ACTION_SIGKILL":
		return actionSigkill
	case "KPROBE_ACTION_OVERRIDE":
		return actionOverride
	case "KPROBE_ACTION_GETURL":
		return actionGetURL
	case "KPROBE_ACTION_DNSLOOKUP":
		return actionDNSLookup
	case "KPROBE_ACTION_SIGNAL":
		return actionSignal
	case "KPROBE_ACTION_NOTIFYENFORCER":
		return actionNotifyEnforcer
	}
	return transcode.ActionPost
}

// recordName returns the name that a metadata record goes by.
func recordName(record []byte) string {
	switch recordKind(trimLine(record)) {
	case KindAgentInit:
		return "agent_init"
	case KindAgentStats:
		return "agent_stats"
	}
	return "unknown"
}
