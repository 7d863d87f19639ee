// Package collector is the receiving end: datagrams come in, are unpacked and
// audited, and leave as JSON lines through a sink.
//
// One goroutine receives and one writes; a queue, bounded in bytes, stands
// between them. Reading the socket never waits for a sink: what the queue has no
// room for is dropped and counted, for a socket that nobody reads drops too, and
// does not say whose events they were.
//
//	socket -> unpack -> audit -> queue -> sink
//
// # The account
//
// [Collector.Account] is true at any moment: everything it counts is counted
// under one lock, once a batch of datagrams and once a block of lines. The
// events in the queue are counted in the queue, so
//
//	received = delivered + dropped + queued
//
// is a statement, not a definition. Junk is counted by what is wrong with it
// and logged at most once a minute; it makes no other state.
//
// # Few, large writes
//
// The writer takes a block when it is full, or when its first line has waited
// for the flush interval. So at low rates there are at most a few writes a
// second, and at high rates one for hundreds of events: a Tetragon that watches
// the collector's own output file sees less than the collector sees, and no loop
// between the two can grow.
package collector
