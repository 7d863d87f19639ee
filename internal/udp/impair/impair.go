// Package impair is a network that behaves badly on purpose: a UDP proxy that
// drops, duplicates, reorders and corrupts what passes it, by a seed, and keeps
// the truth of what it did. It stands where this kernel has no netem, between an
// exporter and a collector in tests.
//
// The decisions depend on the seed and on the order of the datagrams alone, so
// a run can be repeated.
package impair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"tetracast/internal/udp"
)

// Config says what happens to a datagram. Shares are from 0 to 1; the zero
// value passes everything on as it came.
type Config struct {
	Seed uint64
	// Drop, Duplicate and Corrupt are the shares of datagrams that vanish, that
	// come twice, and in which one bit is flipped. At most one of them happens to
	// a datagram.
	Drop, Duplicate, Corrupt float64
	// Reorder is the share of datagrams that are held back until ReorderBy later
	// ones have passed, or until nothing comes for a moment.
	Reorder   float64
	ReorderBy int
	// Watch, if set, is told of each datagram how often it is passed on: 0, 1 or
	// 2 times, and whether it is so in another form than it came. The bytes are
	// valid during the call.
	Watch func(datagram []byte, times int, corrupted bool)
}

// Truth is what a proxy did, in datagrams.
type Truth struct {
	Received   uint64
	Missed     uint64 // dropped by the proxy's own socket, which was too slow for them
	Dropped    uint64
	Duplicated uint64
	Corrupted  uint64
	Reordered  uint64
	Passed     uint64 // to the other side, duplicates included
}

// Proxy passes datagrams on to one address. Make one with [New], then Run it.
type Proxy struct {
	config atomic.Pointer[Config]
	random *rand.Rand
	in     *udp.Listener
	out    *udp.Conn
	truth  Truth
	held   []held
}

// held is a datagram that waits for others to overtake it.
type held struct {
	payload []byte
	after   int // how many more have to pass
}

// quiet is how long nothing must come until what is held is let go.
const quiet = 20 * time.Millisecond

// New listens on a free port of loopback and connects to destination. It starts
// no goroutine.
func New(destination netip.AddrPort, config Config) (*Proxy, error) {
	in, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: 32 << 20})
	if err != nil {
		return nil, fmt.Errorf("impair: %w", err)
	}
	out, err := udp.Dial(destination, udp.Options{SendBufferBytes: 4 << 20, GSO: udp.Off})
	if err != nil {
		_ = in.Close()
		return nil, fmt.Errorf("impair: %w", err)
	}
	p := &Proxy{random: rand.New(rand.NewPCG(config.Seed, 0)), in: in, out: out}
	p.Set(config)
	return p, nil
}

// Set changes what happens to the datagrams from now on; the seed stays. It is
// safe for concurrent use.
func (p *Proxy) Set(config Config) { p.config.Store(&config) }

// Addr returns the address to send to.
func (p *Proxy) Addr() netip.AddrPort { return p.in.LocalAddr() }

// Run passes datagrams on until ctx ends and what waits in the socket has
// passed. It closes the sockets and returns what it did.
func (p *Proxy) Run(ctx context.Context) (Truth, error) {
	defer func() { _ = p.in.Close(); _ = p.out.Close() }()
	// A busy machine can let a deadline pass before the socket was looked at.
	for empty := 0; ; empty++ {
		_ = p.in.SetReadDeadline(time.Now().Add(quiet))
		batch, err := p.in.Receive()
		for _, d := range batch {
			empty = 0
			if err := p.pass(d.Payload); err != nil {
				return p.truth, err
			}
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return p.truth, fmt.Errorf("impair: %w", err)
		default:
			if err := p.release(true); err != nil || ctx.Err() != nil && empty >= 3 {
				p.truth.Missed = uint64(p.in.Dropped())
				return p.truth, err
			}
		}
	}
}

// pass decides what becomes of a datagram.
func (p *Proxy) pass(payload []byte) error {
	p.truth.Received++
	c, fate := p.config.Load(), p.random.Float64()
	reorder := p.random.Float64() < c.Reorder
	times, corrupted := 1, false
	switch {
	case fate < c.Drop:
		times = 0
	case fate < c.Drop+c.Duplicate:
		times = 2
	case fate < c.Drop+c.Duplicate+c.Corrupt && len(payload) > 0:
		corrupted = true
	}
	if c.Watch != nil {
		c.Watch(payload, times, corrupted)
	}
	switch {
	case times == 0:
		p.truth.Dropped++
		return p.release(false)
	case times == 2:
		p.truth.Duplicated++
		if err := p.send(payload); err != nil {
			return err
		}
	case corrupted:
		p.truth.Corrupted++
		payload = append([]byte(nil), payload...)
		payload[p.random.IntN(len(payload))] ^= 1 << p.random.IntN(8)
	}
	if reorder {
		p.truth.Reordered++
		p.held = append(p.held, held{payload: append([]byte(nil), payload...), after: 1 + p.random.IntN(max(1, c.ReorderBy))})
		return nil
	}
	if err := p.send(payload); err != nil {
		return err
	}
	return p.release(false)
}

// release lets go what has been overtaken often enough, or all of it.
func (p *Proxy) release(all bool) error {
	kept := p.held[:0]
	for _, h := range p.held {
		if h.after--; h.after > 0 && !all {
			kept = append(kept, h)
			continue
		}
		if err := p.send(h.payload); err != nil {
			return err
		}
	}
	p.held = kept
	return nil
}

// send waits for room: the proxy itself must lose nothing.
func (p *Proxy) send(payload []byte) error {
	for {
		_, err := p.out.Send([][]byte{payload})
		if errors.Is(err, udp.ErrWouldBlock) || errors.Is(err, udp.ErrNoBuffers) {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err == nil {
			p.truth.Passed++
		}
		return err
	}
}
