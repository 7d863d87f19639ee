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
	// Cut is set by Pack: the event is in a datagram, but parts of it were too long for
	// the format.
	Cut bool
}

// Batch is a list of datagrams ready to be sent. The zero value is empty. It
// has one owner.
//
// A packer that must build bytes takes them from the batch's own memory with
// [Batch.Grow]. They are valid until Reset, which uses that memory again.
type Batch struct {
	Datagrams [][]byte
	Events    []int // how many events end in Datagrams[i]; 0 for agent_init
	// More says that Datagrams[i+1] goes on with the same event: one without the
	// other is no event.
	More []bool

	block []byte // the batch's own memory: what is in use, with room behind it
}

// The blocks that a batch's own memory comes in, in bytes. Room for 64
// datagrams of 1,232 bytes is in the first. What Reset keeps is bounded, so a
// giant event's memory is not kept.
const (
	minBlock  = 80 << 10
	maxBlock  = 4 << 20
	growBlock = 2 // times the one before
)

// Grow returns n bytes of the batch's own memory. What is in them is not
// defined.
func (b *Batch) Grow(n int) []byte {
	used := len(b.block)
	if cap(b.block)-used < n {
		// The block before stays with the datagrams that are in it.
		b.block, used = make([]byte, 0, max(n, minBlock, min(growBlock*cap(b.block), maxBlock))), 0
	}
	b.block = b.block[:used+n]
	return b.block[used : used+n : used+n]
}

// room returns the end of the batch's own memory, empty, with room for n bytes
// to append. keep makes what was appended part of it.
func (b *Batch) room(n int) []byte {
	b.Grow(n)
	b.block = b.block[:len(b.block)-n]
	return b.block[len(b.block):]
}

// keep makes built, which began as what room returned, part of the batch's own
// memory, and returns it so that nobody can append to it. If it outgrew the
// room, the block that append made for it becomes the batch's.
func (b *Batch) keep(built []byte) []byte {
	if used := len(b.block); len(built) <= cap(b.block)-used {
		b.block = b.block[:used+len(built)]
	} else {
		b.block = built
	}
	return built[:len(built):len(built)]
}

// Forget gives up the batch's own memory, for somebody else still reads it: a
// kernel that sends without copying. The datagrams stay as they are.
func (b *Batch) Forget() { b.block = nil }

// Add appends a datagram that holds so many events. The slice is kept, not
// copied.
func (b *Batch) Add(datagram []byte, events int) { b.add(datagram, events, false) }

// AddPart appends a datagram with a part of an event that the next one goes on
// with.
func (b *Batch) AddPart(datagram []byte) { b.add(datagram, 0, true) }

func (b *Batch) add(datagram []byte, events int, more bool) {
	b.Datagrams = append(b.Datagrams, datagram)
	b.Events = append(b.Events, events)
	b.More = append(b.More, more)
}

// Rest returns how many datagrams from datagram i on belong together, because
// none is of use without the others, how many bytes they have and how many events
// they hold.
func (b *Batch) Rest(i int) (datagrams, bytes, events int) {
	for more := true; more && i < len(b.Datagrams); i++ {
		datagrams++
		bytes += len(b.Datagrams[i])
		events += b.Events[i]
		more = b.More[i]
	}
	return datagrams, bytes, events
}

// Reset empties the batch and forgets its slices.
func (b *Batch) Reset() {
	clear(b.Datagrams)
	b.Datagrams, b.Events, b.More = b.Datagrams[:0], b.Events[:0], b.More[:0]
	b.block = b.block[:0]
	if cap(b.block) > maxBlock {
		b.block = nil
	}
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

// Preparer is a packer for which a metadata record is more than its bytes.
type Preparer interface {
	// PrepareRecord makes of a record what does not change from one datagram with it
	// to the next: its constant parts, rendered and compressed. The PackRecord of the
	// same bytes then writes only what changes. One record is prepared at a time; its
	// bytes must not change.
	PrepareRecord(record []byte)
}

// Keeper is a packer that keeps events for a datagram that later ones share.
type Keeper interface {
	// Waiting returns how many events it keeps.
	Waiting() (events int)
	// Keep copies them, if they are in memory of the events or of the batch: call
	// it before either changes.
	Keep()
}

// Limiter is a packer that takes events up to a length.
type Limiter interface {
	// MaxLine returns how many bytes the event's line may have, newline included,
	// so that Pack takes it.
	MaxLine(event *Event) int
}

// Stamper is a packer that writes into its datagrams how many events the stream
// lost before they were packed.
type Stamper interface {
	// SetDropped sets that number for the datagrams made from now on.
	SetDropped(events uint64)
}
