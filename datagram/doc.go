// Package datagram holds the formats: what an event looks like inside a UDP
// datagram, one file a format, both ways.
//
// A [Packer] takes events and makes datagrams; an unpack function takes a
// datagram and says what is in it. Neither does I/O, reads a clock, starts a
// goroutine or transcodes: an [Event] carries the forms it already has.
//
// # Memory
//
// Packing copies nothing where the format allows it. A datagram in a [Batch]
// may be a slice of the event it was made from, so events must stay unchanged
// until the batch was sent or reset.
package datagram
