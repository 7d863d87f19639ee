// Package framer makes one gRPC call, Tetragon's GetEvents, over HTTP/2 frames.
//
// grpc-go spends most of its time, for a stream of small messages, on handing
// them from goroutine to goroutine and on buffers that it must count references
// of. One call on one connection needs neither. A [Client] reads large pieces
// of the stream into one buffer and hands on the messages as slices of it.
// The frames of DATA are looked at where they lie; all others, which are rare,
// go through the Framer and hpack of golang.org/x/net/http2.
//
// It speaks plain text, over whatever connection it is given. It does not
// retry, balance, compress or authenticate: whoever needs that has grpc-go,
// which also makes all the other calls.
//
// # How a call ends
//
// With io.EOF if the server ended it in good order, with the server's status, or
// with an [Error], which tells what else went wrong: [ErrProtocol] if the two
// do not agree on what HTTP/2 or gRPC is, [ErrStalled] if the server does not
// answer a ping. Codes are those that grpc-go gives in the same case.
//
// Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), and gRPC over HTTP/2
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
package framer
