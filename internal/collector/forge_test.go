package collector

import (
	"encoding/binary"
	"hash/crc32"

	"tetracast/datagram"
)

// forgery is a frame as somebody without a key can make it by docs/frame.md, saying
// whatever they want.
type forgery struct {
	stream, datagram, first, count    uint64
	excluded, dropped, refused, ahead uint64 // ahead as in the header
	flags, content                    byte   // content 0: events, not compressed
	body                              []byte
	padding                           int
}

func (f forgery) bytes() []byte {
	content := f.content
	if content == 0 {
		content = byte(datagram.KindEvent)
	}
	d := []byte{0xd7, 0x54, 1, f.flags, content}
	d = binary.BigEndian.AppendUint64(d, f.stream)
	d = binary.BigEndian.AppendUint16(append(d, make([]byte, 8)...), uint16(f.padding)) // no record
	for _, v := range []uint64{f.datagram, f.first, f.count, f.excluded, f.dropped, f.refused, f.ahead} {
		d = binary.AppendUvarint(d, v)
	}
	d = append(append(d, f.body...), make([]byte, f.padding)...)
	return binary.BigEndian.AppendUint32(d, crc32.Checksum(d, crc32.MakeTable(crc32.Castagnoli)))
}
