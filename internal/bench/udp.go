package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"tetracast/internal/udp"
)

// UDPOptions says how much bench udp does. Zero values are replaced by the
// defaults of the flags.
type UDPOptions struct {
	Rounds    int // of every row
	Datagrams int // of the run that must lose none
	Rate      int // datagrams a second of that run
	JSON      bool
}

// perRound is how many datagrams a round of sending is.
const perRound = 20_000

// UDP measures the batching sockets beside a Write for each datagram and beside
// C, and writes the tables.
func UDP(ctx context.Context, w io.Writer, options UDPOptions) error {
	rivals, err := buildC(ctx)
	if err != nil {
		return err
	}
	defer rivals.remove()
	var tables []Table
	for _, size := range []int{300, 1000, 1400} {
		table, err := sendTable(ctx, options.Rounds, size, rivals)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	for _, size := range []int{300, 1000, 1400} {
		table, err := receiveTable(ctx, options.Rounds, size, rivals)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	table, err := announceTable(ctx, options.Rounds)
	if err != nil {
		return err
	}
	tables = append(tables, table)
	if err := write(w, options.JSON, tables); err != nil {
		return err
	}
	if options.JSON {
		return nil // the tables are the whole document
	}
	if !rivals.there() {
		fmt.Fprintln(w, "The rows in C are missing: no C compiler is here.")
	}
	if err := latency(ctx, w); err != nil {
		return err
	}
	return lossRun(ctx, w, options)
}

// sendTable measures sending to a socket that nobody reads: the kernel does all
// its work, then drops what the queue has no room for, at one cost for all.
func sendTable(ctx context.Context, rounds, size int, rivals *rivals) (Table, error) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return Table{}, err
	}
	defer func() { _ = sink.Close() }()
	to := sink.LocalAddr().(*net.UDPAddr)
	datagrams := make([][]byte, 64)
	for i := range datagrams {
		datagrams[i] = make([]byte, size)
	}
	naive, err := net.DialUDP("udp4", nil, to)
	if err != nil {
		return Table{}, err
	}
	defer func() { _ = naive.Close() }()
	const floor, segmented = "C sendmmsg", "C sendmmsg x GSO"
	contenders := []*contender{
		{name: "UDPConn.Write", note: "what everybody writes", round: func() (int, time.Duration, error) {
			cpu, err := threadTime(func() error {
				for i := range perRound {
					if _, err := naive.Write(datagrams[i%len(datagrams)]); err != nil {
						return err
					}
				}
				return nil
			})
			return perRound, cpu, err
		}},
	}
	for _, gso := range []udp.Switch{udp.Off, udp.On} {
		conn, err := udp.Dial(to.AddrPort(), udp.Options{GSO: gso, SendBufferBytes: 1 << 20})
		if err != nil {
			return Table{}, err
		}
		defer func() { _ = conn.Close() }()
		c := &contender{name: "ours, no GSO", base: floor, note: "goal: at most 1.15x of C, and 1/1.3 of Write"}
		if gso == udp.On {
			c = &contender{name: "ours, GSO", base: segmented, note: "goal: at most 1.3x of C, and 1/4 of Write"}
		}
		c.round = func() (int, time.Duration, error) {
			cpu, err := threadTime(func() error { return sendRound(conn, datagrams) })
			return perRound, cpu, err
		}
		contenders = append(contenders, c)
	}
	if rivals.there() {
		segments := min(64, 65507/size)
		contenders = append(contenders,
			&contender{name: floor, round: rivals.sender(ctx, size, 1, to.Port)},
			&contender{name: segmented, round: rivals.sender(ctx, size, segments, to.Port)})
	}
	return measure(ctx, fmt.Sprintf("send, %d bytes, on loopback", size), "datagram", rounds, contenders)
}

func sendRound(conn *udp.Conn, datagrams [][]byte) error {
	for sent := 0; sent < perRound; {
		n, err := conn.Send(datagrams[:min(len(datagrams), perRound-sent)])
		sent += n
		if err != nil && !errors.Is(err, udp.ErrWouldBlock) && !errors.Is(err, udp.ErrNoBuffers) {
			return err
		}
	}
	return nil
}

// receiveFill is how many datagrams wait in a socket before it is drained: few
// enough for the buffer that a kernel gives without CAP_NET_ADMIN.
const receiveFill = 2000

// receiveTable measures the draining of a full socket.
func receiveTable(ctx context.Context, rounds, size int, rivals *rivals) (Table, error) {
	datagrams := make([][]byte, 50)
	for i := range datagrams {
		datagrams[i] = make([]byte, size)
	}
	const floor = "C recvmmsg"
	naive, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return Table{}, err
	}
	defer func() { _ = naive.Close() }()
	_ = naive.SetReadBuffer(32 << 20)
	filler, err := newFiller(naive.LocalAddr().(*net.UDPAddr).AddrPort(), udp.Off)
	if err != nil {
		return Table{}, err
	}
	defer filler.close()
	contenders := []*contender{{name: "ReadFromUDPAddrPort", note: "what everybody writes", round: func() (n int, cpu time.Duration, err error) {
		want, err := filler.fill(datagrams)
		if err != nil {
			return 0, 0, err
		}
		buffer := make([]byte, 1<<16)
		cpu, err = threadTime(func() error {
			for n < want {
				_ = naive.SetReadDeadline(time.Now().Add(time.Second))
				for range 500 {
					if _, _, err := naive.ReadFromUDPAddrPort(buffer); err != nil {
						return err
					}
					if n++; n == want {
						break
					}
				}
			}
			return nil
		})
		return n, cpu, err
	}}}
	for _, gro := range []udp.Switch{udp.Off, udp.On} {
		c, closer, err := listenerContender(gro, datagrams, floor)
		if err != nil {
			return Table{}, err
		}
		defer closer()
		contenders = append(contenders, c)
	}
	if rivals.there() {
		c, closer, err := rivals.receiver(ctx, floor, datagrams)
		if err != nil {
			return Table{}, err
		}
		defer closer()
		contenders = append(contenders, c)
	}
	return measure(ctx, fmt.Sprintf("receive, %d bytes, a full socket drained", size), "datagram", rounds, contenders)
}

// listenerContender drains our own listener, with datagrams joined or not.
func listenerContender(gro udp.Switch, datagrams [][]byte, floor string) (*contender, func(), error) {
	l, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: 32 << 20, GRO: gro})
	if err != nil {
		return nil, nil, err
	}
	filler, err := newFiller(l.LocalAddr(), gro)
	if err != nil {
		_ = l.Close()
		return nil, nil, err
	}
	c := &contender{name: "ours, no GRO", base: floor, note: "goal: at most 1.15x of C"}
	if gro == udp.On {
		c = &contender{name: "ours, GRO", base: "ReadFromUDPAddrPort", note: "goal: at most 1/5 of ReadFromUDPAddrPort"}
	}
	c.round = func() (n int, cpu time.Duration, err error) {
		want, err := filler.fill(datagrams)
		if err != nil {
			return 0, 0, err
		}
		cpu, err = threadTime(func() error {
			for n < want {
				batch, err := l.Receive()
				if err != nil {
					return err
				}
				n += len(batch)
			}
			return nil
		})
		return n, cpu, err
	}
	return c, func() { filler.close(); _ = l.Close() }, nil
}

// filler fills a socket's receive queue.
type filler struct{ conn *udp.Conn }

func newFiller(to netip.AddrPort, gso udp.Switch) (filler, error) {
	conn, err := udp.Dial(to, udp.Options{GSO: gso, SendBufferBytes: 1 << 20})
	return filler{conn}, err
}

func (f filler) close() { _ = f.conn.Close() }

func (f filler) fill(datagrams [][]byte) (n int, err error) {
	for n < receiveFill {
		sent, err := f.conn.Send(datagrams)
		n += sent
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
