package framer

import (
	"errors"
	"io"
	"os"

	"golang.org/x/net/http2"
)

const (
	// bufferBytes is the buffer of a call whose messages are short.
	bufferBytes = 128 << 10
	// readBytes bounds one read, and with it a batch.
	readBytes = 64 << 10
	// prefixBytes precede each message: a flag and the length.
	prefixBytes = 5
	// roomyReads is after how many reads that did not need it a large buffer is
	// given back.
	roomyReads = 1024
)

// makeRoom moves what is not finished to the front of the buffer, which it
// enlarges if a long message needs that. It invalidates the batch.
func (c *Client) makeRoom() {
	part, raw := c.partEnd-c.part, c.end-c.raw
	into := c.buf
	switch needed := part + raw + readBytes; {
	case needed > len(c.buf):
		// Doubled as the bytes come: what a prefix claims costs nothing.
		into = make([]byte, max(needed, min(2*len(c.buf), c.config.MaxReceiveBytes+bufferBytes)))
		c.roomy = 0
	case needed > bufferBytes:
		c.roomy = 0
	case len(c.buf) > bufferBytes:
		if c.roomy++; c.roomy == roomyReads {
			into = make([]byte, bufferBytes)
			c.roomy = 0
		}
	}
	other := len(into) != len(c.buf)
	if other {
		clear(c.batch[:cap(c.batch)]) // lets go of the old one
	}
	// Not onto itself: a long message comes in many reads.
	if other || c.part > 0 {
		copy(into, c.buf[c.part:c.partEnd])
	}
	if other || c.raw > part {
		copy(into[part:], c.buf[c.raw:c.end])
	}
	c.buf = into
	c.part, c.partEnd, c.raw, c.end = 0, part, part, part+raw
}

// fill reads once, whatever the number of deadlines that pass.
func (c *Client) fill() error {
	c.makeRoom()
	for {
		n, err := c.conn.Read(c.buf[c.end : c.end+readBytes])
		if n > 0 { // an error comes again
			c.end += n
			c.alive.reads++
			return nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = c.tick()
		} else {
			err = c.broken(err)
		}
		if err != nil {
			return err
		}
	}
}

// broken is the end of a connection before the end of the call.
func (c *Client) broken(err error) error {
	switch {
	case c.ctx.Err() != nil:
		return c.cancelled()
	case c.goAway != nil:
		return c.leftAlone()
	case err == io.EOF:
		return unavailable("the server closed the connection in the middle of the stream", io.ErrUnexpectedEOF)
	}
	return unavailable("the connection broke: "+err.Error(), err)
}

// parse looks at all whole frames that are there.
//
// Reading DATA through http2.Framer, even with SetReuseFrames, copies each payload
// once more: 210 ns a message of 600 bytes from memory, against 71, of which 30
// are the tape's (BenchmarkNext).
func (c *Client) parse() error {
	for c.end-c.raw >= frameHeaderBytes {
		head := c.buf[c.raw : c.raw+frameHeaderBytes : c.end]
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if length > maxFrameBytes {
			return c.violation(http2.ErrCodeFrameSize, "a frame of %d bytes, more than %d", length, maxFrameBytes)
		}
		next := c.raw + frameHeaderBytes + length
		if next > c.end {
			return nil
		}
		var err error
		if http2.FrameType(head[3]) == http2.FrameData && c.answered && c.blockSize == 0 {
			err = c.data(head, c.raw+frameHeaderBytes, next)
		} else {
			err = c.other(c.buf[c.raw:next])
		}
		if err != nil {
			return err
		}
		c.raw = next
	}
	return nil
}

// data takes a DATA frame with this head and its payload, buf[from:to].
func (c *Client) data(head []byte, from, to int) error {
	if head[5]&0x7f != 0 || head[6] != 0 || head[7] != 0 || head[8] != streamID {
		return c.violation(http2.ErrCodeProtocol, "DATA on a stream that is not open")
	}
	flags := http2.Flags(head[4])
	c.credit(to - from)
	if flags.Has(http2.FlagDataPadded) {
		if from == to || from+1+int(c.buf[from]) > to {
			return c.violation(http2.ErrCodeProtocol, "padding longer than its frame")
		}
		from, to = from+1, to-int(c.buf[from])
	}
	if err := c.split(from, to); err != nil {
		return err
	}
	if flags.Has(http2.FlagDataEndStream) {
		return c.over(internal("the server ended the stream without trailers"))
	}
	return nil
}

// split adds the messages in buf[from:to] to the batch. What is left is the
// beginning of the next one.
func (c *Client) split(from, to int) error {
	for c.part < c.partEnd { // a message began in an earlier frame
		want, have := prefixBytes, c.partEnd-c.part
		if have >= prefixBytes {
			length, err := c.messageBytes(c.part)
			if err != nil {
				return err
			}
			want += length
			if have == want {
				c.add(c.part+prefixBytes, c.partEnd)
				c.part = c.partEnd
				break
			}
		}
		if from == to {
			return nil
		}
		// Frame headers lie between the parts of a message: close the gap.
		n := copy(c.buf[c.partEnd:], c.buf[from:min(to, from+want-have)])
		c.partEnd, from = c.partEnd+n, from+n
	}
	for to-from >= prefixBytes {
		length, err := c.messageBytes(from)
		if err != nil {
			return err
		}
		if length > to-from-prefixBytes {
			break
		}
		next := from + prefixBytes + length
		c.add(from+prefixBytes, next)
		from = next
	}
	c.part, c.partEnd = from, to
	return nil
}

// add adds buf[from:to] to the batch.
func (c *Client) add(from, to int) { c.batch = append(c.batch, c.buf[from:to:to]) }

// messageBytes reads the length of the message whose prefix is at buf[at].
func (c *Client) messageBytes(at int) (int, error) {
	p := c.buf[at : at+prefixBytes]
	length := int64(p[1])<<24 | int64(p[2])<<16 | int64(p[3])<<8 | int64(p[4])
	if length > int64(c.config.MaxReceiveBytes) {
		return 0, tooLarge(length, c.config.MaxReceiveBytes)
	}
	if p[0] != 0 {
		return 0, c.compressed(p[0])
	}
	return int(length), nil
}

// credit lets the server send as much again, in large pieces: what came is read
// at once, so the windows are never small. That it stays within them is not
// checked: all it could do is not to wait for the next credit.
func (c *Client) credit(n int) {
	if c.uncredited += n; c.uncredited < windowBytes/2 {
		return
	}
	_ = c.frames.WriteWindowUpdate(0, uint32(c.uncredited))
	_ = c.frames.WriteWindowUpdate(streamID, uint32(c.uncredited))
	c.uncredited = 0
}
