// Package source is where events come from: the subscription to a running
// Tetragon, or a recording.
//
// A source hands on protobuf bytes, in batches, through a function that its
// caller gives it. The slices are lent for the length of the call. Nothing here
// decodes an event.
//
// # Finding Tetragon
//
// Tetragon listened on localhost:54321 up to 1.6 and listens on a unix socket
// since; upgrades and rollbacks leave the other's traces behind. So every
// attempt walks the whole list of places anew, and a place counts only when
// GetVersion answered there. What fails is told with each place's own reason.
// Sockets come first: over TCP Tetragon's sends can be events.
//
// # Two clients
//
// GetEvents is received by the client of package framer, at a fraction of
// grpc-go's CPU, or by grpc-go: over TLS, where it is asked for, and for the rest
// of the process once the framer met a fault that may be its own. A stream that
// brings nothing is a quiet host or a stalled stream; where it is asked for, the same
// subscription over grpc-go, kept until it brings one event, tells which.
//
// # Remedies
//
// Where a Tetragon cannot give what the filters ask for, a subscription can ask for
// less: remedy.go has the two cases.
//
// # What is called
//
// Whoever reaches Tetragon's socket can also change its policies. This package
// calls GetVersion, GetInfo and GetEvents and nothing else; a test holds it to
// that.
package source
