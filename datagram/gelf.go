package datagram

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// GELFFields says how an event's content stands in a GELF message.
type GELFFields uint8

// The ways of GELFFields.
const (
	GELFFlat GELFFields = iota // a field for each value, such as _process.binary
	GELFOne                    // the event's JSON as the text of one field, _event
)

// MaxLuceneField is the most bytes of a field that is searched as a whole: what Lucene
// takes as a term (IndexWriter.MAX_TERM_LENGTH, Lucene 9), and so Elasticsearch,
// OpenSearch and Graylog, which refuse the whole message beyond it.
const MaxLuceneField = 32766

// GELFCompression says how a GELF message is compressed.
type GELFCompression uint8

// The ways of GELFCompression.
const (
	GELFPlain GELFCompression = iota
	GELFGzip
	GELFZlib
)

// ParseGELFFields reads flat or one.
func ParseGELFFields(text string) (GELFFields, error) {
	switch text {
	case "flat":
		return GELFFlat, nil
	case "one":
		return GELFOne, nil
	}
	return 0, fmt.Errorf("datagram: GELF fields %q, want flat or one", text)
}

// ParseGELFCompression reads none, gzip or zlib.
func ParseGELFCompression(text string) (GELFCompression, error) {
	switch text {
	case "none":
		return GELFPlain, nil
	case "gzip":
		return GELFGzip, nil
	case "zlib":
		return GELFZlib, nil
	}
	return 0, fmt.Errorf("datagram: GELF compression %q, want none, gzip or zlib", text)
}

// GELFConfig says how [NewGELF] writes. The zero value is usable.
type GELFConfig struct {
	// Stream is the id of the stream: 64 random bits, for message ids begin
	// there.
	Stream uint64
	// MaxDatagram is the most bytes of a datagram, a whole message or a chunk; 0
	// and anything above it mean MaxPayload. At least MinGELFDatagram is used.
	MaxDatagram int
	Host        string // empty: unknown
	Fields      GELFFields
	FullMessage bool // the event's JSON as full_message too
	OneLabels   bool // flat: labels and annotations of pods and nodes as JSON in one field
	// MaxField is the most bytes of a field's text: a flat field is cut to it, between
	// characters, and _tetracast_cut_fields says how many were; an event that is one
	// field is [ErrOversize] beyond it; and a full_message that would be longer is left
	// out. 0: no bound.
	MaxField    int
	Compression GELFCompression
	// RecordCompression is that of agent_init; nil: Compression.
	RecordCompression *GELFCompression
}

// Chunks of GELF 1.1: what a chunk begins with, how many a message may have,
// and the smallest datagram that is used, for chunks of a few bytes help nobody.
const (
	gelfChunkMagic  = 0x1e0f
	gelfChunkHeader = 12
	maxGELFChunks   = 128
	MinGELFDatagram = 256
)

// GELF is the format gelf: GELF 1.1 over UDP, a message for each event, in
// chunks where it needs more than one datagram. A message that needs more than
// 128 chunks is [ErrOversize].
//
// It implements [Packer] and [Limiter].
type GELF struct {
	stamp
	config  GELFConfig
	head    []byte // the message up to the host
	tail    []byte // the name and value of the stream
	flat    flattener
	second  []byte // the text of a second, and
	unix    []byte // the same as seconds since 1970
	plain   []byte // a message before it is compressed
	squeeze compressor
	out     sliceWriter // of squeeze
	record  recordForm
	// message counts chunked messages, from the stream's random bits on. Its ids
	// are that number mixed, so ids of one stream repeat after 2^64 messages. Two
	// streams' ids are equal only where their counters meet: among M chunked
	// messages in flight at one receiver that is M²/2^65 on average, 7e-11 with
	// 50,000 in the five seconds for which receivers keep a set of chunks.
	message uint64
}

// compressor is gzip.Writer and zlib.Writer.
type compressor interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// NewGELF returns a packer.
func NewGELF(c GELFConfig) (*GELF, error) {
	c.MaxDatagram = max(orMaxPayload(c.MaxDatagram), MinGELFDatagram)
	if c.Host == "" {
		c.Host = "unknown"
	}
	p := &GELF{config: c, stamp: stamp{stream: c.Stream}, message: c.Stream}
	p.flat.maxField, p.flat.shapes.oneLabels = c.MaxField, c.OneLabels
	p.head = appendQuoted([]byte(`{"version":"1.1","host":`), []byte(c.Host))
	p.tail = append(AppendStreamID([]byte(`,"_tetracast_stream":"`), c.Stream), '"')
	if r := c.RecordCompression; r == nil {
		p.config.RecordCompression = &p.config.Compression
	} else if *r > GELFZlib {
		return nil, fmt.Errorf("datagram: GELF compression %d of records, want 0 to %d", *r, GELFZlib)
	}
	switch c.Compression {
	case GELFPlain:
	case GELFGzip:
		p.squeeze, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails for unknown levels only
	case GELFZlib:
		p.squeeze, _ = zlib.NewWriterLevel(nil, zlib.BestSpeed)
	default:
		return nil, fmt.Errorf("datagram: GELF compression %d, want 0 to %d", c.Compression, GELFZlib)
	}
	return p, nil
}

// Pack adds the event's message as a datagram, or its chunks as several. The
// last chunk counts as the event.
func (p *GELF) Pack(b *Batch, event *Event) error {
	line := trimLine(event.Line)
	if p.config.Fields == GELFOne && !p.mayBeField(line) {
		return ErrOversize
	}
	err := p.pack(b, line, event.Number, 1)
	event.Cut = err == nil && p.flat.cut > 0
	return err
}

// mayBeField says whether the text is not too long for a field.
func (p *GELF) mayBeField(text []byte) bool {
	return p.config.MaxField <= 0 || len(text) <= p.config.MaxField
}

// Flush does nothing: no event waits for another.
func (p *GELF) Flush(*Batch) {}

// PackRecord adds the record as a message. A flat one holds it whole too, so
// that a collector of ours can read it.
func (p *GELF) PackRecord(b *Batch, record []byte) {
	switch {
	case p.record.is(record):
		p.packForm(b, &p.record)
	case recordKind(trimLine(record)) == KindAgentInit:
		if form, err := p.formOf(record); err == nil {
			p.packForm(b, &form)
		}
	default:
		_ = p.pack(b, trimLine(record), 0, 0) // records are short
	}
}

// MaxLine returns how many bytes a line may have so that its message surely
// fits, without compression. The content of a line stands in a message once, or
// with FullMessage twice, and escaping at most doubles it; the names of its
// fields are what a flat message adds.
func (p *GELF) MaxLine(event *Event) int {
	times := 2
	if p.config.FullMessage {
		times += 2
	}
	room := maxGELFChunks*(p.config.MaxDatagram-gelfChunkHeader) - len(p.head) - 4<<10
	most := max(0, room/times)
	if p.config.Fields == GELFOne && p.config.MaxField > 0 {
		most = min(most, p.config.MaxField+len("\n"))
	}
	return most
}

// messageRoom is a guess at what a message takes beside its line: the names of
// its fields. A longer one takes a block of its own.
const messageRoom = 4 << 10

func (p *GELF) pack(b *Batch, line []byte, number uint64, events int) error {
	message := b.room(2*len(line) + messageRoom)
	var err error
	if p.squeeze == nil {
		message, err = p.appendMessage(message, line, number)
	} else if p.plain, err = p.appendMessage(p.plain[:0], line, number); err == nil {
		p.out.bytes = message
		p.squeeze.Reset(&p.out)
		_, _ = p.squeeze.Write(p.plain) // writing to memory does not fail
		// What a receiver would take for a bomb is padded, with empty blocks of five bytes.
		for least := (len(p.plain) - inflateFree) / inflateRatio; len(p.out.bytes)-len(message) < least; {
			_ = p.squeeze.Flush()
		}
		err = p.squeeze.Close()
		message = p.out.bytes
		if cap(p.plain) > maxBlock {
			p.plain = nil
		}
	}
	if err != nil {
		return err
	}
	return p.add(b, message, events)
}

// add adds the message, which is not part of the batch's memory yet, as a datagram
// or as chunks.
func (p *GELF) add(b *Batch, message []byte, events int) error {
	if len(message) <= p.config.MaxDatagram {
		b.Add(b.keep(message), events)
		return nil
	}
	return p.cut(b, message, events)
}

// cut adds the message, which is not part of the batch's memory yet, as chunks.
func (p *GELF) cut(b *Batch, message []byte, events int) error {
	most := p.config.MaxDatagram - gelfChunkHeader
	count := (len(message) + most - 1) / most
	if count > maxGELFChunks {
		return ErrOversize
	}
	message = b.keep(message)
	p.message++
	// Mixed, for there are receivers that look at the first bytes of an id only.
	id := p.message * 0x9e3779b97f4a7c15
	for i := range count {
		part := message[i*most : min((i+1)*most, len(message))]
		chunk := b.room(gelfChunkHeader + len(part))
		chunk = binary.BigEndian.AppendUint16(chunk, gelfChunkMagic)
		chunk = binary.BigEndian.AppendUint64(chunk, id)
		chunk = append(chunk, byte(i), byte(count))
		chunk = b.keep(append(chunk, part...))
		if i < count-1 {
			b.AddPart(chunk)
		} else {
			b.Add(chunk, events)
		}
	}
	return nil
}

// appendMessage appends the GELF message of a line.
func (p *GELF) appendMessage(dst, line []byte, number uint64) ([]byte, error) {
	dst, err := p.appendFront(dst, line, number)
	if err != nil {
		return nil, err
	}
	return p.appendEnd(dst), nil
}

// appendEnd appends what changes from one message with a record to the next.
func (p *GELF) appendEnd(dst []byte) []byte {
	return append(strconv.AppendUint(dst, p.dropped, 10), '}')
}

// appendFront appends all before it.
func (p *GELF) appendFront(dst, line []byte, number uint64) ([]byte, error) {
	dst = append(dst, p.head...)
	var err error
	if p.config.Fields == GELFFlat {
		if dst, err = p.flat.append(dst, line); err != nil {
			return nil, err
		}
	} else {
		if p.flat.headline, err = readHeadline(line); err != nil {
			return nil, err
		}
		dst = appendQuoted(append(dst, `,"_event":`...), line)
	}
	h := &p.flat.headline
	if p.config.FullMessage && p.mayBeField(line) || number == 0 && p.config.Fields == GELFFlat {
		dst = appendQuoted(append(dst, `,"full_message":`...), line)
	}
	dst = append(dst, `,"_event_type":"`...)
	if h.kind == nil {
		h.kind = []byte("unknown")
	}
	dst = append(dst, h.kind...)
	dst = append(dst, `","level":`...)
	dst = append(dst, '0'+byte(severityOf(kindNamed(h.kind), actionNamed(h.action))))
	dst = p.appendUnixTime(dst, h.time)
	dst = append(dst, `,"short_message":"`...)
	dst = append(h.appendSentence(dst), '"')
	dst = append(dst, p.tail...)
	if number > 0 {
		dst = append(dst, `,"_tetracast_seq":`...)
		dst = strconv.AppendUint(dst, number, 10)
	}
	if p.flat.cut > 0 {
		dst = append(dst, `,"_tetracast_cut_fields":`...)
		dst = strconv.AppendInt(dst, int64(p.flat.cut), 10)
	}
	return append(dst, `,"_tetracast_dropped":`...), nil
}

// appendUnixTime appends the time, RFC 3339 in UTC as protojson writes it, as
// seconds since 1970 with its decimals, and nothing for another text. Events
// come in the order of time, so most share their second with the one before.
func (p *GELF) appendUnixTime(dst, text []byte) []byte {
	const second = len("2006-01-02T15:04:05")
	if len(text) <= second || text[len(text)-1] != 'Z' {
		return dst
	}
	if !bytes.Equal(p.second, text[:second]) {
		t, err := time.Parse("2006-01-02T15:04:05", string(text[:second]))
		if err != nil {
			return dst
		}
		p.second = append(p.second[:0], text[:second]...)
		p.unix = strconv.AppendInt(p.unix[:0], t.Unix(), 10)
	}
	fraction := text[second : len(text)-1]
	for i, c := range fraction {
		if i == 0 && (c != '.' || len(fraction) == 1) || i > 0 && !isDigit(c) {
			return dst
		}
	}
	dst = append(dst, `,"timestamp":`...)
	dst = append(dst, p.unix...)
	return append(dst, fraction...)
}

// sliceWriter lets a compressor write into memory.
type sliceWriter struct{ bytes []byte }

func (w *sliceWriter) Write(text []byte) (int, error) {
	w.bytes = append(w.bytes, text...)
	return len(text), nil
}
