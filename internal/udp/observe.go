package udp

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

// SndbufErrors returns how many datagrams of UDP, IPv4 and IPv6, this network
// namespace could not send for want of room: in a socket's send buffer, or, seen
// through IP_RECVERR or not, in a device's queue. Unit: datagrams, or messages
// of several segments. Scope: all sockets of the namespace. It only grows.
func SndbufErrors() (uint64, error) {
	four, err4 := counter("/proc/thread-self/net/snmp", "Udp:", "SndbufErrors")
	six, err6 := counter("/proc/thread-self/net/snmp6", "", "Udp6SndbufErrors")
	if err4 != nil && err6 != nil {
		return 0, errors.Join(err4, err6)
	}
	return four + six, nil
}

var errNoCounter = errors.New("udp: the kernel's table has no such counter")

// counter reads one of the kernel's counters. The tables have either a line of
// names and a line of values that begin with prefix, or a name and a value a
// line.
func counter(file, prefix, name string) (uint64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case prefix == "" && len(fields) == 2 && fields[0] == name:
			return strconv.ParseUint(fields[1], 10, 64)
		case prefix != "" && fields[0] == prefix && names == nil:
			names = fields
		case prefix != "" && fields[0] == prefix:
			for i, n := range names {
				if n == name && i < len(fields) {
					return strconv.ParseUint(fields[i], 10, 64)
				}
			}
		}
	}
	return 0, errNoCounter
}
