package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
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

// splitter cuts what is read into lines.
type splitter struct {
	limit   int
	rest    []byte // of a line whose end is to come
	skip    bool   // up to the next newline: the line is too long
	pending int64  // bytes behind the last newline
	batch   [][]byte

	tooLong, rateLimited atomic.Uint64
}

func (s *splitter) stats() LineStats { return LineStats{s.tooLong.Load(), s.rateLimited.Load()} }

// split hands on the whole lines of text, in one batch, and keeps what is behind
// the last newline. Blank lines are left out.
func (s *splitter) split(text []byte, take Take) {
	s.batch = s.batch[:0]
	s.pending += int64(len(text))
	for {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			break
		}
		line := text[:end]
		text = text[end+1:]
		s.pending = int64(len(text))
		switch {
		case s.skip:
			s.skip = false
		case len(s.rest)+len(line) > s.limit:
			s.tooLong.Add(1)
		default:
			if len(s.rest) > 0 {
				line = append(s.rest, line...)
			}
			if len(bytes.TrimSpace(line)) > 0 {
				s.batch = append(s.batch, line)
			}
		}
		s.rest = nil // the batch may hold it
	}
	s.hand(s.batch, take)
	switch {
	case s.skip:
	case len(s.rest)+len(text) > s.limit:
		s.tooLong.Add(1)
		s.rest, s.skip = nil, true
	default:
		s.rest = append(s.rest, text...)
	}
}

// end hands on a last line that has no newline.
func (s *splitter) end(take Take) {
	if len(bytes.TrimSpace(s.rest)) > 0 {
		s.hand([][]byte{s.rest}, take)
	}
	s.reset()
}

// hand hands lines on, and reads in passing what Tetragon says of itself.
func (s *splitter) hand(batch [][]byte, take Take) {
	if len(batch) == 0 {
		return
	}
	for _, line := range batch {
		if !bytes.HasPrefix(line, []byte(`{"rate_limit_info"`)) {
			continue
		}
		var event struct {
			Info struct {
				Dropped uint64 `json:"number_of_dropped_process_events,string"`
			} `json:"rate_limit_info"`
		}
		if json.Unmarshal(line, &event) == nil {
			s.rateLimited.Add(event.Info.Dropped)
		}
	}
	take(batch)
}

func (s *splitter) reset() { s.rest, s.skip, s.pending = nil, false, 0 }

// readBytes is how much a source of lines reads at once.
const readBytes = 256 << 10

// Lines is a source of JSON lines that come in order and end: standard input.
type Lines struct {
	in       *os.File
	splitter splitter
}

// NewLines returns a source that reads from a file, pipe or terminal. It does not
// close it.
func NewLines(in *os.File) *Lines {
	return &Lines{in: in, splitter: splitter{limit: MaxLineBytes}}
}

// Stats returns the counts so far. It may be called at any time.
func (l *Lines) Stats() LineStats { return l.splitter.stats() }

// Run hands on each line, without its newline, until the end of the input, which
// is nil, or of ctx.
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
		l.splitter.split(buffer[:n], take)
		if err == io.EOF {
			l.splitter.end(take)
			return nil
		}
		if err != nil {
			return fmt.Errorf("source: reading standard input: %w", err)
		}
	}
}
