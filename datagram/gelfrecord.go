package datagram

import (
	"bytes"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// A message with a prepared record is the same each time but for its last number, so
// it is compressed once, up to there. What remains is appended to the compressed text
// as a block that is not compressed, and the checksum of the whole goes on from the
// one of the front.

// gelfEnd is more than what is appended to a form takes: a number of 20 digits and a
// brace, the header of a stored block (RFC 1951, section 3.2.4), and the trailer of
// gzip.
const gelfEnd = 21 + 5 + 8

// PrepareRecord implements [Preparer].
func (p *GELF) PrepareRecord(record []byte) {
	form, err := p.formOf(record)
	if err != nil {
		form = recordForm{} // PackRecord meets the error again
	}
	p.record = form
}

func (p *GELF) formOf(record []byte) (recordForm, error) {
	front, err := p.appendFront(nil, trimLine(record), 0)
	if err != nil {
		return recordForm{}, err
	}
	form := recordForm{of: bytes.Clone(record), form: front, length: len(front)}
	var out bytes.Buffer
	var w interface {
		io.Writer
		Flush() error
	}
	switch *p.config.RecordCompression { // better than events get, for it is done once; the best level makes the same of 1 KB
	case GELFPlain:
		return form, nil
	case GELFGzip:
		w, err = gzip.NewWriterLevel(&out, gzip.DefaultCompression)
		form.check = crc32.ChecksumIEEE(front)
	case GELFZlib:
		w, err = zlib.NewWriterLevel(&out, zlib.DefaultCompression)
		form.check = adler32.Checksum(front)
	}
	if err == nil {
		_, err = w.Write(front)
	}
	if err == nil {
		err = w.Flush() // ends at a byte, and no block follows
	}
	form.form = out.Bytes()
	return form, err
}

// packForm adds a message of a form.
func (p *GELF) packForm(b *Batch, form *recordForm) {
	message := append(b.room(len(form.form)+gelfEnd), form.form...)
	if compression := *p.config.RecordCompression; compression == GELFPlain {
		message = p.appendEnd(message)
	} else {
		message = p.appendStored(message, form, compression == GELFGzip)
	}
	_ = p.add(b, message, 0) // records are short
}

// appendStored appends the last block of a compressed text, and its trailer.
func (p *GELF) appendStored(dst []byte, f *recordForm, isGzip bool) []byte {
	const last = 1 // and type 0, stored
	at := len(dst)
	dst = p.appendEnd(append(dst, last, 0, 0, 0, 0))
	end := dst[at+5:]
	binary.LittleEndian.PutUint16(dst[at+1:], uint16(len(end)))
	binary.LittleEndian.PutUint16(dst[at+3:], ^uint16(len(end)))
	if isGzip { // RFC 1952, section 2.3.1
		dst = binary.LittleEndian.AppendUint32(dst, crc32.Update(f.check, crc32.IEEETable, end))
		return binary.LittleEndian.AppendUint32(dst, uint32(f.length+len(end)))
	}
	const mod = 65521 // RFC 1950, section 8.2
	low, high := f.check&0xffff, f.check>>16
	for _, c := range end {
		low = (low + uint32(c)) % mod
		high = (high + low) % mod
	}
	return binary.BigEndian.AppendUint32(dst, high<<16|low)
}
