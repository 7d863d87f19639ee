package datagram

// JSON is the format json: one event a datagram, the JSON that protojson
// writes, and a newline at its end. It carries no numbers.
//
// It implements [Packer] without copying a byte.
type JSON struct {
	maxDatagram int
}

// NewJSON returns a packer of datagrams of at most maxDatagram bytes, newline
// included; 0 and anything above it mean [MaxPayload].
func NewJSON(maxDatagram int) *JSON {
	if maxDatagram <= 0 {
		maxDatagram = MaxPayload
	}
	return &JSON{maxDatagram: min(maxDatagram, MaxPayload)}
}

// Pack adds the event's line as a datagram.
func (p *JSON) Pack(b *Batch, event *Event) error {
	if len(event.Line) > p.maxDatagram {
		return ErrOversize
	}
	b.Add(event.Line, 1)
	return nil
}

// Flush does nothing: no event waits for another.
func (p *JSON) Flush(*Batch) {}

// PackRecord adds the record as a datagram.
func (p *JSON) PackRecord(b *Batch, record []byte) { b.Add(record, 0) }
