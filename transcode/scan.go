package transcode

import "strconv"

// Kind is the kind of an event: the field number of its member of the oneof
// GetEventsResponse.event. 0 means none that is known.
type Kind uint16

// Kinds of events, tetragon/events.proto of Tetragon v1.7.0.
const (
	KindProcessExec       Kind = 1
	KindProcessExit       Kind = 5
	KindProcessKprobe     Kind = 9
	KindProcessTracepoint Kind = 10
	KindProcessLoader     Kind = 11
	KindProcessUprobe     Kind = 12
	KindProcessThrottle   Kind = 27
	KindProcessLsm        Kind = 28
	KindProcessUsdt       Kind = 29
	KindTest              Kind = 40000
	KindRateLimitInfo     Kind = 40001
)

// String returns the name of the member, such as process_exec.
func (k Kind) String() string {
	switch k {
	case 0:
		return "unknown"
	case KindProcessExec:
		return "process_exec"
	case KindProcessExit:
		return "process_exit"
	case KindProcessKprobe:
		return "process_kprobe"
	case KindProcessTracepoint:
		return "process_tracepoint"
	case KindProcessLoader:
		return "process_loader"
	case KindProcessUprobe:
		return "process_uprobe"
	case KindProcessThrottle:
		return "process_throttle"
	case KindProcessLsm:
		return "process_lsm"
	case KindProcessUsdt:
		return "process_usdt"
	case KindTest:
		return "test"
	case KindRateLimitInfo:
		return "rate_limit_info"
	}
	return strconv.Itoa(int(k))
}

// Action is the number of a KprobeAction, 0 if the event has none.
type Action int32

// ActionPost is KPROBE_ACTION_POST: the policy only reports.
const ActionPost Action = 1

// Summary is what decides an event's way: enough to tell lanes, exclude the
// exporter's own events and label a datagram. All slices point into the bytes
// given to [Scan], are empty where the event says nothing, and are not checked
// for valid UTF-8.
type Summary struct {
	Kind    Kind
	Action  Action
	HasTime bool
	Seconds int64 // since 1970, of the event's time
	Nanos   int32
	HasPID  bool
	PID     uint32 // in the host's pid namespace

	ExecID []byte
	Binary []byte
	Docker []byte // container id, its first 31 characters

	PodNamespace []byte
	PodName      []byte
	PodUID       []byte

	Policy    []byte
	Function  []byte // kprobe, lsm: function; tracepoint: event; uprobe: symbol; usdt: name
	Subsystem []byte // tracepoint
	Node      []byte
}

// layout says under which numbers a kind keeps what Summary wants; 0: nowhere.
type layout struct {
	process, policy, action, function, subsystem uint32
}

func (k Kind) layout() layout {
	switch k {
	case KindProcessExec, KindProcessExit, KindProcessLoader:
		return layout{process: 1}
	case KindProcessKprobe:
		return layout{process: 1, policy: 8, action: 6, function: 3}
	case KindProcessTracepoint:
		return layout{process: 1, policy: 7, action: 8, function: 5, subsystem: 4}
	case KindProcessUprobe:
		return layout{process: 1, policy: 5, action: 12, function: 4}
	case KindProcessLsm:
		return layout{process: 1, policy: 5, action: 8, function: 3}
	case KindProcessUsdt:
		return layout{process: 1, policy: 6, action: 11, function: 5}
	}
	return layout{}
}

// Scan reads the summary of the GetEventsResponse in wire without transcoding.
//
// It does not allocate. Parts of the message that Summary does not show are not
// looked into. The error is [ErrMalformed]; the Summary is then zero.
func Scan(wire []byte) (Summary, error) {
	var s Summary
	if !s.scanEvent(wire) {
		return Summary{}, ErrMalformed
	}
	return s, nil
}

// next reads the field at wire[i:]: its number, and its value as x or v.
func next(wire []byte, i int) (number uint32, x uint64, v []byte, end int) {
	if end = short(wire, i); end > 0 {
		return uint32(wire[i] >> 3), 0, wire[i+2 : end], end
	}
	tag, i := fieldTag(wire, i)
	if i < 0 {
		return 0, 0, nil, -1
	}
	switch tag & 7 {
	case wireBytes:
		v, i = chunk(wire, i)
	case wireVarint:
		x, i = uvarint1(wire, i)
	default:
		return 0, 0, nil, skip(wire, i, tag) // no field of Summary has such a type
	}
	return tag >> 3, x, v, i
}

func (s *Summary) scanEvent(wire []byte) bool {
	for i := 0; i < len(wire); {
		number, _, v, end := next(wire, i)
		if end < 0 {
			return false
		}
		i = end
		switch {
		case number == 1000:
			s.Node = v
		case number == fieldTime:
			if !s.scanTime(v) {
				return false
			}
		case isEvent(number):
			if s.Kind != Kind(number) { // another member replaces the one before
				*s = Summary{Kind: Kind(number), HasTime: s.HasTime, Seconds: s.Seconds, Nanos: s.Nanos, Node: s.Node}
			}
			if !s.scanKind(v) {
				return false
			}
		}
	}
	return true
}

func (s *Summary) scanTime(wire []byte) bool {
	s.HasTime = true
	for i := 0; i < len(wire); {
		number, x, _, end := next(wire, i)
		if end < 0 {
			return false
		}
		i = end
		switch number {
		case 1:
			s.Seconds = int64(x)
		case 2:
			s.Nanos = int32(x)
		}
	}
	return true
}

func (s *Summary) scanKind(wire []byte) bool {
	l := s.Kind.layout()
	for i := 0; i < len(wire); {
		number, x, v, end := next(wire, i)
		if end < 0 {
			return false
		}
		i = end
		switch number {
		case 0:
		case l.process:
			if !s.scanProcess(v) {
				return false
			}
		case l.policy:
			s.Policy = v
		case l.action:
			s.Action = Action(int32(x))
		case l.function:
			s.Function = v
		case l.subsystem:
			s.Subsystem = v
		}
	}
	return true
}

func (s *Summary) scanProcess(wire []byte) bool {
	for i := 0; i < len(wire); {
		number, _, v, end := next(wire, i)
		if end < 0 {
			return false
		}
		i = end
		switch number {
		case 1:
			s.ExecID = v
		case 2:
			if !s.scanPID(v) {
				return false
			}
		case 5:
			s.Binary = v
		case 10:
			if !s.scanPod(v) {
				return false
			}
		case 11:
			s.Docker = v
		}
	}
	return true
}

// scanPID reads the UInt32Value of a pid.
func (s *Summary) scanPID(wire []byte) bool {
	s.HasPID = true
	for i := 0; i < len(wire); {
		number, x, _, end := next(wire, i)
		if i = end; i < 0 {
			return false
		}
		if number == 1 {
			s.PID = uint32(x)
		}
	}
	return true
}

func (s *Summary) scanPod(wire []byte) bool {
	for i := 0; i < len(wire); {
		number, _, v, end := next(wire, i)
		if end < 0 {
			return false
		}
		i = end
		switch number {
		case 1:
			s.PodNamespace = v
		case 2:
			s.PodName = v
		case 3:
			s.PodUID = v
		}
	}
	return true
}
