package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
)

// recording is a part of the recorded events that was recorded at once.
type recording struct {
	name     string
	all      [][]byte // with those of the other recordings
	from, to int
	goals    map[datagram.Compression]float64 // JSON's bytes by those of frames; none: no goal
}

func (r recording) events() [][]byte { return r.all[r.from:r.to] }

// half returns where its second half begins.
func (r recording) half() int { return (r.from + r.to) / 2 }

// loadRecordings returns recordings a and b of the large corpus, or the sample
// as one where the corpus is not here.
func loadRecordings() ([]recording, error) {
	in, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	path, large := corpus.Path("events.binpb.zst")
	if large {
		in, err = source.OpenRecording(path)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	all, err := allEvents(in)
	if err != nil {
		return nil, err
	}
	if !large {
		return []recording{{name: "the built-in sample", all: all, to: len(all)}}, nil
	}
	const endOfA, endOfB = 15_810, 24_642
	if len(all) < endOfB {
		return nil, fmt.Errorf("bench: %s has %d events, want %d", path, len(all), endOfB)
	}
	return []recording{
		{"recording a", all, 0, endOfA, map[datagram.Compression]float64{datagram.CompressionS2: 13, datagram.CompressionZstd: 19}},
		{"recording b", all, endOfA, endOfB, map[datagram.Compression]float64{datagram.CompressionS2: 34, datagram.CompressionZstd: 38}},
	}, nil
}

// allEvents reads a recording to its end.
func allEvents(in *source.Recording) (all [][]byte, err error) {
	for {
		message, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, bytes.Clone(message))
	}
}

// writeSizes packs the second half of each recording, headers and padding and
// all, and sets the bytes beside those of one JSON event a datagram.
func writeSizes(ctx context.Context, w io.Writer, recordings []recording) error {
	fmt.Fprintln(w, "size, the second half of each recording, frames of 1,232 bytes, headers and padding included")
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "  recording\tcompression\tdictionary\tbytes an event\tevents a frame\tof JSON\tgoal")
	for _, r := range recordings {
		inJSON, err := jsonBytes(r.all[r.half():r.to])
		if err != nil {
			return err
		}
		dictionaries, err := r.dictionaries()
		if err != nil {
			return err
		}
		for _, compression := range []datagram.Compression{datagram.CompressionNone, datagram.CompressionS2, datagram.CompressionZstd} {
			for i, d := range dictionaries {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if compression == datagram.CompressionNone && i > 0 {
					continue
				}
				p, err := newPacker(datagram.FrameConfig{Compression: compression, Dictionary: d.dictionary})
				if err == nil {
					err = p.pack(r.all[r.half():r.to])
				}
				if err != nil {
					return err
				}
				p.frame.Flush(&p.batch)
				p.take()
				events, goal := float64(r.to-r.half()), ""
				if g := r.goals[compression]; g > 0 && d.judged {
					goal = fmt.Sprintf("1/%.0f", g)
				}
				fmt.Fprintf(out, "  %s\t%v\t%s\t%.1f\t%.1f\t1/%.1f\t%s\n", r.name, compression, d.name,
					float64(p.bytes)/events, events*datagram.DefaultFrameDatagram/float64(p.bytes), float64(inJSON)/float64(p.bytes), goal)
			}
		}
	}
	return out.Flush()
}

// trained is a dictionary and what it was trained on.
type trained struct {
	name       string
	dictionary *datagram.Dictionary
	judged     bool // the goals are stated for it
}

// dictionaries returns none, one that has not seen the recording's second half,
// and one that has not seen the recording.
func (r recording) dictionaries() ([]trained, error) {
	list := []trained{{name: "none", dictionary: datagram.NoDictionary}}
	for _, t := range []struct {
		name   string
		from   int
		judged bool
	}{{"without that half", r.half(), true}, {"without that recording", r.from, false}} {
		events := slices.Concat(r.all[:t.from], r.all[r.to:])
		if len(events) == 0 {
			continue // there is no other recording
		}
		content, err := datagram.TrainDictionary(events, datagram.DefaultDictionary)
		if err != nil {
			return nil, err
		}
		d, err := datagram.NewDictionary(content)
		if err != nil {
			return nil, err
		}
		list = append(list, trained{t.name, d, t.judged})
	}
	return list, nil
}

// jsonBytes returns how long the events are as datagrams of the format json.
func jsonBytes(events [][]byte) (bytes int, err error) {
	transcoder, err := exporter.NewTranscoder(exporter.DefaultTranscodeCacheBytes)
	if err != nil {
		return 0, err
	}
	var line []byte
	for _, e := range events {
		if line, _, err = transcoder.Append(line[:0], e); err != nil {
			return 0, err
		}
		bytes += len(line) + 1
	}
	return bytes, nil
}
