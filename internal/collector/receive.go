package collector

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tetracast/internal/udp"
)

// drainWait is how long the socket must stay empty at the end until it counts
// as drained. What a sender on this host sent before is there at once.
const drainWait = 2 * time.Millisecond

// packet is one datagram as it was received.
type packet = udp.Datagram

// receiver is the socket. Its receive has one caller; the rest is safe for
// concurrent use.
type receiver interface {
	// receive waits for datagrams. They are valid until the next call. The
	// error is os.ErrDeadlineExceeded after interrupt or the deadline.
	receive() ([]packet, error)
	// setDeadline ends the receives from now on at that time.
	setDeadline(time.Time) error
	// interrupt ends the receive that waits, and those to come.
	interrupt()
	// dropped returns how many datagrams the kernel dropped for want of room.
	dropped() uint64
	addr() netip.AddrPort
	close() error
}

// receivers are the sockets of a collector, at least one.
type receivers []receiver

func (r receivers) addr() netip.AddrPort { return r[0].addr() }

func (r receivers) interrupt() {
	for _, in := range r {
		in.interrupt()
	}
}

func (r receivers) dropped() (datagrams uint64) {
	for _, in := range r {
		datagrams += in.dropped()
	}
	return datagrams
}

func (r receivers) close() (err error) {
	for _, in := range r {
		err = errors.Join(err, in.close())
	}
	return err
}

// each runs f on each socket, by its index, on goroutines of their own if there
// are several, and returns when all have ended. One that fails ends the others.
func (r receivers) each(f func(int) error) error {
	if len(r) == 1 {
		return f(0)
	}
	errs := make([]error, len(r))
	var wg sync.WaitGroup
	for i := range r {
		wg.Go(func() {
			if errs[i] = f(i); errs[i] != nil {
				r.interrupt()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// receive takes datagrams until the receiver is interrupted or fails.
func (c *Collector) receive(socket int) error {
	var junk junkLog
	for {
		packets, err := c.in[socket].receive()
		if len(packets) > 0 {
			c.heard.now()
			if faulty := c.intakes[socket].take(packets); faulty != nil {
				junk.report(c, faulty)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		default:
			return err
		}
	}
}

// drainSocket takes what the socket holds, until it is empty or the end comes.
func (c *Collector) drainSocket(socket int, end time.Time) {
	in := c.in[socket]
	for now := time.Now(); now.Before(end); now = time.Now() {
		if in.setDeadline(now.Add(drainWait)) != nil {
			return
		}
		packets, err := in.receive()
		c.intakes[socket].take(packets)
		if err != nil {
			return
		}
	}
}

// endReceiving says that the queue holds all there will be.
func (c *Collector) endReceiving() {
	dropped := c.in.dropped()
	c.mu.Lock()
	c.received, c.socketDropped = true, dropped
	c.closed = true
	c.mu.Unlock()
	c.wakeWriter()
}

// junkLog logs that junk comes, at most once in logInterval.
type junkLog struct {
	next time.Time
}

func (j *junkLog) report(c *Collector, last *packet) {
	now := time.Now()
	if now.Before(j.next) {
		return
	}
	j.next = now.Add(logInterval)
	c.mu.Lock()
	faults := c.account.Undecodable
	c.mu.Unlock()
	c.config.Log.Warn("Datagrams that cannot be decoded are counted and left out",
		"undecodable_datagrams", faults.String(), "last_source", last.Source)
}

// heard knows when the last datagrams came. It reads the clock only if somebody
// waits for silence.
type heard struct {
	exitIdle time.Duration
	start    time.Time
	first    chan struct{} // closed when the first datagram came
	last     atomic.Int64  // nanoseconds since start; 0: nothing came
}

func newHeard(exitIdle time.Duration) *heard {
	return &heard{exitIdle: exitIdle, start: time.Now(), first: make(chan struct{})}
}

// now notes that datagrams came.
func (h *heard) now() {
	if h.exitIdle == 0 {
		return
	}
	if h.last.Swap(max(1, int64(time.Since(h.start)))) == 0 {
		close(h.first)
	}
}

// awaitIdle waits until nothing came for exitIdle after the first datagram, and
// returns false if ctx ended before.
func (h *heard) awaitIdle(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-h.first:
	}
	for {
		left := h.exitIdle - (time.Since(h.start) - time.Duration(h.last.Load()))
		if left <= 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(left):
		}
	}
}
