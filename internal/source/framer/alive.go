package framer

import (
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	handshakeTimeout = 5 * time.Second
	writeTimeout     = 10 * time.Second
	goodbyeTimeout   = 100 * time.Millisecond

	// The server is pinged when nothing came between two ticks so far apart.
	pingAfter = 30 * time.Second
	// A grpc-go server closes connections whose pings come closer than five
	// minutes with nothing sent in between (keepalive.EnforcementPolicy).
	pingSpacing = 5*time.Minute + 10*time.Second
	// It has to answer within twice this.
	pingWait = 5 * time.Second
)

// alive is what tells a silent server from a dead one. It reads no clock while
// messages come: the deadline of reads stands still, and passes once in
// pingAfter.
type alive struct {
	reads      uint64 // that brought something
	seen       uint64 // reads at the last tick
	pinged     uint64 // batches at the last ping, plus 1; 0: none was sent
	unanswered int    // ticks in a row without a read
}

// arm sets the time of the next tick.
func (c *Client) arm(wait time.Duration) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return c.broken(err)
	}
	if c.ctx.Err() != nil { // its end may have set the deadline before us
		return c.cancelled()
	}
	return nil
}

// tick is called when a read meets its deadline. Twice a deadline has to pass
// after a ping: the first may have passed while nobody was reading, because the
// messages before took long or the process was stopped.
func (c *Client) tick() error {
	if c.ctx.Err() != nil {
		return c.cancelled()
	}
	a := &c.alive
	if !c.settled {
		return stalled("the server sent no SETTINGS in %v", handshakeTimeout)
	}
	if a.reads != a.seen {
		a.seen, a.unanswered = a.reads, 0
		if a.pinged == c.Batches()+1 {
			return c.arm(pingSpacing)
		}
		return c.arm(pingAfter)
	}
	if a.unanswered++; a.unanswered > 2 {
		return stalled("the server did not answer a ping in %v", 2*pingWait)
	}
	if a.unanswered == 1 {
		a.pinged = c.Batches() + 1
		_ = c.frames.WritePing(false, [8]byte{'t', 'e', 't', 'r', 'a'})
		if err := c.flush(); err != nil {
			return err
		}
	}
	return c.arm(pingWait)
}

func stalled(format string, arguments ...any) error {
	return &Error{status: status.New(codes.Unavailable, fmt.Sprintf(format, arguments...)), kind: ErrStalled}
}

// flush writes the frames that are ready. What cannot be written is no end: the
// server may have said all, and closed, before it heard us. Reading finds out.
func (c *Client) flush() error {
	if c.out.Len() == 0 {
		return nil
	}
	err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if c.ctx.Err() != nil { // its end may have set the deadline before us
		return c.cancelled()
	}
	if err == nil {
		_, err = c.conn.Write(c.out.Bytes())
	}
	c.out.Reset()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if c.ctx.Err() != nil {
			return c.cancelled()
		}
		return stalled("the server read nothing in %v", writeTimeout)
	}
	return nil
}
