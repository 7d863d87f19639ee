package sink

import "errors"

// Batch is a list of lines, one after another in Text. The zero value is empty.
type Batch struct {
	Text []byte // the lines, each with its newline
	Ends []int  // Text[:Ends[i]] ends with line i
}

// Len returns the number of lines.
func (b *Batch) Len() int { return len(b.Ends) }

// Line returns line i with its newline, as a slice of Text.
func (b *Batch) Line(i int) []byte { return b.Text[b.start(i):b.Ends[i]] }

// start is where line i begins in Text; of the line after the last, where Text
// ends.
func (b *Batch) start(i int) int {
	if i == 0 {
		return 0
	}
	return b.Ends[i-1]
}

// Add appends a line, to which it adds the newline. The line is copied.
func (b *Batch) Add(line []byte) {
	b.Text = append(append(b.Text, line...), '\n')
	b.Ends = append(b.Ends, len(b.Text))
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.Text, b.Ends = b.Text[:0], b.Ends[:0] }

// Sink takes a collector's lines. It has one owner and need not be safe for
// concurrent use.
type Sink interface {
	// Write takes the lines in their order and returns how many of them, from
	// the front, have left the process whole; the error is nil only if all
	// have. The batch belongs to the caller and is valid during the call. A
	// sink whose Write failed can be written to again: the next batch goes on
	// with lines that were not offered before.
	//
	// Write may block as long as it must; the collector keeps reading
	// meanwhile, and drops what its queue has no room for.
	Write(b *Batch) (lines int, err error)
	// Close ends the sink. Nothing is written after it.
	Close() error
}

// Tee returns a sink that writes each batch to all sinks in turn. Its Write
// counts the lines that every one of them took, so a line counts as taken only
// if it is everywhere. The slowest sink sets the pace.
func Tee(sinks ...Sink) Sink { return tee(sinks) }

type tee []Sink

func (t tee) Write(b *Batch) (lines int, err error) {
	lines = b.Len()
	for _, s := range t {
		n, sinkErr := s.Write(b)
		lines, err = min(lines, n), errors.Join(err, sinkErr)
	}
	return lines, err
}

func (t tee) Close() (err error) {
	for _, s := range t {
		err = errors.Join(err, s.Close())
	}
	return err
}
