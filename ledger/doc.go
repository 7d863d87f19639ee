// Package ledger is the account: how many events were seen, and what became
// of each of them.
//
// # Terms
//
// A subscription is the gRPC stream from Tetragon. A stream is the numbered
// sequence of events that one exporter process sends to one destination.
//
// An exporter's account closes when, for each stream,
//
//	seen = excluded + dropped at intake + dropped by the stream + sent + queued
//
// and a collector's account closes when
//
//	received = delivered + dropped + queued
//
// No side of these equations is computed from the other: each figure is
// counted where the thing happens, and queued is the length of the queue
// itself. [Exporter.Check] and [Collector.Check] therefore prove something.
//
// Every loss has a [Reason]. The list of reasons in this package is the only
// one: accounts, metrics and documentation are made from it.
//
// Figures that the kernel keeps, such as the datagrams a socket dropped, stand
// beside the account as observed. They have another unit (datagrams, at times
// super-packets) and another scope (a socket, a network namespace), so they
// never enter an equation.
package ledger
