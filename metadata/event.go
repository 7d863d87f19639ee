package metadata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The constant values of an agent_init.
const (
	EventAgentInit = "agent_init"
	OSLinux        = "linux"
	UptimeInit     = "initialized at 0"

	// Unknown stands where a fact could not be read.
	Unknown = "unknown"
)

// MetadataEvent is the agent_init event. Its fields stand in the order in
// which they are written. It is a plain value; nothing changes it after
// [NewEvent] made it.
type MetadataEvent struct {
	Timestamp       string `json:"@timestamp"` // RFC 3339, UTC: when the event was made
	Event           string `json:"event"`      // EventAgentInit
	TetragonVersion string `json:"tetragon_version"`
	BuildCommit     string `json:"build_commit,omitempty"`
	BuildDate       string `json:"build_date,omitempty"`
	Hostname        string `json:"hostname"`
	OS              string `json:"os"`
	KernelVersion   string `json:"kernel_version"`
	PID             int    `json:"pid"`
	UDPDestination  string `json:"udp_destination"` // host:port, as asked for
	UDPBufferSize   int    `json:"udp_buffer_size"` // bytes of socket send buffer, as asked for
	Uptime          string `json:"uptime"`
	// Labels are what the user says of the agent, and facts beyond those above;
	// written with their names in order. Empty: left out.
	Labels map[string]string `json:"labels,omitempty"`
	// StartedAt is when the process began, as RFC 3339, UTC. Every record that it makes
	// has the same. Empty: left out.
	StartedAt string `json:"started_at,omitempty"`
}

// NewMetadataEvent returns an event about this process and host as they are
// now, for a destination given as host:port and a send buffer in bytes. The
// version of Tetragon is unknown here; [NewEvent] takes it as a fact.
func NewMetadataEvent(udpDestination string, udpBufferSize int) *MetadataEvent {
	facts := HostFacts()
	facts.UDPDestination, facts.UDPBufferSize = udpDestination, udpBufferSize
	return NewEvent(facts)
}

// MaxFact is the longest a fact may be, in bytes. Host names have at most 255
// (RFC 1035, section 2.3.4); what is longer is cut.
const MaxFact = 256

// NewEvent returns the event that states the facts. An empty fact that has no
// meaning of its own becomes [Unknown], one that is longer than [MaxFact] is cut, and
// each run of bytes that is not UTF-8 becomes U+FFFD; a zero Time becomes now. The labels are those of f, not a copy.
func NewEvent(f Facts) *MetadataEvent {
	if f.Time.IsZero() {
		f.Time = time.Now()
	}
	started := ""
	if !f.Started.IsZero() {
		started = f.Started.UTC().Format(time.RFC3339Nano)
	}
	return &MetadataEvent{
		Timestamp:       f.Time.UTC().Format(time.RFC3339Nano),
		Event:           EventAgentInit,
		TetragonVersion: orUnknown(f.TetragonVersion),
		BuildCommit:     tidy(f.BuildCommit),
		BuildDate:       tidy(f.BuildDate),
		Hostname:        orUnknown(f.Hostname),
		OS:              OSLinux,
		KernelVersion:   orUnknown(f.KernelVersion),
		PID:             f.PID,
		UDPDestination:  f.UDPDestination,
		UDPBufferSize:   f.UDPBufferSize,
		Uptime:          UptimeInit,
		Labels:          f.Labels,
		StartedAt:       started,
	}
}

// ToJSON returns the event as one JSON object without a newline, in memory of
// its own. It does not fail today; the error is there for renderings that can.
func (e *MetadataEvent) ToJSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // a log is no HTML: keep < > & readable
	if err := encoder.Encode(e); err != nil {
		return nil, fmt.Errorf("metadata: writing agent_init as JSON: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte{'\n'}), nil
}

func orUnknown(fact string) string {
	if fact == "" {
		return Unknown
	}
	return tidy(fact)
}

// tidy returns a fact as it can be stated. A receiver that reads it gets the same
// text, so that it finds the same digest.
func tidy(fact string) string {
	return cut(strings.ToValidUTF8(cut(fact), "\ufffd"))
}

// cut shortens a fact that is too long, between two characters.
func cut(fact string) string {
	if len(fact) <= MaxFact {
		return fact
	}
	n := MaxFact
	for n > MaxFact-utf8.UTFMax && !utf8.RuneStart(fact[n]) {
		n--
	}
	return fact[:n]
}

// badFacts counts the facts for which NewEvent puts something else, or JSON does.
func badFacts(f *Facts) (n int) {
	for _, fact := range []string{f.Hostname, f.KernelVersion, f.TetragonVersion} {
		if fact == "" {
			n++
		}
	}
	for _, fact := range []string{f.Hostname, f.KernelVersion, f.TetragonVersion, f.BuildCommit, f.BuildDate} {
		if len(fact) > MaxFact || !utf8.ValidString(fact) {
			n++
		}
	}
	return n
}
