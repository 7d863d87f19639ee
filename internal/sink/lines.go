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
	w     io.Writer
	file  *os.File // w as a regular file, whose end can be cut back; else nil
	owned *os.File // what Close closes; nil if w belongs to the caller
	torn  bool     // the last byte written is not a newline
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

// OpenFile returns a sink that appends to the file at path, which it creates
// with mode 0600, as Tetragon does with its export file: events hold command
// lines. What an earlier process left as its last, unfinished line gets its
// newline, so that it does not swallow the first event. Close closes the file.
func OpenFile(path string) (*Lines, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sink: opening the output file: %w", err)
	}
	s := NewLines(f)
	s.owned = f
	if s.file == nil { // a device or a named pipe
		return s, nil
	}
	if s.torn, err = endsTorn(path); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("sink: reading the end of the output file: %w", err)
	}
	return s, nil
}

// endsTorn reports whether the file is not empty and its last byte is not a
// newline.
func endsTorn(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return last[0] != '\n', err
}

// Write implements [Sink]. A batch is one write call, unless the kernel takes
// it in parts.
func (s *Lines) Write(b *Batch) (lines int, err error) {
	if b.Len() == 0 {
		return 0, nil
	}
	if s.torn {
		if _, err := s.w.Write([]byte{'\n'}); err != nil {
			return 0, fmt.Errorf("sink: writing: %w", err)
		}
		s.torn = false
	}
	n, err := s.w.Write(b.Text)
	if err == nil && n < len(b.Text) {
		err = io.ErrShortWrite
	}
	if err == nil {
		return b.Len(), nil
	}
	err = fmt.Errorf("sink: writing %d bytes: %w", len(b.Text), err)
	// lines is the first whose end was not reached: as many are whole.
	lines = sort.SearchInts(b.Ends, n+1)
	whole := 0
	if lines > 0 {
		whole = b.Ends[lines-1]
	}
	if part := n - whole; part > 0 {
		s.torn = !s.cut(int64(part))
	}
	return lines, err
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
	_, err = s.file.Seek(-bytes, io.SeekCurrent)
	return err == nil
}

// Close implements [Sink].
func (s *Lines) Close() error {
	if s.owned == nil {
		return nil
	}
	if err := s.owned.Close(); err != nil {
		return fmt.Errorf("sink: closing the output file: %w", err)
	}
	return nil
}
