package bench

import (
	"context"
	"io"
	"time"

	"tetracast/datagram"
)

// FormatsOptions says how much bench formats does.
type FormatsOptions struct {
	Rounds int    // of every row
	Peers  string // the folder of collectors to compare with; empty: none
	Events int    // that each collector receives in a round
	Rate   int    // events a second to them
	JSON   bool
}

// Formats measures what a format costs beside the transcoding, and what a
// collector of ours takes to write it to a file beside other collectors.
func Formats(ctx context.Context, w io.Writer, options FormatsOptions) error {
	recordings, err := transcodeRecordings("")
	if err != nil {
		return err
	}
	var tables []Table
	for _, r := range recordings[:min(2, len(recordings))] {
		contenders, err := formatContenders(r.events)
		if err != nil {
			return err
		}
		table, err := measure(ctx, "packing, "+r.name, "event", options.Rounds, contenders)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	for _, bursts := range []bool{false, true} {
		table, err := receiverTable(ctx, recordings[0].events, bursts, options)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	return write(w, options.JSON, tables)
}

// formatContenders returns the transcoding alone, and with each format after it.
func formatContenders(events [][]byte) ([]*contender, error) {
	const alone = "transcode"
	gelf := func(c datagram.GELFConfig) (datagram.Packer, error) {
		c.Host, c.MaxDatagram = "edge-node-01", 8192
		return datagram.NewGELF(c)
	}
	flat, err := gelf(datagram.GELFConfig{})
	if err != nil {
		return nil, err
	}
	one, err := gelf(datagram.GELFConfig{Fields: datagram.GELFOne})
	if err != nil {
		return nil, err
	}
	zlib, err := gelf(datagram.GELFConfig{Compression: datagram.GELFZlib})
	if err != nil {
		return nil, err
	}
	contenders := []*contender{{name: alone, note: "the floor: what a format costs is the difference"}}
	for _, f := range []struct {
		name, note string
		packer     datagram.Packer
	}{
		{"json", "goal: at most 100 ns more", datagram.NewJSON(datagram.JSONConfig{})},
		{"json, sequence", "", datagram.NewJSON(datagram.JSONConfig{Sequence: true})},
		{"ndjson, 1232", "goal: at most 100 ns more", datagram.NewNDJSON(datagram.JSONConfig{MaxShared: 1232})},
		{"ndjson, 65507", "goal: at most 100 ns more", datagram.NewNDJSON(datagram.JSONConfig{})},
		{"syslog", "goal: at most 250 ns more", datagram.NewSyslog(datagram.SyslogConfig{Hostname: "edge-node-01", ProcID: "42"})},
		{"gelf, flat", "goal: at most 2x the transcoding more", flat},
		{"gelf, one field", "", one},
		{"gelf, flat, zlib", "", zlib},
	} {
		c, err := formatContender(f.packer, events)
		if err != nil {
			return nil, err
		}
		c.name, c.note, c.base = f.name, f.note, alone
		contenders = append(contenders, c)
	}
	floor, err := formatContender(nil, events)
	if err != nil {
		return nil, err
	}
	contenders[0].round = floor.round
	return contenders, nil
}

// formatContender works as a worker of the exporter does: batches of at most 64
// events and 256 KiB, memory used again.
func formatContender(packer datagram.Packer, events [][]byte) (*contender, error) {
	const batchEvents, batchBytes = 64, 256 << 10
	transcoder, err := newTranscoder()
	if err != nil {
		return nil, err
	}
	keeper, _ := packer.(datagram.Keeper)
	var batch datagram.Batch
	var lines []byte
	var ends []int
	var event datagram.Event
	pass := func() error {
		for i := 0; i < len(events); i += len(ends) {
			lines, ends = lines[:0], ends[:0]
			for _, wire := range events[i:min(i+batchEvents, len(events))] {
				var err error
				if lines, _, err = transcoder.Append(lines, wire); err != nil {
					return err
				}
				lines = append(lines, '\n')
				if ends = append(ends, len(lines)); len(lines) > batchBytes {
					break
				}
			}
			if packer == nil {
				continue
			}
			start := 0
			for k, end := range ends {
				event = datagram.Event{Number: uint64(i + k + 1), Line: lines[start:end], Wire: events[i+k]}
				_ = packer.Pack(&batch, &event) // some are longer than a datagram
				start = end
			}
			if keeper != nil {
				keeper.Keep()
			}
			batch.Reset()
		}
		return nil
	}
	return &contender{round: func() (int, time.Duration, error) {
		cpu, err := threadTime(pass)
		return len(events), cpu, err
	}}, nil
}
