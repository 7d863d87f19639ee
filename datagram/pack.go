package datagram

import (
	"errors"

	"tetracast/transcode"
)

// MaxPayload is the largest UDP payload over IPv4, in bytes: 65,535 less 20 of
// IPv4 header (RFC 791, section 3.1) and 8 of UDP header (RFC 768).
const MaxPayload = 65507

// ErrOversize is returned by Pack for an event that needs more bytes than one
// datagram may have. The event is in no datagram.
var ErrOversize = errors.New("datagram: event is longer than a datagram may be")

// Event is one event on its way into a datagram, in the forms it has. The
// slices belong to the caller and must not change before the batch was sent.
type Event struct {
	Number uint64 // its number in the stream: 1, 2, 3, without a hole
	Line   []byte // the event as JSON, and one newline; nil if the format needs none
	Wire   []byte // the event as protobuf, as it came; nil if there is none
	// Summary is what Scan says of Wire. Nil: a packer that needs it looks
	// into Wire, or else into Line.
	Summary *transcode.Summary
}

// Batch is a list of datagrams ready to be sent. The zero value is empty. It
// has one owner.
type Batch struct {
	Datagrams [][]byte
	Events    []int // how many events Datagrams[i] holds; 0 for agent_init
}

// Add appends a datagram that holds so many events. The slice is kept, not
// copied.
func (b *Batch) Add(datagram []byte, events int) {
	b.Datagrams = append(b.Datagrams, datagram)
	b.Events = append(b.Events, events)
}

// Reset empties the batch and forgets its slices.
func (b *Batch) Reset() {
	clear(b.Datagrams)
	b.Datagrams, b.Events = b.Datagrams[:0], b.Events[:0]
}

// Packer makes the datagrams of one stream. It has one owner and is not safe
// for concurrent use.
type Packer interface {
	// Pack puts the event into b's next datagrams, or keeps it for a datagram
	// that later events share. It returns [ErrOversize] if the event fits no
	// datagram; b is then unchanged.
	Pack(b *Batch, event *Event) error
	// Flush puts what Pack kept into b.
	Flush(b *Batch)
	// PackRecord puts a rendered metadata record into b as a datagram of its
	// own. The record is JSON and one newline.
	PackRecord(b *Batch, record []byte)
}
