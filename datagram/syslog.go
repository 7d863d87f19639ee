package datagram

import (
	"bytes"
	"strconv"
	"time"

	"tetracast/transcode"
)

// DefaultEnterpriseID is the private enterprise number of the structured data
// that tetracast writes: 32473, which RFC 5612 reserves for examples, for
// tetracast has none of its own.
const DefaultEnterpriseID = 32473

// Facility is where a message comes from, as RFC 5424, section 6.2.1 numbers
// it: 0 to 23.
type Facility uint8

// The facilities that events get by default.
const (
	FacilityDaemon   Facility = 3  // what Tetragon and tetracast say of themselves
	FacilityAuthPriv Facility = 10 // what policies saw and did
	FacilityLocal0   Facility = 16 // what processes do anyway
	maxFacility      Facility = 23
)

// SyslogConfig says how [NewSyslog] writes. The zero value is usable. Names are
// cut to the length that RFC 5424, section 6 allows, and characters that it
// does not allow become a low line; an empty name is written as "-".
type SyslogConfig struct {
	Stream      uint64 // id of the stream
	MaxDatagram int    // in bytes; 0 and anything above it mean MaxPayload

	Hostname string // at most 255 characters
	AppName  string // at most 48; empty: tetracast
	ProcID   string // at most 128
	MsgID    string // at most 32; empty: the event's kind, such as process_exec

	// Facility of each kind of event; what is not in it gets the default of
	// docs/formats.md. Kind 0 stands for agent_init and agent_stats. Numbers
	// above 23 mean 23.
	Facility map[transcode.Kind]Facility
	// EnterpriseID is the number after the @ of our structured data. Zero:
	// DefaultEnterpriseID.
	EnterpriseID uint32
	// BOM puts a byte order mark before the JSON, which says that it is UTF-8.
	BOM bool
	// RFC3164 writes the older form, which has no structured data: such a stream
	// cannot be audited event by event. MsgID, EnterpriseID and BOM then mean
	// nothing, and the time does not say of which zone it is.
	RFC3164 bool
	// Zone is the zone of the time that RFC 3164 writes; nil: UTC. RFC 5424 writes UTC.
	Zone *time.Location
	// Now dates events that have no time: an originator that can tell the time must do
	// so (RFC 5424, section 6.2.3). Nil: such events have none, or, in RFC 3164, which
	// has no word for that, the first of January.
	Now func() time.Time
}

// Syslog is the format syslog: RFC 5424 over UDP as RFC 5426 has it, one event
// a datagram, the event as JSON in MSG without a newline.
//
// It implements [Packer] and [Limiter].
type Syslog struct {
	stamp
	maxDatagram int
	rfc3164     bool
	sequence    uint32 // of the last message, 1 to maxSequence

	priorities [numKinds]Facility
	name       []byte // from the space after the time up to the MSGID
	msgID      []byte // nil: the event's kind
	data       []byte // from the space after the MSGID up to the sequenceId's value
	element    []byte // from there up to the seq's value
	mark       string // the byte order mark, if any

	zone    *time.Location
	now     func() time.Time
	second  int64 // whose text is in clock
	clock   []byte
	record  recordForm
	summary transcode.Summary
}

// maxSequence is the last sequenceId before 1 follows: RFC 5424, section 7.3.1.
const maxSequence = 1<<31 - 1

const byteOrderMark = "\ufeff"

// NewSyslog returns a packer.
func NewSyslog(c SyslogConfig) *Syslog {
	if c.AppName == "" {
		c.AppName = "tetracast"
	}
	if c.EnterpriseID == 0 {
		c.EnterpriseID = DefaultEnterpriseID
	}
	p := &Syslog{maxDatagram: orMaxPayload(c.MaxDatagram), rfc3164: c.RFC3164, zone: time.UTC, now: c.Now, second: -1, stamp: stamp{stream: c.Stream}}
	for i := range p.priorities {
		kind := kindAt(i)
		facility, ok := c.Facility[kind]
		if !ok {
			facility = facilityOf(kind)
		}
		p.priorities[i] = min(facility, maxFacility)
	}
	if c.RFC3164 {
		if c.Zone != nil {
			p.zone = c.Zone
		}
		p.name = append(p.name, ' ')
		p.name = appendName(p.name, c.Hostname, 255)
		p.name = append(p.name, ' ')
		p.name = appendName(p.name, c.AppName, 32) // RFC 3164, section 4.1.3
		if c.ProcID != "" {
			p.name = append(appendName(append(p.name, '['), c.ProcID, 128), ']')
		}
		p.name = append(p.name, ": "...)
		return p
	}
	for _, field := range []struct {
		text string
		most int
	}{{c.Hostname, 255}, {c.AppName, 48}, {c.ProcID, 128}} {
		p.name = append(p.name, ' ')
		p.name = appendName(p.name, field.text, field.most)
	}
	p.name = append(p.name, ' ')
	if c.MsgID != "" {
		p.msgID = appendName(nil, c.MsgID, 32)
	}
	p.data = []byte(` [meta sequenceId="`)
	p.element = append(p.element, `"][tetracast@`...)
	p.element = strconv.AppendUint(p.element, uint64(c.EnterpriseID), 10)
	p.element = append(p.element, ` stream="`...)
	p.element = AppendStreamID(p.element, c.Stream)
	p.element = append(p.element, '"')
	if c.BOM {
		p.mark = byteOrderMark
	}
	return p
}

// appendName appends a header field: printable ASCII without spaces (RFC 5424,
// section 6), "-" if there is nothing in it.
func appendName(dst []byte, name string, most int) []byte {
	if name == "" {
		return append(dst, '-')
	}
	for i := range min(len(name), most) {
		c := name[i]
		if c <= ' ' || c > '~' {
			c = '_'
		}
		dst = append(dst, c)
	}
	return dst
}

// Pack adds the event as a datagram.
func (p *Syslog) Pack(b *Batch, event *Event) error {
	s, line := p.summaryOf(event), trimLine(event.Line)
	dst := p.appendHeader(b.room(maxHeader+len(line)), s, nameOf(s, line), event.Number)
	if dst = appendWithoutDEL(dst, line); len(dst) > p.maxDatagram {
		return ErrOversize
	}
	p.sequence = nextSequence(p.sequence)
	b.Add(b.keep(dst), 1)
	return nil
}

// del is the one control character that JSON does not escape. RFC 5424, section
// 6.4 wants none in MSG, and rsyslog writes #177 in its place.
const del = 0x7f

// appendWithoutDEL appends JSON with that character escaped.
func appendWithoutDEL(dst, line []byte) []byte {
	for {
		i := bytes.IndexByte(line, del)
		if i < 0 {
			return append(dst, line...)
		}
		dst = append(dst, line[:i]...)
		dst = append(dst, `\u007f`...)
		line = line[i+1:]
	}
}

// nameOf returns the name of the event's kind. One that this release does not know may
// have a name in the line.
func nameOf(s *transcode.Summary, line []byte) string {
	if s.Kind == 0 {
		if h, _ := readHeadline(line); h.kind != nil {
			return string(appendName(nil, string(h.kind), 32))
		}
	}
	return s.Kind.String()
}

// nextSequence returns the sequenceId after n.
func nextSequence(n uint32) uint32 { return n%maxSequence + 1 }

// MaxLine returns how many bytes the event's line may have, newline included.
func (p *Syslog) MaxLine(event *Event) int {
	s := p.summaryOf(event)
	var header [maxHeader]byte
	escapes := len(`\u007f`) - 1
	return max(0, p.maxDatagram-len(p.appendHeader(header[:0], s, nameOf(s, event.Line), event.Number))-
		escapes*bytes.Count(event.Line, []byte{del})+1) // the newline is not sent
}

// Flush does nothing: no event waits for another.
func (p *Syslog) Flush(*Batch) {}

// PackRecord adds the record as a datagram.
func (p *Syslog) PackRecord(b *Batch, record []byte) {
	form := p.record
	if !form.is(record) {
		form = p.formOf(record)
	}
	dst := append(b.room(maxHeader+len(form.rest)), form.form...)
	if !p.rfc3164 {
		dst = p.appendNumbers(dst, 0)
	}
	p.sequence = nextSequence(p.sequence)
	b.Add(b.keep(append(dst, form.rest...)), 0)
}

// PrepareRecord implements [Preparer]: of a prepared record only the numbers are
// written anew.
func (p *Syslog) PrepareRecord(record []byte) { p.record = p.formOf(record) }

func (p *Syslog) formOf(record []byte) recordForm {
	summary := summarize(record)
	return recordForm{
		of:   bytes.Clone(record),
		form: p.appendFront(nil, &summary, recordName(record)),
		rest: appendWithoutDEL(nil, trimLine(record)),
	}
}

// summaryOf returns the event's summary, from whatever there is.
func (p *Syslog) summaryOf(event *Event) *transcode.Summary {
	if event.Summary != nil {
		return event.Summary
	}
	var err error
	if p.summary, err = transcode.Scan(event.Wire); err != nil || len(event.Wire) == 0 {
		p.summary = summarize(event.Line)
	}
	return &p.summary
}

// maxHeader is more than a header takes: names of 255, 48, 128 and 32 bytes, and
// four numbers.
const maxHeader = 1 << 10

// appendHeader appends everything before the JSON of an event or record of
// that name. Number 0 is not written.
func (p *Syslog) appendHeader(dst []byte, s *transcode.Summary, name string, number uint64) []byte {
	dst = p.appendFront(dst, s, name)
	if p.rfc3164 {
		return dst
	}
	return p.appendNumbers(dst, number)
}

// appendFront appends the header up to the numbers.
func (p *Syslog) appendFront(dst []byte, s *transcode.Summary, name string) []byte {
	severity := severityOf(s.Kind, s.Action)
	priority := uint64(p.priorities[indexOf(s.Kind)])*8 + uint64(severity)
	dst = append(dst, '<')
	dst = strconv.AppendUint(dst, priority, 10)
	if p.rfc3164 {
		dst = append(dst, '>')
		dst = p.appendOldTime(dst, s)
		return append(dst, p.name...)
	}
	dst = append(dst, ">1 "...)
	dst = p.appendTime(dst, s)
	dst = append(dst, p.name...)
	if p.msgID != nil {
		dst = append(dst, p.msgID...)
	} else {
		dst = append(dst, name...)
	}
	return append(dst, p.data...)
}

// appendNumbers appends the rest of the header.
func (p *Syslog) appendNumbers(dst []byte, number uint64) []byte {
	dst = strconv.AppendUint(dst, uint64(nextSequence(p.sequence)), 10)
	dst = append(dst, p.element...)
	if number > 0 {
		dst = append(dst, ` seq="`...)
		dst = strconv.AppendUint(dst, number, 10)
		dst = append(dst, '"')
	}
	dst = append(dst, ` dropped="`...)
	dst = strconv.AppendUint(dst, p.dropped, 10)
	dst = append(dst, `"] `...)
	return append(dst, p.mark...)
}

// Years that RFC 3339, section 1 can write, as seconds since 1970.
const (
	minSecond = -62135596800 // 0001-01-01, Go's first
	maxSecond = 253402300799 // 9999-12-31
)

// appendTime appends TIMESTAMP, RFC 5424, section 6.2.3: RFC 3339 with at most
// six digits behind the point, in UTC.
func (p *Syslog) appendTime(dst []byte, s *transcode.Summary) []byte {
	nanos, ok := p.setClock(s, "2006-01-02T15:04:05.000000Z")
	if !ok {
		return append(dst, '-')
	}
	dst = append(dst, p.clock...)
	micros, end := nanos/1000, len(dst)-2 // before the Z
	for i := range 6 {
		dst[end-i] = byte('0' + micros%10)
		micros /= 10
	}
	return dst
}

// appendOldTime appends TIMESTAMP, RFC 3164, section 4.1.2.
func (p *Syslog) appendOldTime(dst []byte, s *transcode.Summary) []byte {
	if _, ok := p.setClock(s, time.Stamp); !ok {
		return append(dst, "Jan  1 00:00:00"...)
	}
	return append(dst, p.clock...)
}

// setClock makes clock the text of the event's second, or of now where the event has
// none that can be written, and returns the nanoseconds behind it. Events come in the
// order of time, so most find it there.
func (p *Syslog) setClock(s *transcode.Summary, layout string) (nanos int32, ok bool) {
	seconds, nanos := s.Seconds, s.Nanos
	if !s.HasTime || seconds < minSecond || seconds > maxSecond || nanos < 0 || nanos > 999_999_999 {
		if p.now == nil {
			return 0, false
		}
		now := p.now()
		seconds, nanos = now.Unix(), int32(now.Nanosecond())
	}
	if seconds != p.second || p.clock == nil {
		p.second, p.clock = seconds, time.Unix(seconds, 0).In(p.zone).AppendFormat(p.clock[:0], layout)
	}
	return nanos, true
}

// trimLine returns the line without its newline.
func trimLine(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		return line[:n-1]
	}
	return line
}

// numKinds is how many kinds can have a facility of their own: the numbers
// below 30 and the two above.
const numKinds = 32

// indexOf returns where a kind's facility stands.
func indexOf(kind transcode.Kind) int {
	switch {
	case kind < 30:
		return int(kind)
	case kind == transcode.KindTest:
		return 30
	case kind == transcode.KindRateLimitInfo:
		return 31
	}
	return 0
}

// kindAt is the reverse of indexOf.
func kindAt(i int) transcode.Kind {
	switch i {
	case 30:
		return transcode.KindTest
	case 31:
		return transcode.KindRateLimitInfo
	}
	return transcode.Kind(i)
}

// facilityOf is the default facility of a kind; see docs/formats.md.
func facilityOf(kind transcode.Kind) Facility {
	switch kind {
	case transcode.KindProcessKprobe, transcode.KindProcessTracepoint, transcode.KindProcessUprobe,
		transcode.KindProcessLsm, transcode.KindProcessUsdt:
		return FacilityAuthPriv
	case transcode.KindProcessExec, transcode.KindProcessExit, transcode.KindProcessLoader:
		return FacilityLocal0
	}
	return FacilityDaemon
}
