package exporter

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/metadata"
	"tetracast/transcode"
)

// newPacker returns what makes the datagrams of a stream.
func newPacker(s *stream, d Destination, host metadata.Facts) (datagram.Packer, error) {
	lines := datagram.JSONConfig{Stream: s.id, MaxDatagram: d.MaxDatagram, MaxShared: d.MaxShared, Sequence: d.JSONSequence}
	switch d.Format {
	case "json":
		return datagram.NewJSON(lines), nil
	case "ndjson":
		return datagram.NewNDJSON(lines), nil
	case "gelf":
		c := d.GELF
		c.Stream, c.MaxDatagram = s.id, d.MaxDatagram
		setDefault(&c.Host, host.Hostname)
		if d.MetadataCompression != "" {
			compression, err := datagram.ParseGELFCompression(d.MetadataCompression)
			if err != nil {
				return nil, err
			}
			c.RecordCompression = &compression
		}
		return datagram.NewGELF(c)
	case "syslog":
		c := d.Syslog
		c.Stream, c.MaxDatagram = s.id, d.MaxDatagram
		setDefault(&c.Hostname, host.Hostname)
		setDefault(&c.ProcID, strconv.Itoa(host.PID))
		c.Now = time.Now
		if d.LocalTime && c.Zone == nil {
			c.Zone = time.Local
		}
		return datagram.NewSyslog(c), nil
	}
	c := datagram.FrameConfig{
		Stream:      s.id,
		MaxDatagram: d.MaxDatagram,
		Compression: d.Compression,
		Dictionary:  d.Dictionary,
		JSON:        d.FrameJSON,
		Key:         d.Key,
		Pad:         s.GSO != "off",
	}
	if d.MetadataCompression != "" {
		compression, err := datagram.ParseCompression(d.MetadataCompression)
		if err != nil {
			return nil, err
		}
		c.RecordCompression = &compression
	}
	return datagram.NewFrame(c)
}

// setLimits fills in the sizes that were not asked for. One whole event may take
// what a datagram can; what packs several events, or cuts one into chunks of its
// own, stays below the least MTU of IPv6, so that no path cuts it into IP
// fragments, but on loopback.
func (d *Destination) setLimits() {
	packed := packedDatagram(d.Address)
	if d.MaxShared == 0 && d.MaxDatagram == 0 {
		d.MaxShared = packed
	}
	if d.MaxDatagram == 0 {
		d.MaxDatagram = datagram.MaxPayload
		if d.Format == "gelf" || d.Format == "frame" && !d.RouteMTU {
			d.MaxDatagram = packed
		}
	}
	if d.NoFragments && d.Format != "frame" { // which are never cut
		d.MaxDatagram = min(d.MaxDatagram, packed)
	}
	setDefault(&d.MaxShared, d.MaxDatagram)
}

// packedDatagram is the size that passes every path to the address whole.
func packedDatagram(address string) int {
	if addr, err := netip.ParseAddrPort(address); err == nil && addr.Addr().IsLoopback() {
		return datagram.MaxPayload
	}
	return datagram.DefaultFrameDatagram
}

// needsLine says whether the stream sends events as JSON.
func (s *stream) needsLine() bool { return s.frame == nil || s.FrameJSON }

// setSums gives the packer the figures for the datagrams to come.
func (s *stream) setSums(in *intake) {
	if s.frame != nil {
		s.frame.SetSums(s.sums(in))
	}
	if s.stamper != nil {
		s.stamper.SetDropped(s.sums(in).Dropped)
	}
}

// shorten packs a form of the event that fits, which says what it lacks. event
// holds it afterwards.
func (s *stream) shorten(event *datagram.Event, t *transcode.Transcoder) error {
	limiter, ok := s.packer.(datagram.Limiter)
	if !ok {
		return datagram.ErrOversize
	}
	limit := limiter.MaxLine(event)
	line, _, err := t.AppendLineMax(s.batch.Grow(max(limit, 0))[:0], bytes.TrimSuffix(event.Line, []byte{'\n'}), limit-1)
	if err != nil || len(line) >= limit {
		return datagram.ErrOversize
	}
	event.Line = append(line, '\n')
	if err := s.packer.Pack(&s.batch, event); err != nil {
		return err
	}
	s.counts.truncated++
	return nil
}

// fitPath brings the frames' size to what the path takes: the configured one, or
// less since a datagram was refused for its size.
func (s *stream) fitPath(now time.Time) {
	conn, ok := s.conn.(*udp.Conn)
	if !ok || s.frame == nil {
		return
	}
	limit := s.MaxDatagram
	if path := conn.MaxPayload(now); path > 0 && (s.shrunk || s.RouteMTU) {
		limit = min(path, s.MaxDatagram)
		s.shrunk = limit < s.MaxDatagram
	}
	if limit != s.frameLimit {
		s.frameLimit = limit
		s.frame.SetMaxDatagram(limit)
	}
}

// repack makes the frames of b from the given one on anew, in the size that the
// path has now, and returns them with what they hold, or false if the first of
// them cannot be made anew. The events keep their numbers. What they hold beside
// events becomes due again.
func (s *stream) repack(b *datagram.Batch, from int, now time.Time) (anew datagram.Batch, ok bool) {
	if s.frame == nil {
		return anew, false
	}
	s.shrunk = true
	before := s.frameLimit
	s.fitPath(now)
	if s.frameLimit >= before || s.frameLimit >= len(b.Datagrams[from]) {
		return anew, false // the path's MTU is not what is in the way
	}
	config := datagram.FrameReaderConfig{}
	if s.Key != nil {
		config.Keys = []*datagram.Key{s.Key}
	}
	if s.Dictionary != nil {
		config.Dictionaries = []*datagram.Dictionary{s.Dictionary}
	}
	reader := datagram.NewFrameReader(config)
	s.frame.Flush(&anew) // what waits has the highest numbers, but no frame of the old size
	events := 0
	for i := from; i < len(b.Datagrams); i++ {
		var h datagram.Header
		body, err := reader.Open(b.Datagrams[i], &h)
		if err == nil {
			err = reader.Read(&h, body, now, func(number uint64, event []byte) {
				switch {
				case h.Kind == datagram.KindAgentInit:
					s.announceNow()
				case h.Kind == datagram.KindAgentStats:
					s.statsDue = now
				case h.JSON:
					err = errors.Join(err, s.frame.Pack(&anew, &datagram.Event{Number: number, Line: event}))
					events++
				default:
					err = errors.Join(err, s.frame.Pack(&anew, &datagram.Event{Number: number, Wire: event}))
					events++
				}
			})
		}
		if err != nil {
			return anew, false
		}
	}
	s.frame.Flush(&anew)
	want := 0
	for _, n := range b.Events[from:] {
		want += n
	}
	return anew, events == want // fewer: some fragments of an event have left already
}
