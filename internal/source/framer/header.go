package framer

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxHeaderBytes bounds headers, on the wire and as a list (section 6.5.2).
const maxHeaderBytes = 64 << 10

// header is what counts of the answer's headers or trailers.
type header struct {
	size        int
	httpStatus  string // :status
	contentType string
	encoding    string // grpc-encoding
	grpcStatus  string // grpc-status
	message     string // grpc-message, as it came
}

// writeHeaders writes the headers of the request.
func (c *Client) writeHeaders() {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	write := func(name, value string) {
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // to memory
	}
	write(":method", "POST")
	write(":scheme", "http")
	write(":path", tetragon.FineGuidanceSensors_GetEvents_FullMethodName)
	write(":authority", c.config.Authority)
	write("content-type", "application/grpc")
	if c.config.UserAgent != "" {
		write("user-agent", c.config.UserAgent)
	}
	write("te", "trailers")
	if deadline, ok := c.ctx.Deadline(); ok {
		write("grpc-timeout", timeout(time.Until(deadline)))
	}
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: block.Bytes(), EndHeaders: true})
}

// timeout writes a duration with at most eight digits, as gRPC wants it.
func timeout(d time.Duration) string {
	const most = 99_999_999
	up := func(unit time.Duration) time.Duration { return (max(d, 1)-1)/unit + 1 }
	if ms := up(time.Millisecond); ms <= most {
		return strconv.FormatInt(int64(ms), 10) + "m"
	}
	return strconv.FormatInt(int64(min(up(time.Second), most)), 10) + "S"
}

// headerBlock takes a piece of a header block, and the headers with the last.
func (c *Client) headerBlock(fragment []byte, ends bool) error {
	// The frame headers count too, else empty pieces could come for ever.
	if c.blockSize += frameHeaderBytes + len(fragment); c.blockSize > maxHeaderBytes {
		return c.violation(http2.ErrCodeEnhanceYourCalm, "headers of more than %d bytes", maxHeaderBytes)
	}
	c.block = append(c.block, fragment...)
	if !ends {
		return nil
	}
	c.blockSize = 0
	c.header = header{}
	_, err := c.fields.Write(c.block)
	if err == nil {
		err = c.fields.Close()
	}
	if err != nil {
		return c.violation(http2.ErrCodeCompression, "headers that cannot be decoded: %v", err)
	}
	if c.header.size > maxHeaderBytes {
		return c.violation(http2.ErrCodeEnhanceYourCalm, "a header list of %d bytes, more than %d", c.header.size, maxHeaderBytes)
	}
	return c.headers()
}

// field takes a header from the decoder.
func (c *Client) field(f hpack.HeaderField) {
	h := &c.header
	if h.size += int(f.Size()); h.size > maxHeaderBytes {
		return
	}
	switch f.Name {
	case ":status":
		h.httpStatus = f.Value
	case "content-type":
		h.contentType = f.Value
	case "grpc-encoding":
		h.encoding = f.Value
	case "grpc-status":
		h.grpcStatus = f.Value
	case "grpc-message":
		h.message = f.Value
	}
}

// headers takes whole headers: the answer's, its trailers, or both in one.
func (c *Client) headers() error {
	h := &c.header
	if !c.answered {
		if len(h.httpStatus) == 3 && h.httpStatus[0] == '1' { // informational
			if c.last {
				return c.violation(http2.ErrCodeProtocol, "HTTP status %s ends the stream", h.httpStatus)
			}
			return nil
		}
		if !isGRPC(h.contentType) {
			return c.over(c.notGRPC())
		}
		c.answered, c.encoding = true, h.encoding
	} else if !c.last {
		return c.violation(http2.ErrCodeProtocol, "HEADERS in the middle of the stream")
	}
	if !c.last {
		return nil
	}
	return c.over(c.trailers())
}

// isGRPC says whether a content type is application/grpc or one of its kinds.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// trailers is the end that trailers make.
func (c *Client) trailers() error {
	h := &c.header
	if h.grpcStatus == "" && h.httpStatus != "" && h.httpStatus != "200" {
		return c.notGRPC()
	}
	code := codes.Unknown
	if h.grpcStatus != "" {
		n, err := strconv.ParseInt(h.grpcStatus, 10, 32)
		if err != nil {
			return status.Errorf(codes.Unknown, "grpc-status %q is no number", h.grpcStatus)
		}
		code = codes.Code(n)
	}
	if code != codes.OK {
		return status.Error(code, unescape(h.message))
	}
	if c.part < c.partEnd {
		return internal("the stream ended in the middle of a message")
	}
	return errEnd
}

// notGRPC is the end that an HTTP answer makes which is not gRPC's. The codes
// are those of https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md.
func (c *Client) notGRPC() error {
	h := &c.header
	code := codes.Unknown
	n, err := strconv.Atoi(h.httpStatus)
	switch {
	case err != nil, n == http.StatusBadRequest:
		code = codes.Internal
	case n == http.StatusUnauthorized:
		code = codes.Unauthenticated
	case n == http.StatusForbidden:
		code = codes.PermissionDenied
	case n == http.StatusNotFound:
		code = codes.Unimplemented
	case n == http.StatusTooManyRequests, n >= http.StatusBadGateway && n <= http.StatusGatewayTimeout:
		code = codes.Unavailable
	}
	st := status.Newf(code, "the server answered with HTTP status %q (%s) and content type %q", h.httpStatus, http.StatusText(n), h.contentType)
	if code == codes.Unavailable {
		return st.Err()
	}
	return &Error{status: st, kind: ErrProtocol} // another client may be answered otherwise
}

// unescape undoes the percent-encoding of a grpc-message. What is no escape
// stays as it is.
func unescape(message string) string {
	if !strings.Contains(message, "%") {
		return message
	}
	out := make([]byte, 0, len(message))
	for i := 0; i < len(message); i++ {
		if message[i] == '%' && i+2 < len(message) {
			if b, err := strconv.ParseUint(message[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 2
				continue
			}
		}
		out = append(out, message[i])
	}
	return string(out)
}
