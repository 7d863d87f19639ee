package filetail

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"syscall"
	"time"

	"tetracast/internal/source/line"
)

// contentBytes is how much of a file's beginning, and of what is before a position, its
// content is known by: enough for the exec_id and the time of an event, which no
// two files have in common. Below leastContent it says nothing.
const (
	contentBytes = 1024
	leastContent = 64
)

// inode tells the files that are there at one time from each other.
type inode struct{ dev, number uint64 }

func inodeOf(info os.FileInfo) inode {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return inode{uint64(s.Dev), s.Ino}
	}
	return inode{}
}

// content is a checksum over so many bytes. The zero value is none.
type content struct {
	sum   uint64
	bytes int
}

func contentOf(text []byte) content {
	if len(text) == 0 {
		return content{}
	}
	h := fnv.New64a()
	_, _ = h.Write(text)
	return content{h.Sum64(), len(text)}
}

// begins says whether the text begins with the content.
func (c content) begins(text []byte) bool {
	return len(text) >= c.bytes && contentOf(text[:c.bytes]) == c
}

// position is how far a file was read: behind the last event that is whole.
type position struct {
	offset int64   // of the plain text
	before content // of the bytes before it
}

// file is one of the set of a log.
type file struct {
	path   string // where it was seen last
	id     inode  // zero: it is known by its content only
	head   content
	at     position // behind what was handed on
	settle position // behind what has reached its end
	done   bool     // read to its end, and nobody writes to it any more
	closed bool     // and all of it has reached its end

	// As of the last look.
	live      bool
	placed    bool  // it has a name
	moved     bool  // since the look before
	size      int64 // of the file as it is stored
	time      int64 // of its last change, in nanoseconds since 1970
	left      time.Time
	truncated bool // it was written anew: what it was may be found in a copy

	// While it is open.
	fd     *os.File
	in     io.Reader // of the plain text; nil: fd at readTo
	readTo int64
	begin  []byte // the file's first bytes
	before []byte // those before readTo
	lines  line.Splitter
	grew   time.Time // when something was read last

	err     error     // why it cannot be read; nil: it can
	retry   time.Time // not to be opened before
	retries int
}

// What opening a file can find.
var (
	errNotFile = errors.New("filetail: not a regular file")
	errOther   = errors.New("filetail: the name belongs to another file now") // look again
	errChanged = errors.New("filetail: what is before the position is not what was read")
)

func (f *file) isOpen() bool { return f.fd != nil }

func (f *file) zipped() bool { return (&candidate{path: f.path}).zipped() }

// open opens the file where its name was, and goes to its position.
func (f *file) open() (err error) {
	fd, info, err := openFile(f.path)
	if err != nil {
		return err
	}
	f.fd, f.in = fd, nil
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.id != (inode{}) && inodeOf(info) != f.id {
		return errOther
	}
	if f.zipped() {
		err = f.seekZipped()
	} else {
		err = f.seek()
	}
	if err != nil {
		return err
	}
	if !f.head.begins(f.begin) || f.at.before.bytes > 0 && !f.at.before.begins(f.before[max(0, len(f.before)-f.at.before.bytes):]) {
		return errChanged
	}
	f.readTo = f.at.offset
	f.lines.Reset()
	return nil
}

// openFile opens a regular file. It does not wait for the writer of a pipe.
func openFile(path string) (*os.File, os.FileInfo, error) {
	fd, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := fd.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w, but %s", path, errNotFile, kindOf(info.Mode()))
	}
	if err != nil {
		_ = fd.Close() // it was only read
		return nil, nil, err
	}
	return fd, info, nil
}

// seek reads what the file is known by.
func (f *file) seek() error {
	var err error
	if f.begin, err = readAt(f.fd, 0, contentBytes); err != nil {
		return err
	}
	from := max(0, f.at.offset-contentBytes)
	if f.before, err = readAt(f.fd, from, int(f.at.offset-from)); err != nil {
		return err
	}
	if from+int64(len(f.before)) < f.at.offset {
		return errChanged // it is shorter
	}
	return nil
}

// readAt reads up to n bytes; there may be fewer.
func readAt(fd *os.File, offset int64, n int) ([]byte, error) {
	text := make([]byte, n, contentBytes)
	n, err := fd.ReadAt(text, offset)
	if err == io.EOF {
		err = nil
	}
	return text[:n], err
}

// seekZipped is seek for a compressed file, which has to be read up to the position.
func (f *file) seekZipped() error {
	in, err := gzip.NewReader(f.fd)
	if err != nil {
		return err
	}
	f.begin = make([]byte, contentBytes)
	n, err := io.ReadFull(in, f.begin)
	f.begin = f.begin[:n]
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	plain := io.MultiReader(bytes.NewReader(bytes.Clone(f.begin)), in)
	keep := min(f.at.offset, contentBytes)
	if n, err := io.CopyN(io.Discard, plain, f.at.offset-keep); err != nil {
		return shorter(n, f.at.offset-keep, err)
	}
	f.before = make([]byte, keep, contentBytes)
	if n, err := io.ReadFull(plain, f.before); err != nil {
		return shorter(int64(n), keep, err)
	}
	f.in = plain
	return nil
}

// shorter is the error of a file that ends in order before the position.
func shorter(n, want int64, err error) error {
	if n < want && err == io.EOF {
		return errChanged
	}
	return err
}

// fill reads on. What is new begins at text[from], before it stands what was read
// last. Nothing is new at the file's end for now. The error is errChanged if the file is not any more
// what was read: what is before the position is read again each time.
func (f *file) fill(buffer []byte) (text []byte, from int, err error) {
	from = len(f.before)
	if f.in != nil {
		copy(buffer, f.before)
		n, err := io.ReadAtLeast(f.in, buffer[from:], 1)
		if err == io.EOF {
			err = nil
		}
		return buffer[:from+n], from, err
	}
	n, err := f.fd.ReadAt(buffer, f.readTo-int64(from))
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	seen := f.before
	if f.readTo < int64(len(f.begin)) {
		seen = f.begin // of which the bytes before are the beginning
	}
	if n < len(seen) || !bytes.Equal(buffer[:len(seen)], seen) {
		return nil, 0, errChanged
	}
	return buffer[:n], from, nil
}

// advance notes that the text of fill was taken, but for its last bytes, which fill
// will return again. It says whether more of the file's beginning is known.
func (f *file) advance(text []byte, from, left int) (news bool) {
	if left > 0 && f.in != nil {
		f.in = io.MultiReader(bytes.NewReader(bytes.Clone(text[len(text)-left:])), f.in)
	}
	text = text[:len(text)-left]
	if missing := int64(len(f.begin)) - f.readTo; len(f.begin) < contentBytes && missing >= 0 && missing < int64(len(text)-from) {
		more := text[from+int(missing):]
		f.begin = append(f.begin, more[:min(len(more), contentBytes-len(f.begin))]...)
		news = true
	}
	f.readTo += int64(len(text) - from)
	f.before = append(f.before[:0], text[max(0, len(text)-contentBytes):]...)
	return news
}

// known returns what the file's beginning is known by, as far as it is.
func (f *file) known() content {
	if f.isOpen() && len(f.begin) > f.head.bytes {
		f.head = contentOf(f.begin)
	}
	return f.head
}

// same says whether a text of up to contentBytes is the beginning of this file, or of
// a copy that is being made of it.
func (f *file) same(text []byte) bool {
	if f.isOpen() {
		n := min(len(text), len(f.begin))
		return n >= leastContent && bytes.Equal(text[:n], f.begin[:n])
	}
	return f.head.bytes >= leastContent && f.head.begins(text)
}

// quiet says whether nothing was written for a look since it lost the name.
func (f *file) quiet(now time.Time) bool {
	if now.Sub(f.left) < lookInterval {
		return false
	}
	if now.Sub(f.grew) >= lookInterval {
		return true
	}
	info, err := f.fd.Stat()
	return err == nil && now.Sub(info.ModTime()) >= lookInterval // it was written long ago
}

func (f *file) close() {
	if f.fd != nil {
		f.known()
		_ = f.fd.Close() // it was only read
	}
	f.fd, f.in, f.begin, f.before = nil, nil, nil, nil
	f.lines.Reset()
}

// kindOf names what is no regular file.
func kindOf(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&os.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&os.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
