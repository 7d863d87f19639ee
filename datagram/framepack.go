package datagram

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// FrameConfig is the configuration of a [Frame].
type FrameConfig struct {
	// Stream names the sequence: 64 random bits, drawn anew by each process for
	// each destination.
	Stream uint64
	// MaxDatagram bounds a frame, in bytes, [MinFrameDatagram] to [MaxPayload];
	// 0: [DefaultFrameDatagram].
	MaxDatagram int
	// Compression of the bodies.
	Compression Compression
	// RecordCompression is that of agent_init; nil: Compression.
	RecordCompression *Compression
	// Dictionary to compress with; nil: the built-in one, [NoDictionary]: none.
	Dictionary *Dictionary
	// JSON sends an event's Line; else its Wire, and the Line of an event that
	// has no Wire.
	JSON bool
	// Key to seal with; nil: frames are not sealed.
	Key *Key
	// Pad makes full frames MaxDatagram bytes long, so that segmentation offload
	// can carry a row of them. One that is less than three quarters full, for the
	// next event is long, stays as it is.
	Pad bool
}

// worthPadding is how much of a frame padding may be: one part in so many.
const worthPadding = 4

// Frame packs events into frames as docs/frame.md has them. It implements
// [Packer] and keeps events until a frame is full, or [Frame.Flush] says that
// it is not worth waiting.
//
// It copies the events it is given and builds the datagrams in the batch's own
// memory. It has one owner and does not allocate once its buffers have grown.
type Frame struct {
	config FrameConfig
	header Header // of the next frame: what does not change from one to the next
	aead   cipher.AEAD
	nonce  [12]byte
	squeezer

	record    recordForm // the body of the record prepared
	agentInit *squeezer  // of agent_init

	next   uint64 // one more than the highest number that is in a frame
	group  []byte // the items that wait, as in a body
	ends   []int  // where in group each of them ends
	target int    // so many bytes of group are likely to fill a frame
	most   int    // so many events may be in one
}

// NewFrame returns a packer for one stream. The error says which field of the
// configuration is out of its range.
func NewFrame(c FrameConfig) (*Frame, error) {
	var salt [saltBytes]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand, Go 1.24)
	return newFrame(c, salt)
}

func newFrame(c FrameConfig, salt [saltBytes]byte) (*Frame, error) {
	if c.MaxDatagram == 0 {
		c.MaxDatagram = DefaultFrameDatagram
	}
	if c.MaxDatagram < MinFrameDatagram || c.MaxDatagram > MaxPayload {
		return nil, fmt.Errorf("datagram: frames of at most %d bytes: want %d to %d", c.MaxDatagram, MinFrameDatagram, MaxPayload)
	}
	if c.Compression >= numCompressions {
		return nil, fmt.Errorf("datagram: unknown %v", c.Compression)
	}
	f := &Frame{config: c, next: 1, header: Header{Stream: c.Stream, Datagram: 1, First: 1, JSON: c.JSON}}
	if err := f.init(c.Compression, c.Dictionary); err != nil {
		return nil, err
	}
	f.agentInit = &f.squeezer
	if r := c.RecordCompression; r != nil && *r != c.Compression {
		if *r >= numCompressions {
			return nil, fmt.Errorf("datagram: unknown %v of records", *r)
		}
		f.agentInit = &squeezer{}
		if err := f.agentInit.init(*r, c.Dictionary); err != nil {
			return nil, err
		}
	}
	if c.Key != nil {
		f.aead = c.Key.stream(c.Stream, salt[:])
		f.header.Sealed, f.header.KeyID, f.header.Host, f.header.salt = true, c.Key.id, c.Key.host, salt
	}
	f.header.HasDictionary, f.header.Dictionary = f.squeezer.named()
	f.SetMaxDatagram(c.MaxDatagram)
	return f, nil
}

// SetSums sets the figures that the frames made from now on carry.
func (f *Frame) SetSums(s Sums) { f.header.Sums = s }

// SetRecord sets the digest of the agent_init that the frames made from now on
// belong to.
func (f *Frame) SetRecord(digest uint64) { f.header.Record = digest }

// SetMaxDatagram bounds the frames made from now on. It brings the value into
// the range of [FrameConfig].
func (f *Frame) SetMaxDatagram(bytes int) {
	f.config.MaxDatagram = min(max(bytes, MinFrameDatagram), MaxPayload)
	room := f.room(&f.header)
	f.target, f.most = f.squeezer.target(room), itemAllowance(room)
}

// Waiting returns how many events wait for a datagram that later ones share.
func (f *Frame) Waiting() int { return len(f.ends) }

// Keep implements [Keeper]. There is nothing to do: Pack copies.
func (f *Frame) Keep() {}

// PackStatistics says how well bodies were sized: a group that is compressed
// more than once was cut wrong.
type PackStatistics struct {
	Groups       uint64 // bodies that were compressed
	Compressions uint64 // that it took to make them
}

// Stats returns the statistics since the packer was made.
func (f *Frame) Stats() PackStatistics { return PackStatistics{f.groups, f.attempts} }

// Pack keeps the event, and puts the frames that are full into b.
func (f *Frame) Pack(b *Batch, event *Event) error {
	item, isJSON := event.Wire, false
	if f.config.JSON || item == nil {
		item, isJSON = event.Line, true
		if n := len(item); n > 0 && item[n-1] == '\n' {
			item = item[:n-1]
		}
	}
	if len(item) > MaxFrameEvent || len(item) > maxFragments*(f.config.MaxDatagram-maxOverhead-len(f.header.Host)) {
		return ErrOversize
	}
	if event.Number != f.header.First+uint64(len(f.ends)) || isJSON != f.header.JSON {
		f.Flush(b)
		f.header.First, f.header.JSON = event.Number, isJSON
	}
	if f.compression == CompressionNone && len(f.ends) > 0 && len(f.group)+len(item)+4 > f.target {
		f.emit(b, true) // without the event, which would have to be moved to the next frame
	}
	f.group = binary.AppendUvarint(f.group, uint64(len(item)))
	f.group = append(f.group, item...)
	f.ends = append(f.ends, len(f.group))
	for len(f.group) > f.target || len(f.ends) >= f.most {
		if !f.emit(b, true) {
			break
		}
	}
	return nil
}

// Flush puts the events that wait into b.
func (f *Frame) Flush(b *Batch) {
	for len(f.ends) > 0 {
		f.emit(b, false)
	}
}

// PackRecord puts an agent_init into b: JSON, and one newline. Events that wait
// go on waiting.
func (f *Frame) PackRecord(b *Batch, record []byte) {
	if !f.record.is(record) {
		f.packOwn(b, KindAgentInit, record, false)
		return
	}
	h := f.ownHeader(KindAgentInit, f.agentInit, false)
	f.emitBody(b, &h, f.record.form, f.record.compression, f.record.least)
}

// PrepareRecord implements [Preparer]: a prepared record is compressed already.
func (f *Frame) PrepareRecord(record []byte) {
	text := trimLine(record)
	item := append(binary.AppendUvarint(nil, uint64(len(text))), text...)
	body, compression := f.agentInit.whole(item)
	f.record = recordForm{of: bytes.Clone(record), form: bytes.Clone(body), compression: compression,
		least: leastSize(KindAgentInit, len(item), 1)}
}

// PackStats puts an agent_stats into b: JSON, and perhaps one newline. With
// goodbye the stream ends: the events that wait are put into b before it.
func (f *Frame) PackStats(b *Batch, stats []byte, goodbye bool) {
	if goodbye {
		f.Flush(b)
	}
	f.packOwn(b, KindAgentStats, stats, goodbye)
}

func (f *Frame) packOwn(b *Batch, kind Kind, text []byte, goodbye bool) {
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	s := &f.squeezer
	if kind == KindAgentInit {
		s = f.agentInit
	}
	h := f.ownHeader(kind, s, goodbye)
	// The item is made behind the events that wait, and taken away again.
	waiting := len(f.group)
	f.group = append(binary.AppendUvarint(f.group, uint64(len(text))), text...)
	item := f.group[waiting:]
	body, compression := s.whole(item)
	f.emitBody(b, &h, body, compression, leastSize(kind, len(item), 1))
	f.group = f.group[:waiting]
}

// ownHeader is the header of what the agent says about itself.
func (f *Frame) ownHeader(kind Kind, s *squeezer, goodbye bool) Header {
	h := f.header
	h.Kind, h.Goodbye, h.JSON, h.First = kind, goodbye, true, f.next
	h.HasDictionary, h.Dictionary = s.named()
	return h
}

// emit makes a frame of the first events that wait, or as many fragments as the
// first of them needs. Where more says that others follow it returns false if
// they should be waited for.
func (f *Frame) emit(b *Batch, more bool) bool {
	h := f.header
	h.Kind, h.Count = KindEvent, len(f.ends)
	room := f.room(&h)
	n, body, compression := f.fit(f.group, f.ends, room, more)
	f.target, f.most = f.squeezer.target(room), itemAllowance(room)
	switch {
	case n == notFull:
		return false
	case n == 0:
		n, h.Count = 1, 1
		f.emitItem(b, &h, f.group[:f.ends[0]])
	default:
		h.Count = n
		f.write(b, &h, body, compression, leastSize(KindEvent, f.ends[n-1], n), f.config.Pad && more && room-len(body) <= room/worthPadding)
	}
	f.header.First += uint64(n)
	f.next = max(f.next, f.header.First)
	end := f.ends[n-1]
	f.group = f.group[:copy(f.group, f.group[end:])]
	f.ends = f.ends[:copy(f.ends, f.ends[n:])]
	for i := range f.ends {
		f.ends[i] -= end
	}
	if cap(f.group) > maxGroup*4 && len(f.group) < maxGroup {
		f.group = append([]byte(nil), f.group...) // a giant event's memory is not kept
	}
	return true
}

// emitItem makes a frame of one item, or fragments if it needs more.
func (f *Frame) emitItem(b *Batch, h *Header, item []byte) {
	body, compression := f.whole(item)
	f.emitBody(b, h, body, compression, leastSize(h.Kind, len(item), 1))
}

// emitBody makes a frame of a body, or fragments if it needs more. With its padding it
// takes at least so many bytes.
func (f *Frame) emitBody(b *Batch, h *Header, body []byte, compression Compression, least int) {
	if max(len(body), least) <= f.room(h) {
		f.write(b, h, body, compression, least, false)
		return
	}
	// All fragments but the last are of one size, the last one's datagram number
	// and index being the longest. Padding is spread over them.
	longest := *h
	longest.Datagram += maxFragments
	longest.Fragment = Fragment{maxFragments, maxFragments}
	room := f.room(&longest)
	h.Fragment.Total = (max(len(body), least) + room - 1) / room
	piece, padded := room, 0
	if least > len(body) {
		piece, padded = (len(body)+h.Fragment.Total-1)/h.Fragment.Total, room
		h.Fragment.Total = (len(body) + piece - 1) / piece
		padded = (least + h.Fragment.Total - 1) / h.Fragment.Total
	}
	for h.Fragment.Index = 0; h.Fragment.Index < h.Fragment.Total; h.Fragment.Index++ {
		n := min(piece, len(body))
		f.write(b, h, body[:n], compression, padded, f.config.Pad && n < len(body))
		body = body[n:]
	}
}

// room returns how long a body may be behind that header.
func (f *Frame) room(h *Header) int {
	return f.config.MaxDatagram - headerSize(h) - checkSize(h)
}

// checkSize returns the length of what is behind the body.
func checkSize(h *Header) int {
	if h.Sealed {
		return tagBytes
	}
	return crcBytes
}

// write makes the next datagram, with so many bytes of body and padding at least, or
// a full one.
func (f *Frame) write(b *Batch, h *Header, body []byte, compression Compression, least int, full bool) {
	h.Datagram = f.header.Datagram
	f.header.Datagram++
	if h.Compression = compression; compression == CompressionNone {
		h.HasDictionary, h.Dictionary = false, 0
	}
	start := headerSize(h)
	size := start + len(body) + checkSize(h)
	h.padding = max(least-len(body), 0)
	if full {
		h.padding = f.config.MaxDatagram - size
	}
	size += h.padding
	d := b.Grow(size)
	appendHeader(d[:0], h)
	end := start + copy(d[start:], body)
	clear(d[end : end+h.padding])
	end += h.padding
	if h.Sealed {
		binary.BigEndian.PutUint64(f.nonce[4:], h.Datagram)
		f.aead.Seal(d[start:start], f.nonce[:], d[start:end], d[:start])
	} else {
		binary.BigEndian.PutUint32(d[end:], crc32.Checksum(d[:end], castagnoli))
	}
	if h.Fragment.Index+1 < h.Fragment.Total {
		b.AddPart(d)
		return
	}
	b.Add(d, h.Count)
}
