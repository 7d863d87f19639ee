package rival

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/klauspost/compress/s2"

	"tetracast/datagram"
	"tetracast/internal/udp"
)

// frameOverhead is what a frame of ours carries beside its compressed events, about:
// header, sums and check.
const frameOverhead = 52

// batchFrames is how many frames the floor sends at once: as many as go into one
// message with segmentation offload, 65,507 bytes.
const batchFrames = datagram.MaxPayload / datagram.DefaultFrameDatagram

// floor compresses groups that become about as long as a frame may be, by what the
// group before became, and sends them as datagrams of one size.
func floor(ctx context.Context, c Config, seen *atomic.Uint64) error {
	to, err := netip.ParseAddrPort(c.Destination)
	if err != nil {
		return err
	}
	out, err := udp.Dial(to, udp.Options{GSO: udp.On, SendBufferBytes: 1 << 20})
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	in, err := subscribe(ctx, c.Server)
	if err != nil {
		return err
	}
	defer in.close()
	const room = datagram.DefaultFrameDatagram - frameOverhead
	dictionary := s2.MakeDict(datagram.BuiltinDictionary().Content(), nil)
	var frames [batchFrames][]byte
	for i := range frames {
		frames[i] = make([]byte, datagram.DefaultFrameDatagram)
	}
	group, block := make([]byte, 0, 1<<16), make([]byte, s2.MaxEncodedLen(1<<16))
	want, filled := 16*room, 0
	pack := func() {
		if len(group) == 0 {
			return
		}
		if n := s2.MaxEncodedLen(len(group)); n > len(block) {
			block = make([]byte, n)
		}
		compressed := dictionary.Encode(block, group)
		want = min(len(group)*room/max(1, len(compressed)), 1<<16)
		for done := 0; done < len(compressed); done += room {
			copy(frames[filled][frameOverhead:], compressed[done:])
			if filled++; filled == batchFrames {
				_, _ = out.Send(frames[:])
				filled = 0
			}
		}
		group = group[:0]
	}
	return in.read(func(batch [][]byte) error {
		for _, message := range batch {
			if len(group)+len(message) > want {
				pack()
			}
			group = append(group, message...)
		}
		seen.Add(uint64(len(batch)))
		return nil
	})
}
