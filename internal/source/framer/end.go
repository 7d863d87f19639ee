package framer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrProtocol: client and server do not agree on HTTP/2 or gRPC. One of them has
// a fault, and it may be this client.
var ErrProtocol = errors.New("framer: protocol error")

// ErrStalled: the server is connected and does not answer.
var ErrStalled = errors.New("framer: stalled")

var errEnd = io.EOF // in good order

// Error is an end that is not a status which the server sent.
type Error struct {
	status *status.Status
	kind   error
}

// Error returns the text of the status.
func (e *Error) Error() string { return e.status.Err().Error() }

// GRPCStatus is what status.FromError and status.Code look for.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Unwrap returns ErrProtocol, ErrStalled, or the error of the connection.
func (e *Error) Unwrap() error { return e.kind }

func internal(text string) error { return status.Error(codes.Internal, text) }

func unavailable(text string, cause error) error {
	return &Error{status: status.New(codes.Unavailable, text), kind: cause}
}

func tooLarge(length int64, limit int) error {
	return status.Errorf(codes.ResourceExhausted, "a message of %d bytes, more than %d", length, limit)
}

// compressed is the end that a message makes which is not as it is. Nothing but
// identity was offered, so no correct server sends one.
func (c *Client) compressed(flag byte) error {
	switch {
	case flag != 1:
		return status.Errorf(codes.Internal, "a message with the unknown flag %d", flag)
	case c.encoding == "" || c.encoding == "identity":
		return internal("a message is said to be compressed, and the encoding not told")
	}
	return status.Errorf(codes.Internal, "a message compressed with %q, which was not offered", c.encoding)
}

// violation is the end of a connection on which the server broke the rules, as
// we understand them. It is told so.
func (c *Client) violation(code http2.ErrCode, format string, arguments ...any) error {
	text := fmt.Sprintf(format, arguments...)
	_ = c.frames.WriteGoAway(0, code, nil)
	return &Error{status: status.Newf(codes.Internal, "%v: %s", code, text), kind: ErrProtocol}
}

// over is the end that the server made. The stream is closed on both sides, but
// for a request that was not sent to its end.
func (c *Client) over(err error) error {
	if len(c.request) > 0 {
		_ = c.frames.WriteRSTStream(streamID, http2.ErrCodeNo)
	}
	return err
}

// ours says whether the server means with this code that the client broke the
// rules.
func ours(code http2.ErrCode) bool {
	switch code {
	case http2.ErrCodeNo, http2.ErrCodeInternal, http2.ErrCodeRefusedStream, http2.ErrCodeCancel, http2.ErrCodeConnect:
		return false
	}
	return true
}

// ended returns a status, as an ErrProtocol if it was our fault.
func ended(code http2.ErrCode, st *status.Status) error {
	if ours(code) {
		return &Error{status: st, kind: ErrProtocol}
	}
	return st.Err()
}

// reset is the end that a RST_STREAM makes. The codes are those of gRPC over
// HTTP/2, section Errors, as grpc-go has them.
func (c *Client) reset(code http2.ErrCode) error {
	to := codes.Unknown
	deadline, ok := c.ctx.Deadline()
	switch code {
	case http2.ErrCodeRefusedStream:
		to = codes.Unavailable
	case http2.ErrCodeCancel:
		if ok && !time.Now().Before(deadline) { // the server's clock was faster
			return status.FromContextError(context.DeadlineExceeded).Err()
		}
		to = codes.Canceled
	case http2.ErrCodeFlowControl, http2.ErrCodeEnhanceYourCalm:
		to = codes.ResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		to = codes.PermissionDenied
	case http2.ErrCodeNo, http2.ErrCodeProtocol, http2.ErrCodeInternal, http2.ErrCodeSettingsTimeout, http2.ErrCodeStreamClosed,
		http2.ErrCodeFrameSize, http2.ErrCodeCompression, http2.ErrCodeConnect, http2.ErrCodeHTTP11Required:
		to = codes.Internal
	}
	return ended(code, status.Newf(to, "the server reset the stream: %v", code))
}

// leftAlone is the end of a call that the server's GOAWAY gave up.
func (c *Client) leftAlone() error {
	return ended(c.goAway.ErrCode, status.Newf(codes.Unavailable, "the server is going away: %v %q", c.goAway.ErrCode, c.debug))
}

// cancelled is the end of a call whose context ended.
func (c *Client) cancelled() error {
	if cause := context.Cause(c.ctx); cause != c.ctx.Err() {
		return cause
	}
	return status.FromContextError(c.ctx.Err()).Err()
}
