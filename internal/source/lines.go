package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"tetracast/internal/source/line"
)

// MaxLineBytes is the longest line that is taken: the largest message as JSON,
// which is longer than as protobuf.
const MaxLineBytes = 2 * MaxMessageBytes

// LineStats counts what is not among the lines that were handed on.
type LineStats struct {
	TooLong uint64 // lines of more than MaxLineBytes
	// RateLimited are the events that Tetragon says it left out of its export, in
	// rate_limit_info.
	RateLimited uint64
}

// readBytes is how much a source of lines reads at once.
const readBytes = 256 << 10

// Lines is a source of events in lines that come in order and end: standard input.
type Lines struct {
	in     *os.File
	split  line.Splitter
	unwrap line.Unwrapper
	batch  [][]byte

	tooLong, rateLimited atomic.Uint64
}

// NewLines returns a source that reads from a file, pipe or terminal. It does not
// close it.
func NewLines(in *os.File) *Lines {
	return &Lines{in: in, split: line.Splitter{Limit: MaxLineBytes}, unwrap: line.Unwrapper{Limit: MaxLineBytes}}
}

// Stats returns the counts so far. It may be called at any time.
func (l *Lines) Stats() LineStats { return LineStats{l.tooLong.Load(), l.rateLimited.Load()} }

// Run hands on the events of each line, without its newline, until the end of the
// input, which is nil, or of ctx.
func (l *Lines) Run(ctx context.Context, take Take) error {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("source: making an eventfd: %w", err)
	}
	defer func() { _ = unix.Close(stop) }()
	unhook := context.AfterFunc(ctx, func() { _, _ = unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer unhook()
	buffer := make([]byte, readBytes)
	input := int32(l.in.Fd())
	for {
		// A read of a pipe cannot be interrupted, a poll can.
		fds := []unix.PollFd{{Fd: input, Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("source: waiting for standard input: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := l.in.Read(buffer)
		l.hand(buffer[:n], err == io.EOF, take)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("source: reading standard input: %w", err)
		}
	}
}

// hand hands on the events in the whole lines of text; at the end a last line needs no
// newline.
func (l *Lines) hand(text []byte, end bool, take Take) {
	for {
		one, behind, ok := l.split.Cut(text)
		if !ok {
			break
		}
		l.batch, text = l.unwrap.Append(l.batch, one), behind
	}
	if end {
		l.batch = l.unwrap.Append(l.batch, l.split.End())
	}
	if len(l.batch) > 0 {
		take(l.batch)
	}
	clear(l.batch)
	l.batch = l.batch[:0]
	l.unwrap.Release()
	l.tooLong.Store(l.split.TooLong() + l.unwrap.TooLong())
	l.rateLimited.Store(l.unwrap.RateLimited())
}
