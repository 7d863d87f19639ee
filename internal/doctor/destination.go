package doctor

import (
	"context"
	"fmt"
	"time"

	"tetracast/exporter"
)

// resolveTime is how long a name may take.
const resolveTime = 5 * time.Second

// destination looks at the way to a destination: name, route, path MTU, offload, buffer.
func destination(ctx context.Context, d exporter.Destination) []Finding {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	way, err := d.Reach(ctx)
	if err != nil {
		return []Finding{{Fault, d.Address, err.Error(), "events wait in the queue until the name resolves and there is a route"}}
	}
	offload := "off"
	if way.Socket.GSO {
		offload = "on"
	}
	path := Finding{Fine, d.Address, fmt.Sprintf("%s, %s, path MTU %d, segmentation offload %s", way.Format, way.Addr, way.Socket.MTU, offload), ""}
	if way.PathPayload > 0 && way.MaxDatagram > way.PathPayload && way.Format != "frame" { // frames follow the path
		path.Verdict = Note
		path.Found += fmt.Sprintf(", datagrams up to %d", way.MaxDatagram)
		path.Advice = fmt.Sprintf("longer than %d they travel as IP fragments, of which firewalls and busy receivers lose some: --fragments never, or --max-datagram", way.PathPayload)
	}
	all := []Finding{path}
	if got := way.SendBufferBytes / 2; got < way.UDPBufferSize {
		all = append(all, Finding{Note, d.Address, fmt.Sprintf("send buffer of %d bytes, asked for %d", got, way.UDPBufferSize),
			fmt.Sprintf("sysctl -w net.core.wmem_max=%d", way.UDPBufferSize)})
	}
	return all
}
