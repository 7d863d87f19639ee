// Package replay is the other end of a source: it serves a recording as
// Tetragon of a given version does, over real gRPC.
//
// The recorded bytes go out as they are; nothing is decoded or marshalled
// again, so a client gets what the recorded Tetragon sent. Filters of a request
// are ignored: a recording is what it is.
//
// A [Fault] makes the server misbehave in the ways in which a real one does:
// it breaks the stream with a status, or stalls. The tests of a client need no
// other server.
package replay
