package exporter

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
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
		setDefault(&c.MaxField, datagram.MaxLuceneField)
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
	if limit = max(limit, datagram.MinFrameDatagram); limit != s.frameLimit {
		s.frameLimit = limit
		s.frame.SetMaxDatagram(limit)
	}
}

// remake makes the frames of b from the given one on anew, if frames are shorter now
// than that one, and returns them with what they hold. An event of which some
// fragments have left cannot be made anew, and is lost.
func (s *stream) remake(b *datagram.Batch, from int, now time.Time) (anew datagram.Batch, ok bool) {
	s.shrunk = true
	s.fitPath(now)
	if len(b.Datagrams[from]) <= s.frameLimit {
		return anew, false // the path's MTU is not what is in the way
	}
	s.refuse(ledger.TooLarge, s.frame.Remake(&anew, b, from))
	return anew, true
}
