package datagram

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// What a GELF datagram can have wrong with it beside what UnpackJSON says.
var (
	ErrChunk       = errors.New("datagram: chunk of GELF that no message can have")
	ErrInflate     = errors.New("datagram: GELF that cannot be decompressed")
	ErrInflateBomb = errors.New("datagram: GELF that is longer than allowed when decompressed")
)

// GELFLimits bounds what a GELF reader keeps and makes. Zero values are
// replaced by the defaults.
type GELFLimits struct {
	Chunks  GELFChunkLimits
	Message int // bytes of a message after decompression: 8,388,608
}

// How much a message may grow by decompression: to so many times its bytes, and
// inflateFree more. Whoever can reach the receiver pays in bytes for what is made of
// them; JSON compresses to a tenth, or a thirtieth.
const (
	inflateFree  = 8 << 10
	inflateRatio = 100
)

// GELFReader reads the format gelf, as it comes from any sender: plain, gzip or
// zlib, whole or in chunks. It has one owner.
type GELFReader struct {
	limits  int
	chunks  chunkSets
	deflate bytes.Reader
	gzip    *gzip.Reader
	zlib    io.ReadCloser
	message bytes.Buffer
	whole   []byte
	event   []byte
}

// NewGELFReader returns a reader.
func NewGELFReader(l GELFLimits) *GELFReader {
	if l.Message <= 0 {
		l.Message = 8 << 20
	}
	return &GELFReader{limits: l.Message, chunks: newChunkSets(l.Chunks)}
}

// Stats says what waits and what was given up.
func (r *GELFReader) Stats() GELFChunkStats { return r.chunks.stats }

// Expire gives up what has waited too long.
func (r *GELFReader) Expire(now time.Time) { r.chunks.expire(now) }

// Read reads a datagram. whole is false, without an error, if it is a chunk
// whose message is not whole yet.
//
// The payload is the event's JSON if the message holds it, in _event or as
// full_message. A message of tetracast with fields that do not hold it is an
// event too: its payload is the GELF message itself. Anything else is
// [ErrNotEvent]. The payload is valid until the next Read, and may be memory of
// the datagram.
func (r *GELFReader) Read(datagram []byte, from netip.AddrPort, now time.Time) (p Payload, whole bool, err error) {
	r.whole = nil
	if len(datagram) == 0 {
		return Payload{}, false, ErrEmpty
	}
	if isGELFChunk(datagram) {
		if datagram, err = r.chunks.add(datagram, from, now); datagram == nil {
			return Payload{}, false, err
		}
	}
	if isGzip(datagram) || isZlib(datagram) {
		if datagram, err = r.inflate(datagram); err != nil {
			return Payload{}, false, err
		}
	}
	r.whole = datagram
	p, err = r.unpack(datagram)
	return p, err == nil, err
}

// Whole returns the message that the last Read read, in one piece and
// decompressed; nil after an error before that. It is valid until the next Read.
func (r *GELFReader) Whole() []byte { return r.whole }

// IsGELF says whether a datagram is a chunk, is compressed, or begins as tetracast
// begins a GELF message. Messages of other senders may begin as any JSON object
// does.
func IsGELF(d []byte) bool {
	return isGELFChunk(d) || isGzip(d) || isZlib(d) || bytes.HasPrefix(d, []byte(`{"version":"1.1"`))
}

func isGELFChunk(d []byte) bool {
	return len(d) >= 2 && d[0] == gelfChunkMagic>>8 && d[1] == gelfChunkMagic&0xff
}

func isGzip(d []byte) bool { return len(d) >= 2 && d[0] == 0x1f && d[1] == 0x8b } // RFC 1952, section 2.3.1

// isZlib reads the header of RFC 1950, section 2.2: deflate, and a check.
func isZlib(d []byte) bool {
	return len(d) >= 2 && d[0]&0x0f == 8 && d[0]>>4 <= 7 && (uint(d[0])<<8|uint(d[1]))%31 == 0
}

// inflate decompresses into the reader's memory, never more than is allowed.
func (r *GELFReader) inflate(d []byte) ([]byte, error) {
	limit := min(inflateFree+inflateRatio*len(d), r.limits)
	r.deflate.Reset(d)
	var in io.Reader
	var err error
	switch {
	case isGzip(d) && r.gzip == nil:
		r.gzip, err = gzip.NewReader(&r.deflate)
		in = r.gzip
	case isGzip(d):
		err = r.gzip.Reset(&r.deflate)
		in = r.gzip
	case r.zlib == nil:
		r.zlib, err = zlib.NewReader(&r.deflate)
		in = r.zlib
	default:
		err = r.zlib.(zlib.Resetter).Reset(&r.deflate, nil)
		in = r.zlib
	}
	if err != nil {
		if isGzip(d) {
			r.gzip = nil // half made
		} else {
			r.zlib = nil
		}
		return nil, ErrInflate
	}
	r.message.Reset()
	n, err := r.message.ReadFrom(io.LimitReader(in, int64(limit)+1))
	switch {
	case err != nil:
		return nil, ErrInflate
	case n > int64(limit):
		return nil, ErrInflateBomb
	}
	return r.message.Bytes(), nil
}

// unpack reads a whole message.
func (r *GELFReader) unpack(text []byte) (Payload, error) {
	text = bytes.TrimRight(text, "\x00\r\n ") // senders over TCP end a message with NUL
	whole, err := UnpackJSON(text)
	if err != nil && err != ErrNotEvent {
		return Payload{}, err
	}
	var event, full, short, kind []byte
	s := scanner{text: whole.JSON}
	err = s.members(func(key []byte) error {
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		value := whole.JSON[start:s.pos]
		switch string(key) {
		case "_event":
			event = value
		case "full_message":
			full = value
		case "short_message":
			short = value
		case "_event_type":
			kind = textOf(value)
		default:
			if name, ok := bytes.CutPrefix(key, []byte("_tetracast_")); ok {
				if inside := textOf(value); inside != nil {
					value = inside
				}
				whole.Mark.set(name, value)
			}
		}
		return nil
	})
	if err != nil {
		return Payload{}, err
	}
	for _, value := range [...][]byte{event, full, short} { // Docker's driver writes a line as short_message
		if p, ok := r.inside(value); ok {
			p.Mark = whole.Mark
			return p, nil
		}
	}
	if whole.Mark.Stream == 0 || kind == nil {
		if p, ok := r.Inside(whole.JSON); ok {
			return p, nil
		}
		return Payload{JSON: whole.JSON, Repaired: whole.Repaired, Kindred: whole.Kindred}, ErrNotEvent
	}
	whole.Kind, whole.Kindred = KindEvent, false
	return whole, nil
}

// Inside reads the event in the text of a message that another sender made of a line:
// Vector, Logstash, Filebeat and Fluentd have it in message, Fluent Bit and Docker's
// files in log, journald in MESSAGE, logging libraries in msg. The object was read
// before. The payload is valid until the next Inside or Read.
func (r *GELFReader) Inside(object []byte) (p Payload, ok bool) {
	s := scanner{text: object}
	err := s.members(func(key []byte) error {
		start := s.pos
		if err := s.value(); err != nil || ok {
			return err
		}
		switch string(key) {
		case "message", "log", "MESSAGE", "msg":
			p, ok = r.inside(object[start:s.pos])
		}
		return nil
	})
	return p, ok && err == nil
}

// inside reads an event that stands in a JSON string.
func (r *GELFReader) inside(value []byte) (Payload, bool) {
	if len(value) < len(`"{}"`) || value[0] != '"' {
		return Payload{}, false
	}
	if at := bytes.IndexByte(value, '{'); at < 0 || !isBlankEscaped(value[1:at]) {
		return Payload{}, false // the text is no object, and nothing has to be made of it to know that
	}
	r.event = appendUnescaped(r.event[:0], textOf(value))
	p, err := UnpackJSON(bytes.TrimPrefix(r.event, []byte(byteOrderMark)))
	return p, err == nil
}

// isBlankEscaped says whether a JSON string's inside is nothing but white space, or a
// byte order mark.
func isBlankEscaped(text []byte) bool {
	for len(text) > 0 {
		n := 0
		for _, blank := range [...]string{" ", `\n`, `\r`, `\t`, byteOrderMark, `\ufeff`} {
			if bytes.HasPrefix(text, []byte(blank)) {
				n = len(blank)
			}
		}
		if n == 0 {
			return false
		}
		text = text[n:]
	}
	return true
}

// appendUnescaped appends what a JSON string's inside stands for. Escapes of
// four digits go the standard library's way: they are rare in JSON that holds
// JSON.
func appendUnescaped(dst, text []byte) []byte {
	start := len(dst)
	for rest := text; len(rest) > 0; {
		if rest[0] != '\\' { // a row of escapes costs no call
			n := bytes.IndexByte(rest, '\\')
			if n < 0 {
				return append(dst, rest...)
			}
			dst, rest = append(dst, rest[:n]...), rest[n:]
		}
		switch c := rest[1]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		default:
			var whole string
			_ = json.Unmarshal(append(append([]byte{'"'}, text...), '"'), &whole) // it was scanned
			return append(dst[:start], whole...)
		}
		rest = rest[2:]
	}
	return dst
}
