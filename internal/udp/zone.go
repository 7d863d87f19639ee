package udp

import (
	"net"
	"strconv"
)

// zoneID returns the index of the network device that an IPv6 zone names, or 0.
func zoneID(zone string) uint32 {
	if device, err := net.InterfaceByName(zone); err == nil {
		return uint32(device.Index)
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
