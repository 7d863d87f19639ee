package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
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
	if err := systemCalls(ctx, w); err != nil {
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
	figures := figures{}
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
		c := &contender{name: "ours, no GSO", base: floor, note: "goals: at most 1.15x of C, 1.3x as fast as Write"}
		if gso == udp.On {
			c = &contender{name: "ours, GSO", base: segmented, note: "goals: at most 1.3x of C, 4x as fast as Write"}
		}
		figures[c.name] = func() string {
			s := conn.Stats()
			return fmt.Sprintf("%.3f system calls a datagram", float64(s.Calls)/float64(s.Datagrams))
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
	table, err := measure(ctx, fmt.Sprintf("send, %d bytes, on loopback", size), "datagram", rounds, contenders)
	figures.note(&table)
	return table, err
}

// figures says, for the rows of those names, what stands in their notes beside
// the goals.
type figures map[string]func() string

// note fills the notes. Every row behind the first says how it compares with
// that one, C's rows too: what C has no more of is the kernel's to give.
func (f figures) note(table *Table) {
	for i := 1; i < len(table.Rows); i++ {
		naive, row := &table.Rows[0], &table.Rows[i]
		parts := []string{fmt.Sprintf("%.2fx as fast as %s", naive.MedianNS/row.MedianNS, naive.Name)}
		if figure := f[row.Name]; figure != nil {
			parts = append(parts, figure())
		}
		if row.Note != "" {
			parts = append(parts, row.Note)
		}
		row.Note = strings.Join(parts, "; ")
	}
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
	figures := figures{}
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
		c, figure, closer, err := listenerContender(gro, datagrams, floor)
		if err != nil {
			return Table{}, err
		}
		defer closer()
		contenders, figures[c.name] = append(contenders, c), figure
	}
	if rivals.there() {
		c, closer, err := rivals.receiver(ctx, floor, datagrams)
		if err != nil {
			return Table{}, err
		}
		defer closer()
		contenders = append(contenders, c)
	}
	table, err := measure(ctx, fmt.Sprintf("receive, %d bytes, a full socket drained", size), "datagram", rounds, contenders)
	figures.note(&table)
	return table, err
}

// listenerContender drains our own listener, with datagrams joined or not. The
// figure is how much of the receive buffer the datagrams of a round took.
func listenerContender(gro udp.Switch, datagrams [][]byte, floor string) (c *contender, figure func() string, closer func(), err error) {
	l, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: 32 << 20, GRO: gro})
	if err != nil {
		return nil, nil, nil, err
	}
	filler, err := newFiller(l.LocalAddr(), gro)
	if err != nil {
		_ = l.Close()
		return nil, nil, nil, err
	}
	c = &contender{name: "ours, no GRO", base: floor, note: "goal: at most 1.15x of C"}
	if gro == udp.On {
		c = &contender{name: "ours, GRO", base: "ReadFromUDPAddrPort", note: "goal: 5x as fast as ReadFromUDPAddrPort"}
	}
	var waiting, used, size int
	c.round = func() (n int, cpu time.Duration, err error) {
		want, err := filler.fill(datagrams)
		if err != nil {
			return 0, 0, err
		}
		waiting = want
		used, size = l.Queue()
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
	figure = func() string {
		return fmt.Sprintf("%d of %d KiB of receive buffer used by %d", used>>10, size>>10, waiting)
	}
	return c, figure, func() { filler.close(); _ = l.Close() }, nil
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
