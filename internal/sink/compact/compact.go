package compact

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"

	"tetracast/internal/sink"
)

// Options says how lines look.
type Options struct {
	Color bool // with ANSI colours, for a terminal
	Time  bool // each line begins with the event's time, RFC 3339 in UTC
}

// Sink turns lines of JSON into lines for a person, and hands them on.
type Sink struct {
	next  sink.Sink
	time  bool
	line  line
	out   sink.Batch
	event tetragon.GetEventsResponse
}

// New returns a sink that hands its lines on to next, which it owns.
func New(next sink.Sink, options Options) *Sink {
	return &Sink{next: next, time: options.Time, line: line{color: options.Color}}
}

// Write implements [sink.Sink]. A line that is no event of Tetragon, nor of an
// agent, is shown as it is, shortened.
func (s *Sink) Write(b *sink.Batch) (lines int, err error) {
	s.out.Reset()
	for i := range b.Len() {
		s.line.reset()
		s.show(bytes.TrimSuffix(b.Line(i), []byte{'\n'}))
		s.out.Add(s.line.text)
	}
	return s.next.Write(&s.out) // line for line, so its count is ours
}

// Close closes the sink below.
func (s *Sink) Close() error { return s.next.Close() }

// show writes one JSON object to s.line.
func (s *Sink) show(object []byte) {
	if bytes.HasPrefix(object, []byte(`{"@timestamp"`)) {
		if s.showAgent(object) {
			return
		}
		s.line.reset()
	}
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(object, &s.event)
	if err == nil {
		if s.time && s.event.Time != nil {
			s.line.put(plain, s.event.Time.AsTime().Format(time.RFC3339Nano))
		}
		if s.line.event(&s.event) {
			return
		}
	}
	s.line.reset()
	s.line.verb("❔", firstKey(object))
	s.line.put(plain, string(object))
}

// firstKey returns the first key of a JSON object, which in an event names its
// kind.
func firstKey(object []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(object))
	_, _ = decoder.Token() // the brace
	key, _ := decoder.Token()
	name, _ := key.(string)
	return name
}
