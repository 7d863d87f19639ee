package framer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// Config says how to make the call.
type Config struct {
	Authority       string // the server's name, for the header; empty: localhost
	UserAgent       string // empty: none is told
	MaxReceiveBytes int    // the longest message that is taken
}

// Client is one call. Next and Close belong to one goroutine; Batches may be
// called by any.
type Client struct {
	conn   net.Conn
	config Config
	ctx    context.Context // of the call; its end interrupts reads and writes
	unhook func() bool

	// What came. The messages of a batch lie in buf, before part.
	buf           []byte
	part, partEnd int // the beginning of a message that is not whole
	raw, end      int // frames that have not been looked at
	roomy         int // reads in a row that needed no large buffer
	batch         [][]byte
	batches       atomic.Uint64
	fresh         bool // the batch was not returned yet
	err           error

	// Control frames.
	frames  *http2.Framer
	control bytes.Reader // one frame, for frames to read
	out     bytes.Buffer // frames to write
	settled bool         // the server's SETTINGS came
	goAway  *http2.GoAwayFrame
	debug   string // of goAway

	// The answer's headers.
	block     []byte // of the headers that are not whole
	blockSize int    // on the wire, with frame headers
	last      bool   // the headers end the stream
	fields    *hpack.Decoder
	header    header
	answered  bool
	encoding  string // of compressed messages

	// Flow control.
	uncredited    int    // bytes that came and were not credited to the server
	request       []byte // not sent yet
	streamWindow  int64  // bytes of it that the server takes
	connWindow    int64
	initialWindow int64
	sendFrame     int // bytes of the largest frame that the server takes

	alive alive
}

const (
	streamID = 1 // the only one

	frameHeaderBytes = 9
	maxFrameBytes    = 16384 // the least that may be allowed; grpc-go sends no larger ones anyway

	// The server may be this far ahead of our reading. What bounds it is the
	// socket's buffer, not the window: nothing is gained by a small one.
	windowBytes = 16 << 20

	maxWindow = 1<<31 - 1 // RFC 9113, section 6.9.1
)

// Open makes the call on a connection, which it owns from here on: also an
// error closes it. It returns when the server's SETTINGS came, which is before
// it knows whether the server accepts the call. The call ends with ctx; if that
// was cancelled with a cause, Next returns it.
func Open(ctx context.Context, conn net.Conn, request *tetragon.GetEventsRequest, config Config) (*Client, error) {
	message, err := proto.Marshal(request)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("framer: marshalling the request: %w", err)
	}
	if config.Authority == "" {
		config.Authority = "localhost"
	}
	c := &Client{
		conn: conn, config: config, ctx: ctx, buf: make([]byte, bufferBytes),
		streamWindow: 65535, connWindow: 65535, initialWindow: 65535, sendFrame: maxFrameBytes,
	}
	c.request = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	c.frames = http2.NewFramer(&c.out, &c.control)
	c.frames.SetMaxReadFrameSize(maxFrameBytes)
	c.fields = hpack.NewDecoder(4096, c.field)
	c.fields.SetMaxStringLength(maxHeaderBytes)
	// A past deadline interrupts what waits, and what comes after.
	c.unhook = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	c.writePreface()
	if c.err = c.flush(); c.err == nil {
		c.err = c.arm(handshakeTimeout)
	}
	for c.err == nil && !c.settled {
		c.receive()
	}
	if !c.settled {
		err := c.err
		c.Close()
		return nil, err
	}
	return c, nil
}

// Next returns the messages that the next read brings, at least one, in order.
// They are valid until the next call. After the last it returns how the call
// ended, again and again.
func (c *Client) Next() ([][]byte, error) {
	for !c.fresh || len(c.batch) == 0 {
		if c.err != nil {
			return nil, c.err
		}
		c.receive()
	}
	c.fresh = false
	c.batches.Store(c.batches.Load() + 1) // one writer: no need for a locked add
	return c.batch, nil
}

// Batches counts what Next has returned.
func (c *Client) Batches() uint64 { return c.batches.Load() }

// Close ends the call, if it has not ended, and the connection. The server is
// told, if it listens.
func (c *Client) Close() {
	c.unhook()
	if c.err == nil || c.ctx.Err() != nil {
		_ = c.frames.WriteRSTStream(streamID, http2.ErrCodeCancel)
	}
	if c.out.Len() > 0 {
		_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
		_, _ = c.conn.Write(c.out.Bytes()) // a courtesy
	}
	_ = c.conn.Close()
}

// receive reads once, and makes a batch of what came. How the call ended stands
// in err, beside the messages that came before.
func (c *Client) receive() {
	c.batch, c.fresh = c.batch[:0], true
	if c.err = c.fill(); c.err != nil {
		return
	}
	if c.err = c.parse(); c.err != nil {
		return
	}
	c.err = c.flush()
}
