package transcode

// Where the arguments of a hook stand, and in a KprobeArgument a socket and a packet,
// tetragon/tetragon.proto of Tetragon v1.7.1.
const (
	kprobeArgs     = 4
	tracepointArgs = 6
	argPacket      = 3 // KprobeSkb
	argSocket      = 9 // KprobeSock
)

// Endpoints shows match the two ends of each socket and each packet among the arguments
// of a kprobe or tracepoint, in a member that [KindOf] returned, until it says yes, and
// returns whether it did. The addresses are texts that point into the member; empty: the
// event has none. It does not allocate, and looks at nothing else. A member that is
// malformed has no more ends than those before the fault.
func Endpoints(kind Kind, member []byte, match func(source, destination []byte, sourcePort, destinationPort uint32) bool) bool {
	var args uint32
	switch kind {
	case KindProcessKprobe:
		args = kprobeArgs
	case KindProcessTracepoint:
		args = tracepointArgs
	default:
		return false
	}
	for i := 0; i < len(member); {
		number, _, argument, end := next(member, i)
		if i = end; i < 0 {
			return false
		}
		if number != args {
			continue
		}
		for k := 0; k < len(argument); {
			number, _, ends, end := next(argument, k)
			if k = end; k < 0 {
				return false
			}
			first := uint32(6) // of source, destination and their ports, in KprobeSock
			switch number {
			case argSocket:
			case argPacket:
				first = 5
			default:
				continue
			}
			if matches(ends, first, match) {
				return true
			}
		}
	}
	return false
}

// matches shows match the ends in a KprobeSock or KprobeSkb.
func matches(wire []byte, first uint32, match func(source, destination []byte, sourcePort, destinationPort uint32) bool) bool {
	var source, destination []byte
	var sourcePort, destinationPort uint32
	for i := 0; i < len(wire); {
		number, x, v, end := next(wire, i)
		if i = end; i < 0 {
			return false
		}
		switch number {
		case first:
			source = v
		case first + 1:
			destination = v
		case first + 2:
			sourcePort = uint32(x)
		case first + 3:
			destinationPort = uint32(x)
		}
	}
	return match(source, destination, sourcePort, destinationPort)
}
