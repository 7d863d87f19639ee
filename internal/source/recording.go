package source

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// MaxMessageBytes is the longest message a recording may hold and the largest
// that a subscription takes by default.
const MaxMessageBytes = 64 << 20

// Errors of a recording, for errors.Is.
var (
	// ErrNoRecording: the bytes are not messages that follow each other.
	ErrNoRecording = errors.New("not a recording")
	// ErrCutOff: the recording ends inside a message. All before it is good.
	ErrCutOff = errors.New("the recording is cut off")
)

// Recording reads recorded events: messages of type GetEventsResponse, each
// preceded by its length as a varint, plain or compressed with gzip or zstd. It
// has one owner.
type Recording struct {
	in      *bufio.Reader
	closers []func() error
	offset  int64 // of the next message, in uncompressed bytes
	buffer  []byte
}

// OpenRecording opens a file. The error names the path.
func OpenRecording(path string) (*Recording, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("source: opening the recording: %w", err)
	}
	r, err := NewRecording(file)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.closers = append(r.closers, file.Close)
	return r, nil
}

// NewRecording reads from in, and tells a compression from its first bytes.
func NewRecording(in io.Reader) (*Recording, error) {
	buffered := bufio.NewReaderSize(in, 1<<16)
	head, err := buffered.Peek(4)
	if err != nil && len(head) == 0 && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("source: reading the recording: %w", err)
	}
	r := &Recording{in: buffered}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}): // RFC 1952, section 2.3.1
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("source: reading the recording's gzip header: %w: %w", ErrNoRecording, err)
		}
		r.in = bufio.NewReaderSize(unzipped, 1<<16)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878, section 3.1.1
		unzipped, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, fmt.Errorf("source: reading the recording's zstd header: %w", err)
		}
		r.closers = append(r.closers, func() error { unzipped.Close(); return nil })
		r.in = bufio.NewReaderSize(unzipped, 1<<16)
	}
	return r, nil
}

// Next returns the next message, which is valid until the next call, or io.EOF
// behind the last. A recording that ends inside a message is ErrCutOff, other
// damage ErrNoRecording; both name the offset of the message, in uncompressed
// bytes.
func (r *Recording) Next() ([]byte, error) {
	length, err := binary.ReadUvarint(r.in)
	switch {
	case err == io.EOF: // not a byte of it
		return nil, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("source: message at offset %d: its length: %w", r.offset, ErrCutOff)
	case err != nil:
		return nil, fmt.Errorf("source: message at offset %d: its length: %w: %w", r.offset, ErrNoRecording, err)
	case length > MaxMessageBytes:
		return nil, fmt.Errorf("source: message at offset %d: length %d, limit %d: %w", r.offset, length, MaxMessageBytes, ErrNoRecording)
	}
	message, err := r.read(int(length))
	if r.offset == 0 && errors.Is(err, ErrCutOff) {
		// Not one whole message: any short text could look like this.
		return nil, fmt.Errorf("%w, or it is %w", err, ErrNoRecording)
	}
	if err != nil {
		return nil, err
	}
	if !startsLikeMessage(message) {
		return nil, fmt.Errorf("source: message at offset %d: no protobuf message of an event: %w", r.offset, ErrNoRecording)
	}
	r.offset += int64(len(binary.AppendUvarint(nil, length))) + int64(length)
	return message, nil
}

// read reads a message of that length. The buffer grows as bytes arrive, so a
// damaged length costs no memory.
func (r *Recording) read(length int) ([]byte, error) {
	const step = 1 << 20
	r.buffer = r.buffer[:0]
	for len(r.buffer) < length {
		n := min(step, length-len(r.buffer))
		start := len(r.buffer)
		r.buffer = append(r.buffer, make([]byte, n)...)
		switch got, err := io.ReadFull(r.in, r.buffer[start:]); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("source: message at offset %d: %d of %d bytes: %w", r.offset, start+got, length, ErrCutOff)
		case err != nil:
			return nil, fmt.Errorf("source: message at offset %d: %w: %w", r.offset, ErrNoRecording, err)
		}
	}
	return r.buffer, nil
}

// startsLikeMessage refuses text and other files that happen to begin with a
// small number: the first tag of an event is a field of at least 1 with a length
// or a varint behind it.
func startsLikeMessage(message []byte) bool {
	if len(message) == 0 {
		return true // every field has its zero value
	}
	tag, n := binary.Uvarint(message)
	wireType := tag & 7
	return n > 0 && tag>>3 > 0 && (wireType == 0 || wireType == 2)
}

// Run hands on the recording's messages, in batches, until its end or until ctx
// ends. It closes the recording. What was read before a damage is handed on
// before the error is returned.
func (r *Recording) Run(ctx context.Context, take Take) error {
	defer func() { _ = r.Close() }()
	const batchBytes = 32 << 10
	var text []byte
	var ends []int
	var batch [][]byte
	flush := func() {
		batch = batch[:0]
		start := 0
		for _, end := range ends {
			batch = append(batch, text[start:end])
			start = end
		}
		if len(batch) > 0 {
			take(batch)
		}
		text, ends = text[:0], ends[:0]
	}
	defer flush()
	for ctx.Err() == nil {
		message, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		text = append(text, message...)
		ends = append(ends, len(text))
		if len(text) >= batchBytes {
			flush()
		}
	}
	return ctx.Err()
}

// Close closes the file.
func (r *Recording) Close() error {
	var errs []error
	for _, closer := range r.closers {
		errs = append(errs, closer())
	}
	r.closers = nil
	return errors.Join(errs...)
}
