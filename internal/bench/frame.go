package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/s2"

	"tetracast/datagram"
)

// FrameOptions says how much bench frame does.
type FrameOptions struct {
	Rounds int // of every row
	JSON   bool
}

// Frame measures the packing and reading of frames, and how long they get, and
// writes the tables. It uses the large corpus where it is, else the sample.
func Frame(ctx context.Context, w io.Writer, options FrameOptions) error {
	recordings, err := loadRecordings()
	if err != nil {
		return err
	}
	events := recordings[0].events()
	pack, err := packTable(ctx, options.Rounds, recordings[0], events)
	if err != nil {
		return err
	}
	read, err := readTable(ctx, options.Rounds, recordings[0], events)
	if err != nil {
		return err
	}
	seal, err := sealTable(ctx, options.Rounds)
	if err != nil {
		return err
	}
	if err := write(w, options.JSON, []Table{pack, read, seal}); err != nil || options.JSON {
		return err
	}
	return writeSizes(ctx, w, recordings)
}

// perBatch is how many events are packed before their datagrams are taken.
const perBatch = 128

// packer packs the same events again and again, as one stream.
type packer struct {
	frame  *datagram.Frame
	batch  datagram.Batch
	event  datagram.Event
	number uint64
	bytes  int // of datagrams
}

func newPacker(c datagram.FrameConfig) (*packer, error) {
	c.Stream, c.Pad = 1, true
	frame, err := datagram.NewFrame(c)
	return &packer{frame: frame}, err
}

// pack packs the events once.
func (p *packer) pack(events [][]byte) error {
	for i, wire := range events {
		p.number++
		p.event = datagram.Event{Number: p.number, Wire: wire}
		if err := p.frame.Pack(&p.batch, &p.event); err != nil {
			return err
		}
		if i%perBatch == perBatch-1 {
			p.take()
		}
	}
	p.take()
	return nil
}

func (p *packer) take() {
	for _, d := range p.batch.Datagrams {
		p.bytes += len(d)
	}
	p.batch.Reset()
}

// packTable measures packing beside a copy of each event.
func packTable(ctx context.Context, rounds int, recording recording, events [][]byte) (Table, error) {
	const floor = "copy of each event"
	dst := make([]byte, 0, 1<<20)
	contenders := []*contender{{name: floor, note: "floor", round: func() (int, time.Duration, error) {
		cpu, err := threadTime(func() error {
			for _, e := range events {
				dst = append(dst[:0], e...)
			}
			return nil
		})
		return len(events), cpu, err
	}}}
	for _, row := range []struct {
		compression datagram.Compression
		goal        string
	}{{datagram.CompressionNone, "goal: at most 100 ns, 0 allocations"}, {datagram.CompressionS2, "goal: at most 1,000 ns, 1.2 compressions a group"}, {datagram.CompressionZstd, ""}} {
		c, err := packContender(row.compression, row.goal, floor, events)
		if err != nil {
			return Table{}, err
		}
		contenders = append(contenders, c)
	}
	contenders = append(contenders, &contender{name: "s2, each event alone", note: "what grouping saves", base: "frame, s2", round: func() (int, time.Duration, error) {
		cpu, err := threadTime(func() error {
			for _, e := range events {
				dst = s2.Encode(dst[:cap(dst)], e)
			}
			return nil
		})
		return len(events), cpu, err
	}})
	return measure(ctx, "pack, "+recording.name, "event", rounds, contenders)
}

func packContender(compression datagram.Compression, goal, base string, events [][]byte) (*contender, error) {
	p, err := newPacker(datagram.FrameConfig{Compression: compression})
	if err != nil {
		return nil, err
	}
	if err := p.pack(events); err != nil { // buffers grow, the dictionary's tables are made
		return nil, err
	}
	c := &contender{name: "frame, " + compression.String(), base: base}
	c.round = func() (int, time.Duration, error) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu, err := threadTime(func() error { return p.pack(events) })
		runtime.ReadMemStats(&after)
		c.note = fmt.Sprintf("%.4f allocations", float64(after.Mallocs-before.Mallocs)/float64(len(events)))
		if s := p.frame.Stats(); s.Groups > 0 {
			c.note += fmt.Sprintf(", %.2f compressions a group", float64(s.Compressions)/float64(s.Groups))
		}
		if goal != "" {
			c.note += "; " + goal
		}
		return len(events), cpu, err
	}
	return c, nil
}

// readTable measures the way back.
func readTable(ctx context.Context, rounds int, recording recording, events [][]byte) (Table, error) {
	var contenders []*contender
	for _, compression := range []datagram.Compression{datagram.CompressionNone, datagram.CompressionS2, datagram.CompressionZstd} {
		frame, err := datagram.NewFrame(datagram.FrameConfig{Compression: compression})
		if err != nil {
			return Table{}, err
		}
		var batch datagram.Batch
		for i, e := range events {
			if err := frame.Pack(&batch, &datagram.Event{Number: uint64(i) + 1, Wire: e}); err != nil {
				return Table{}, err
			}
		}
		frame.Flush(&batch)
		reader := datagram.NewFrameReader(datagram.FrameReaderConfig{})
		got := 0
		take := func(uint64, []byte) { got++ }
		var header datagram.Header
		contenders = append(contenders, &contender{name: "open and read, " + compression.String(), base: "open and read, none", round: func() (int, time.Duration, error) {
			got = 0
			now := time.Now()
			cpu, err := threadTime(func() error {
				for _, d := range batch.Datagrams {
					body, err := reader.Open(d, &header)
					if err == nil {
						err = reader.Read(&header, body, now, take)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if got != len(events) {
				return 0, 0, fmt.Errorf("%d events came of %d", got, len(events))
			}
			return got, cpu, err
		}})
	}
	return measure(ctx, "read, "+recording.name, "event", rounds, contenders)
}

// sealTable measures what sealing costs a full frame.
func sealTable(ctx context.Context, rounds int) (Table, error) {
	const unsealed = "full frame, not sealed"
	events := make([][]byte, 20_000)
	for i := range events {
		events[i] = make([]byte, 1100) // one fills a frame of 1,232 bytes, header, salt and tag and all
		binary.BigEndian.PutUint64(events[i], uint64(i))
	}
	contenders := []*contender{}
	for _, row := range []struct {
		name string
		key  *datagram.Key
	}{{unsealed, nil}, {"full frame, sealed", datagram.NewKey([datagram.KeyBytes]byte{1})}} {
		p, err := newPacker(datagram.FrameConfig{Key: row.key})
		if err != nil {
			return Table{}, err
		}
		c := &contender{name: row.name}
		if row.key != nil {
			c.base, c.note = unsealed, "goal: at most 600 ns more than not sealed"
		}
		c.round = func() (int, time.Duration, error) {
			cpu, err := threadTime(func() error { return p.pack(events) })
			return len(events), cpu, err
		}
		contenders = append(contenders, c)
	}
	return measure(ctx, "seal, frames of 1,232 bytes", "frame", rounds, contenders)
}
