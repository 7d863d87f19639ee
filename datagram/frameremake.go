package datagram

import "time"

// Remake makes the frames of src from the given one on anew, in the size that is set
// now, and adds them to dst. They are frames that this packer made and nobody sent.
// Their events keep their numbers, and the events that wait go on waiting; src stays
// as it is.
//
// It returns how many events could not be made anew: one whose first fragments are
// not in src any more, because they were sent, and one that is too long for the size.
// dst holds all others.
func (f *Frame) Remake(dst, src *Batch, from int) (lost int) {
	group, ends, first, isJSON := f.group, f.ends, f.header.First, f.header.JSON
	f.group, f.ends = nil, nil
	reader := f.reader()
	for at := from; at < len(src.Datagrams); {
		n, _, events := src.Rest(at)
		lost += events - f.remake(dst, reader, src.Datagrams[at:at+n])
		at += n
	}
	f.Flush(dst)
	f.group, f.ends, f.header.First, f.header.JSON = group, ends, first, isJSON
	return lost
}

// remake packs the events of a frame, or of the fragments of one, again, and returns
// how many they are.
func (f *Frame) remake(dst *Batch, reader *FrameReader, frame [][]byte) (events int) {
	var h Header
	for _, d := range frame {
		body, err := reader.Open(d, &h)
		if err != nil || len(frame) < h.Fragment.Total {
			return 0 // its first fragments are gone
		}
		err = reader.Read(&h, body, time.Time{}, func(number uint64, event []byte) {
			e := Event{Number: number, Wire: event}
			if h.JSON {
				e = Event{Number: number, Line: event}
			}
			if f.Pack(dst, &e) == nil {
				events++
			}
		})
		if err != nil {
			return 0
		}
	}
	return events
}

// reader returns what reads the frames that f makes.
func (f *Frame) reader() *FrameReader {
	var c FrameReaderConfig
	if k := f.config.Key; k != nil {
		c.Keys = []*Key{k}
	}
	if d := f.config.Dictionary; d != nil {
		c.Dictionaries = []*Dictionary{d}
	}
	return NewFrameReader(c)
}
