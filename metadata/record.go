package metadata

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Record is an agent_init with its rendered bytes. It is immutable and safe
// for any number of goroutines.
type Record struct {
	event  *MetadataEvent
	line   []byte // nil if lent has it
	lent   *lent  // nil: line is in memory
	digest uint64
	made   time.Time
	bad    int // facts that NewEvent had to replace
}

// Renderer turns an event into one JSON object without a newline.
type Renderer func(*MetadataEvent) ([]byte, error)

// MaxRecord is the longest agent_init in bytes, newline included: what any format
// makes of it still fits a datagram.
const MaxRecord = 32 << 10

// NewRecord renders the facts. A nil render is [MetadataEvent.ToJSON]. What another
// one returns must be one JSON object on one line, of at most [MaxRecord] bytes;
// else the error says what is wrong with it.
func NewRecord(f Facts, render Renderer) (*Record, error) {
	if render == nil {
		render = (*MetadataEvent).ToJSON
	}
	event := NewEvent(f)
	text, err := render(event)
	if err == nil {
		err = checkRendered(text)
	}
	if err != nil {
		return nil, fmt.Errorf("metadata: making the record: %w", err)
	}
	line := make([]byte, 0, len(text)+1)
	line = append(append(line, text...), '\n')
	return &Record{event: event, line: line, digest: digest(*event), made: time.Now(), bad: badFacts(&f)}, nil
}

func checkRendered(text []byte) error {
	switch {
	case len(text) >= MaxRecord:
		return fmt.Errorf("%d bytes, more than %d", len(text), MaxRecord-1)
	case len(text) == 0 || text[0] != '{' || !json.Valid(text):
		return fmt.Errorf("%.40q is no JSON object", text)
	case bytes.IndexByte(text, '\n') >= 0:
		return errors.New("a JSON object of several lines")
	}
	return nil
}

// digest returns the first eight bytes of the SHA-256 of the event's JSON without
// what tells one start of an agent, and one destination, from another. It is not
// 0, which stands for no record.
func digest(event MetadataEvent) uint64 {
	event.Timestamp, event.PID, event.UDPDestination, event.StartedAt = "", 0, "", ""
	text, err := event.ToJSON()
	if err != nil {
		return 1 // two such records are taken for one
	}
	sum := sha256.Sum256(text)
	return max(1, binary.BigEndian.Uint64(sum[:]))
}

// Digest names what the record states of an agent, whenever it was started and
// wherever it sends: frames carry it, so that a receiver that lost this record
// knows it from another start. It is never 0.
func (r *Record) Digest() uint64 { return r.digest }

// Event returns what the record states. The caller must not change it.
func (r *Record) Event() *MetadataEvent { return r.event }

// JSON returns the rendered event. The caller must not change the bytes, which
// live as long as the record.
func (r *Record) JSON() []byte { line := r.Line(); return line[:len(line)-1] }

// Line returns the rendered event and one newline, under JSON's terms.
func (r *Record) Line() []byte {
	if r.lent != nil {
		return r.InMemory().line
	}
	return r.line
}

// Made returns when the record was made.
func (r *Record) Made() time.Time { return r.made }
