package transcode

import "time"

// KindOf returns the kind of the GetEventsResponse in wire, and the bytes of its
// member of the oneof, which point into wire. It looks at the message's own
// fields and not into them, at a tenth of what [Scan] costs. The kind is 0 where
// there is none that is known, or the message is malformed.
func KindOf(wire []byte) (kind Kind, member []byte) {
	for i := 0; i < len(wire); {
		number, _, v, end := next(wire, i)
		if end < 0 {
			return 0, nil
		}
		i = end
		if isEvent(number) {
			kind, member = Kind(number), v // of several the last one counts
		}
	}
	return kind, member
}

// TimeOf returns when an event happened, by its host's clock, and false if it does
// not say. It looks at the outermost fields alone.
func TimeOf(wire []byte) (at time.Time, ok bool) {
	var s Summary
	for i := 0; i < len(wire); {
		number, _, v, end := next(wire, i)
		if end < 0 || number == fieldTime && !s.scanTime(v) {
			return time.Time{}, false
		}
		i = end
	}
	return time.Unix(s.Seconds, int64(s.Nanos)), s.HasTime
}

// fieldTime is GetEventsResponse.time, tetragon/events.proto of Tetragon v1.7.0.
const fieldTime = 1001

// eventKinds has the bit of each kind whose number is below 64.
const eventKinds = 1<<KindProcessExec | 1<<KindProcessExit | 1<<KindProcessKprobe | 1<<KindProcessTracepoint | 1<<KindProcessLoader |
	1<<KindProcessUprobe | 1<<KindProcessThrottle | 1<<KindProcessLsm | 1<<KindProcessUsdt

// isEvent says whether the field number is that of a kind.
func isEvent(number uint32) bool {
	return number < 64 && eventKinds>>number&1 != 0 || number == uint32(KindTest) || number == uint32(KindRateLimitInfo)
}

// ProcessOf returns pid and binary of the process in a member that [KindOf]
// returned, for kinds that have a process. It stops looking behind the binary:
// what a marshaller writes after it is not seen, so the answer can be used to leave
// no more than a first doubt.
func ProcessOf(kind Kind, member []byte) (pid uint32, hasPID bool, binary []byte) {
	process := kind.layout().process
	for i := 0; i < len(member) && process != 0; {
		number, _, v, end := next(member, i)
		if end < 0 {
			return 0, false, nil
		}
		i = end
		if number != process {
			continue
		}
		var s Summary
		for k := 0; k < len(v) && len(s.Binary) == 0; {
			number, _, inner, end := next(v, k)
			if end < 0 {
				return 0, false, nil
			}
			k = end
			switch number {
			case 2:
				if !s.scanPID(inner) {
					return 0, false, nil
				}
			case 5:
				s.Binary = inner
			}
		}
		return s.PID, s.HasPID, s.Binary
	}
	return 0, false, nil
}
