package sink

import (
	"fmt"
	"io"
	"os"
	"sort"
)

// Lines is the sink that writes lines as they are, each batch with one write
// call.
type Lines struct {
	w    io.Writer
	file *os.File // w as a regular file, whose end can be cut back; else nil
	torn bool     // the last byte written is not a newline
	over int64    // bytes behind the last whole line that are to be cut off; 0: they stay
}

// NewLines returns a sink on w, for example standard output. Close leaves w
// open.
func NewLines(w io.Writer) *Lines {
	s := &Lines{w: w}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			s.file = f
		}
	}
	return s
}

// Write implements [Sink]. A batch is one write call, unless the kernel takes
// it in parts.
func (s *Lines) Write(b *Batch) (lines int, err error) { return s.write(b, 0, b.Len()) }

// write writes the lines [from, to) and returns how many of them were taken.
func (s *Lines) write(b *Batch, from, to int) (lines int, err error) {
	if from == to {
		return 0, nil
	}
	if err := s.mend(); err != nil {
		return 0, err
	}
	start := b.start(from)
	text := b.Text[start:b.Ends[to-1]]
	n, err := s.w.Write(text)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	if err == nil {
		return to - from, nil
	}
	err = fmt.Errorf("sink: writing %d bytes: %w", len(text), err)
	// lines is the first whose end was not reached: as many are whole.
	lines = sort.SearchInts(b.Ends[from:to], start+n+1)
	if part := start + n - b.start(from+lines); part > 0 {
		s.torn = !s.cut(int64(part))
		if s.torn && s.file != nil {
			s.over = int64(part)
		}
	}
	return lines, err
}

// mend makes the output end in a whole line: it cuts off what hangs over, or
// where that cannot be ends the line.
func (s *Lines) mend() error {
	if !s.torn {
		return nil
	}
	if s.over == 0 || !s.cut(s.over) {
		if _, err := s.w.Write([]byte{'\n'}); err != nil {
			return fmt.Errorf("sink: ending a torn line: %w", err)
		}
	}
	s.torn, s.over = false, 0
	return nil
}

// cut removes the last bytes that were written, and reports whether it could.
func (s *Lines) cut(bytes int64) bool {
	if s.file == nil {
		return false
	}
	info, err := s.file.Stat()
	if err != nil || s.file.Truncate(info.Size()-bytes) != nil {
		return false
	}
	// Without O_APPEND, as after a shell's ">", the offset is still behind the
	// new end.
	_, err = s.file.Seek(0, io.SeekEnd)
	return err == nil
}

// Close implements [Sink].
func (s *Lines) Close() error { return nil }
