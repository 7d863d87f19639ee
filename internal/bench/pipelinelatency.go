package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/exporter"
)

// The latencies are those of events in batches, as a source has them that reads each
// millisecond, after a while in which caches and memory become warm.
const (
	latencyBatch  = 20
	latencyWarmUp = time.Second
)

// latencyTable measures, in this process, the time from an event being handed to
// the exporter, as a source does, to its datagram being in the kernel, which stamps
// it, at 20,000 events a second. The floor is what the machine adds by itself.
func latencyTable(ctx context.Context, recording namedEvents, options PipelineOptions) (PipelineTable, error) {
	t := PipelineTable{Title: "event handed over to datagram in the kernel, 20,000 events a second in batches of a millisecond, " + recording.name}
	const packed = "p99 under 6,000 us: the flush interval and 1 ms"
	rows := []struct {
		name, goal string
		open       func(to string) (latencySender, error)
		numbers    func(payload []byte, note func(number uint64)) error
	}{
		{"floor: bytes as long, a write each", "", openBare(recording.events), bareNumber},
		{"export, json", "p99 under 1,000 us", openExport("json"), lineNumbers},
		{"export, ndjson", packed, openExport("ndjson"), lineNumbers},
		{"export, frame", packed, openExport("frame"), frameNumbers()},
	}
	times := make([][]time.Duration, len(rows))
	for range options.Rounds {
		for i, row := range rows {
			more, err := latencies(ctx, row.open, row.numbers, recording.events, options.Window)
			if err != nil {
				return t, fmt.Errorf("bench: %s: %w", row.name, err)
			}
			times[i] = append(times[i], more...)
		}
	}
	for i, row := range rows {
		us := func(share float64) float64 { return float64(quantile(times[i], share).Nanoseconds()) / 1000 }
		t.Rows = append(t.Rows, PipelineRow{Name: row.name, Goal: row.goal, EventsASec: float64(len(times[i])) / float64(options.Rounds) / options.Window.Seconds(),
			LatencyP50: us(0.5), LatencyP99: us(0.99), LatencyP999: us(0.999)})
	}
	return t, nil
}

// latencySender is what events are handed to, number 1 first.
type latencySender struct {
	send  func(batch [][]byte) error
	close func() error
}

// openExport makes an exporter, with a worker in the background.
func openExport(format string) func(to string) (latencySender, error) {
	return func(to string) (s latencySender, err error) {
		options := exporter.Destination{MaxShared: datagram.DefaultFrameDatagram, JSONSequence: format != "frame"}
		destination, err := exporter.ParseDestination(format+"://"+to, options)
		if err != nil {
			return s, err
		}
		destination.GSO = "off" // so that the receiver gets datagrams
		if format == "frame" {
			destination.MaxDatagram = datagram.DefaultFrameDatagram
		}
		out, err := exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{destination}, StatsInterval: -1, MetadataInterval: -1})
		if err != nil {
			return s, err
		}
		ended := make(chan error, 1)
		go func() { ended <- out.Run(context.Background()) }()
		return latencySender{out.SendBatch, func() error { return errors.Join(out.Close(), <-ended) }}, nil
	}
}

// openBare sends as many bytes as the events' JSON has, of which the first say the
// number.
func openBare(events [][]byte) func(to string) (latencySender, error) {
	return func(to string) (s latencySender, err error) {
		lines, err := linesOf(events)
		if err != nil {
			return s, err
		}
		conn, err := net.Dial("udp4", to)
		if err != nil {
			return s, err
		}
		var number uint64
		payload := make([]byte, datagram.MaxPayload)
		return latencySender{func(batch [][]byte) error {
			for range batch {
				number++
				binary.BigEndian.PutUint64(payload, number)
				if _, err := conn.Write(payload[:len(lines[number%uint64(len(lines))])]); err != nil {
					return err
				}
			}
			return nil
		}, conn.Close}, nil
	}
}

func bareNumber(payload []byte, note func(number uint64)) error {
	note(binary.BigEndian.Uint64(payload))
	return nil
}

func lineNumbers(payload []byte, note func(number uint64)) error {
	for p, err := range datagram.UnpackNDJSON(payload) {
		if err != nil {
			return err
		}
		note(p.Mark.Number)
	}
	return nil
}

func frameNumbers() func(payload []byte, note func(number uint64)) error {
	reader := datagram.NewFrameReader(datagram.FrameReaderConfig{})
	return func(payload []byte, note func(number uint64)) error {
		var h datagram.Header
		body, err := reader.Open(payload, &h)
		if err != nil {
			return err
		}
		return reader.Read(&h, body, time.Now(), func(number uint64, _ []byte) {
			if h.Kind == datagram.KindEvent {
				note(number)
			}
		})
	}
}

// latencies sends numbered events and reads when the kernel had each.
func latencies(ctx context.Context, open func(to string) (latencySender, error), numbers func([]byte, func(uint64)) error, events [][]byte, window time.Duration) (times []time.Duration, err error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	})
	if err = errors.Join(err, controlErr); err != nil {
		return nil, fmt.Errorf("a socket that stamps: %w", err)
	}
	out, err := open(conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	var came []datagramAt
	read := make(chan error, 1)
	go func() {
		var err error
		came, err = readStamped(conn)
		read <- err
	}()
	ticks := int((latencyWarmUp + window) / time.Millisecond)
	handed := make([]int64, 1, 1+ticks*latencyBatch) // when event number i was handed over, in nanoseconds since 1970
	batch := make([][]byte, latencyBatch)
	begin := time.Now()
	for tick := range ticks {
		if err = sleep(ctx, time.Until(begin.Add(time.Duration(tick)*time.Millisecond))); err != nil {
			break
		}
		for i := range batch {
			batch[i] = events[(tick*latencyBatch+i)%len(events)]
		}
		now := time.Now().UnixNano()
		for range batch {
			handed = append(handed, now)
		}
		if err = out.send(batch); err != nil {
			break
		}
	}
	err = errors.Join(err, out.close())
	time.Sleep(100 * time.Millisecond) // the reader has all of it
	err = errors.Join(err, conn.Close(), <-read)
	if err != nil {
		return nil, err
	}
	first := uint64(latencyWarmUp / time.Millisecond * latencyBatch)
	for _, d := range came {
		if err := numbers(d.payload, func(number uint64) {
			if number > first && number < uint64(len(handed)) {
				times = append(times, time.Duration(d.ns-handed[number]))
			}
		}); err != nil {
			return nil, err
		}
	}
	if len(times) == 0 {
		return nil, errors.New("no event arrived")
	}
	return times, nil
}

// datagramAt is a payload and when the kernel had it, in nanoseconds since 1970.
type datagramAt struct {
	payload []byte
	ns      int64
}

// readStamped reads until the socket is closed.
func readStamped(conn *net.UDPConn) (came []datagramAt, err error) {
	came = make([]datagramAt, 0, 1<<18)
	arena, control := make([]byte, 256<<20), make([]byte, 256) // taken as it is needed
	for {
		if len(arena) < datagram.MaxPayload {
			return nil, errors.New("more came than there is memory for")
		}
		n, c, _, _, err := conn.ReadMsgUDPAddrPort(arena, control)
		if errors.Is(err, net.ErrClosed) {
			return came, nil
		}
		if err != nil {
			return nil, err
		}
		ns, ok := stampOf(control[:c])
		if !ok {
			return nil, errors.New("the kernel stamped no datagram")
		}
		came = append(came, datagramAt{arena[:n:n], ns})
		arena = arena[n:]
	}
}

// stampOf reads SCM_TIMESTAMPNS, in nanoseconds since 1970; see socket(7).
func stampOf(control []byte) (ns int64, ok bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:])), true
		}
	}
	return 0, false
}
