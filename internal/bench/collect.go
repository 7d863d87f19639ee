package bench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/transcode"
)

// CollectOptions says how much bench collect does.
type CollectOptions struct {
	Rounds int // of every row
	Events int // of the run in which each one is accounted for; 0: no such run
	Rate   int // events a second of that run
	JSON   bool
}

// Collect measures a collector from the socket to a file beside the pieces of its
// work, and then has it account for many events. It uses the large corpus where
// it is, else the sample.
func Collect(ctx context.Context, w io.Writer, options CollectOptions) error {
	recordings, err := loadRecordings()
	if err != nil {
		return err
	}
	events := recordings[0].events()
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return fmt.Errorf("bench: making a folder for the output: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	c := &collecting{ctx: ctx, folder: folder}
	if err := c.prepare(events); err != nil {
		return err
	}
	pieces := []*contender{
		{name: "receive", note: "from the socket, and nothing else", round: c.receive},
		{name: "open, decompress", round: c.read},
		{name: "transcode", round: c.transcode},
		{name: "write", note: "the same bytes in blocks of 256 KiB", round: c.write},
	}
	sum := &contender{name: "sum of these"}
	sum.round = func() (int, time.Duration, error) {
		var total float64
		for _, p := range pieces {
			total += p.perUnit[len(p.perUnit)-1]
		}
		return 1000, time.Duration(1000 * total), nil
	}
	whole := &contender{name: "collect", base: "sum of these", note: "frames in, JSON lines to a file out; goal: at most 1.3x", round: c.collect}
	title := "collect, " + recordings[0].name + ", frames of 1,232 bytes, s2"
	table, err := measure(ctx, title, "event", options.Rounds, append(pieces, sum, whole))
	if err != nil {
		return err
	}
	if err := write(w, options.JSON, []Table{table}); err != nil || options.JSON || options.Events == 0 {
		return err
	}
	return accountFor(ctx, w, events, options.Events, options.Rate)
}

// collecting is the work that is measured: frames, what is in them, and the JSON
// of that.
type collecting struct {
	ctx    context.Context
	folder string
	frames [][]byte
	wires  [][]byte
	lines  sink.Batch
}

func (c *collecting) prepare(events [][]byte) error {
	p, err := newPacker(datagram.FrameConfig{Compression: datagram.CompressionS2})
	if err != nil {
		return err
	}
	var b datagram.Batch
	transcoder, err := newTranscoder()
	if err != nil {
		return err
	}
	for i, wire := range events {
		if err := p.frame.Pack(&b, &datagram.Event{Number: uint64(i + 1), Wire: wire}); err != nil {
			return err
		}
		line, _, err := transcoder.Append(nil, wire)
		if err != nil {
			return err
		}
		c.lines.Add(line)
	}
	p.frame.Flush(&b)
	c.frames, c.wires = b.Datagrams, events
	return nil
}

func newTranscoder() (*transcode.Transcoder, error) {
	return exporter.NewTranscoder(exporter.DefaultTranscodeCacheBytes)
}

// fill sends the frames to a socket that nobody reads yet.
func (c *collecting) fill(to netip.AddrPort) error {
	conn, err := udp.Dial(to, udp.Options{SendBufferBytes: 4 << 20})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for rest := c.frames; len(rest) > 0; {
		sent, err := conn.Send(rest[:min(32, len(rest))])
		if rest = rest[sent:]; err != nil {
			return fmt.Errorf("bench: sending frames over loopback: %w", err)
		}
	}
	return nil
}

// receiveBuffer holds all frames at once.
const receiveBuffer = 64 << 20

func (c *collecting) receive() (int, time.Duration, error) {
	in, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: receiveBuffer})
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = in.Close() }()
	if err := c.fill(in.LocalAddr()); err != nil {
		return 0, 0, err
	}
	cpu, err := processTime(func() error {
		for n := 0; n < len(c.frames); {
			_ = in.SetReadDeadline(time.Now().Add(time.Second))
			batch, err := in.Receive()
			if err != nil {
				return err
			}
			n += len(batch)
		}
		return nil
	})
	return len(c.wires), cpu, err
}

func (c *collecting) read() (int, time.Duration, error) {
	reader := datagram.NewFrameReader(datagram.FrameReaderConfig{})
	var h datagram.Header
	take := func(uint64, []byte) {}
	cpu, err := processTime(func() error {
		now := time.Now()
		for _, d := range c.frames {
			body, err := reader.Open(d, &h)
			if err == nil {
				err = reader.Read(&h, body, now, take)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return len(c.wires), cpu, err
}

func (c *collecting) transcode() (int, time.Duration, error) {
	t, err := newTranscoder()
	if err != nil {
		return 0, 0, err
	}
	text := make([]byte, 0, 1<<20)
	cpu, err := processTime(func() error {
		for _, wire := range c.wires {
			if len(text) > 1<<18 {
				text = text[:0]
			}
			var err error
			if text, _, err = t.Append(text, wire); err != nil {
				return err
			}
		}
		return nil
	})
	return len(c.wires), cpu, err
}

func (c *collecting) write() (int, time.Duration, error) {
	out, err := os.Create(filepath.Join(c.folder, "write.jsonl"))
	if err != nil {
		return 0, 0, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = out.Close() }()
	cpu, err := processTime(func() error {
		for rest := c.lines.Text; len(rest) > 0; {
			n, err := out.Write(rest[:min(len(rest), 256<<10)])
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
	return len(c.wires), cpu, err
}

func (c *collecting) collect() (int, time.Duration, error) {
	path := filepath.Join(c.folder, "collect.jsonl")
	_ = os.Remove(path) // it appends
	out, err := sink.OpenFile(sink.FileConfig{Path: path})
	if err != nil {
		return 0, 0, err
	}
	in, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Sink: out, NewTranscoder: newTranscoder,
		ReceiveBufferBytes: receiveBuffer, QueueBytes: 1 << 30, DrainTimeout: time.Minute})
	if err != nil {
		_ = out.Close()
		return 0, 0, err
	}
	if err := c.fill(in.Addr()); err != nil {
		return 0, 0, err
	}
	ended, stop := context.WithCancel(c.ctx)
	stop() // it takes what the socket holds, writes it and ends
	cpu, err := processTime(func() error { return in.Run(ended) })
	if a := in.Account(); err == nil && (a.Delivered != uint64(len(c.wires)) || a.Check() != nil) {
		err = fmt.Errorf("bench: delivered %d of %d events", a.Delivered, len(c.wires))
	}
	return len(c.wires), cpu, err
}

// processTime runs f and returns the processor time, user and system, that this
// process used meanwhile.
func processTime(f func() error) (time.Duration, error) {
	used := func() time.Duration {
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail with these arguments
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	err := f()
	return used() - before, err
}

// accountFor sends many events at a rate from an exporter to a collector, and says
// what became of each.
func accountFor(ctx context.Context, w io.Writer, events [][]byte, count, rate int) error {
	in, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Sink: sink.NewLines(io.Discard), NewTranscoder: newTranscoder})
	if err != nil {
		return err
	}
	out, err := exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{
		{Address: in.Addr().String(), Format: "frame", MaxDatagram: datagram.DefaultFrameDatagram, Compression: datagram.CompressionS2}}})
	if err != nil {
		return err
	}
	collecting, stopCollecting := context.WithCancel(context.WithoutCancel(ctx))
	exporting, stopExporting := context.WithCancel(context.WithoutCancel(ctx))
	collected, exported := make(chan error, 1), make(chan error, 1)
	go func() { collected <- in.Run(collecting) }()
	go func() { exported <- out.Run(exporting) }()
	begin := time.Now()
	cpu, _ := processTime(func() error {
		const tick = 5 * time.Millisecond
		for sent := 0; sent < count && ctx.Err() == nil; {
			due := min(count, int(time.Since(begin).Seconds()*float64(rate)))
			for ; sent < due; sent++ {
				_ = out.SendWire(events[sent%len(events)]) // ErrClosed is in the account
			}
			time.Sleep(tick)
		}
		_ = out.Finish(ctx) // a signal came, perhaps: the account tells
		stopExporting()
		<-exported
		time.Sleep(100 * time.Millisecond) // what is in the socket
		stopCollecting()
		return <-collected
	})
	_ = out.Close()
	e, c := out.Account(), in.Account()
	for _, account := range []error{e.Close(), c.Close()} {
		if account != nil {
			return account
		}
	}
	s := ledger.AgentStream{}
	if len(c.Agents) == 1 && len(c.Agents[0].Streams) == 1 {
		s = c.Agents[0].Streams[0]
	}
	if s.Missing == nil || e.Seen != s.Received+*s.Missing+e.Streams[0].Dropped.Total()+e.Dropped.Total() {
		return fmt.Errorf("bench: seen %d, but received %d and the rest is not accounted for", e.Seen, s.Received)
	}
	fmt.Fprintf(w, "%d events at %d a second: received %d, missing %d, dropped by the exporter %d; every one accounted for; the sockets dropped %d datagrams; both sides %.2f us of processor time an event\n",
		e.Seen, rate, s.Received, *s.Missing, e.Seen-e.Streams[0].Sent, c.Observed.SocketDropped, float64(cpu.Microseconds())/float64(max(1, e.Seen)))
	return nil
}
