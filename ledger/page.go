package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Counters are a stream's figures in the form in which they outlive the process.
type Counters struct {
	Stream     uint64 // its id; 0: none
	StartedAt  time.Time
	Seen       uint64
	Excluded   uint64
	Dropped    Drops  // at intake, and by this stream
	Refused    uint64 // the part of Dropped that had a number
	LastNumber uint64
	Sent       uint64 // certainly; some of Offered may have been, too
	Datagrams  uint64
	Truncated  uint64
	Goodbye    bool // the stream ended in order, and its receivers were told
	// Offered are the events that the kernel was being given.
	Offered Offered
	// Destination tells the streams' destinations apart; the owner says how.
	Destination uint64
	// Began and Ended bound what was for the stream, in events that had been worked off
	// for all: so many when it began, and one more than so many when it ended. 0: it
	// has not ended.
	Began, Ended uint64
	// Streams is how many streams of earlier processes the figures are the sum of, as
	// they are to be told. 0: they are those of a process's own stream.
	Streams uint64
	// Before is what was lost before the exporter, as of Counted.
	Before Before
	// Counted is the moment up to which every event was counted.
	Counted Moment
}

// Before is what happened before an event could reach the exporter.
type Before struct {
	Breaks       uint64        // of the subscription
	BlindTime    time.Duration // without one
	BlindUnknown bool          // BlindTime is only a part of it
	Losses       Losses
}

// Moment is a moment of the host's clocks. The zero value is unknown.
type Moment struct {
	Wall      time.Time     // what the wall clock said
	Monotonic time.Duration // since the host started, without the time in which it slept (CLOCK_MONOTONIC)
	Boot      [16]byte      // that start's id; zero: unknown
}

// Since returns the time from an earlier moment to m, and false if that is unknown:
// the host was started again in between and its wall clock went backwards. The time
// in which the host was off counts, since only the wall clock spans it; that in
// which it slept does not, for nothing happens then.
func (m Moment) Since(earlier Moment) (time.Duration, bool) {
	if earlier.Wall.IsZero() || m.Wall.IsZero() {
		return 0, false
	}
	d := m.Wall.Sub(earlier.Wall)
	if m.Boot != [16]byte{} && m.Boot == earlier.Boot {
		d = m.Monotonic - earlier.Monotonic
	}
	return max(d, 0), d >= 0
}

// Perish makes the figures of a stream final, whose process was killed with these at
// intake: what had been seen and is neither sent nor lost for another reason was
// killed, whether it had got a number or not. What the kernel was being given counts
// as killed too; Offered says that some of it may have been sent.
func (c *Counters) Perish(intake *Counters) {
	mine := intake.Seen - intake.Excluded - intake.Dropped.Total()
	if c.Ended > 0 {
		mine = c.Ended - 1
	}
	if settled := c.Began + c.Dropped.Total() + c.Sent; mine > settled {
		c.Dropped[Killed] += mine - settled
	}
	c.LastNumber = max(c.LastNumber, c.Offered.Last)
	if c.LastNumber > c.Sent {
		c.Refused = c.LastNumber - c.Sent
	}
	c.Seen, c.Excluded, c.Before, c.Counted = intake.Seen, intake.Excluded, intake.Before, intake.Counted
	for reason, n := range intake.Dropped {
		c.Dropped[reason] += n
	}
	c.Goodbye, c.Streams = true, 1
}

// Add sums up with other final figures; what tells one stream from another goes.
func (c *Counters) Add(other *Counters) {
	sum := Counters{
		Seen: c.Seen + other.Seen, Excluded: c.Excluded + other.Excluded, Dropped: c.Dropped, Refused: c.Refused + other.Refused,
		LastNumber: c.LastNumber + other.LastNumber, Sent: c.Sent + other.Sent, Datagrams: c.Datagrams + other.Datagrams,
		Truncated: c.Truncated + other.Truncated, Goodbye: true, Streams: c.Streams + other.Streams,
		Offered: Offered{Events: c.Offered.Events + other.Offered.Events},
		Before: Before{
			Breaks: c.Before.Breaks + other.Before.Breaks, BlindTime: c.Before.BlindTime + other.Before.BlindTime,
			BlindUnknown: c.Before.BlindUnknown || other.Before.BlindUnknown,
		},
		StartedAt: c.StartedAt, Counted: other.Counted,
	}
	for reason, n := range other.Dropped {
		sum.Dropped[reason] += n
	}
	*c = sum
}

// Page keeps the counters of a process's streams in a small mapped file. A store
// there costs what a store to memory does, and is in the file even if the process
// is killed the next moment; only a crash of the machine can lose it. So the
// successor of a killed process can tell what its predecessor had counted.
//
// A store is seen by the next process as a whole or not at all: each slot has two
// copies, and one word that says which of them holds.
//
// Different slots may be stored at the same time, one slot has one owner at a time.
// Should somebody cut the file off under it, a page stops storing and says so
// through Err; it never crashes the process.
type Page struct {
	bytes []byte
	slots int
	err   atomic.Pointer[error]
}

// CreatePage makes the file anew with these slots, and maps it. A reader finds the
// file as it was before, or the new one with all that is in the slots.
func CreatePage(path string, boot [16]byte, slots []Counters) (*Page, error) {
	fail := func(err error) (*Page, error) { return nil, fmt.Errorf("ledger: making the page of counters: %w", err) }
	if len(slots) < 1 || len(slots) > maxSlots {
		return fail(fmt.Errorf("%d slots, want 1 to %d", len(slots), maxSlots))
	}
	p := &Page{slots: len(slots), bytes: make([]byte, pageHeader+len(slots)*pageSlot)}
	putPageHeader(p.bytes, len(slots), boot)
	for i := range slots {
		p.put(i, &slots[i])
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = file.Close() }()
	// Written and not only extended: a full disk is an error here, not later.
	if _, err = file.Write(p.bytes); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fail(err)
	}
	size := len(p.bytes)
	if p.bytes, err = syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return fail(fmt.Errorf("mapping %d bytes: %w", size, err))
	}
	return p, nil
}

// Store puts the counters into slot i, from 0. It allocates nothing and calls
// nothing of the kernel's.
func (p *Page) Store(i int, c *Counters) {
	if i >= p.slots || p.err.Load() != nil {
		return
	}
	// A page that cannot be written, since the file was cut off or the disk failed,
	// raises SIGBUS, which would end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer p.caught()
	p.put(i, c)
}

// put writes the copy that does not hold, and then the word that makes it hold.
func (p *Page) put(i int, c *Counters) {
	slot := p.bytes[pageHeader+i*pageSlot:][:pageSlot]
	commit := (*uint64)(unsafe.Pointer(unsafe.SliceData(slot))) // aligned: all before it are whole words of a page
	generation := uint32(atomic.LoadUint64(commit)>>32) + 1
	appendCopy(slot[8+int(generation&1)*pageCopy:][:0:pageCopy], generation, c)
	atomic.StoreUint64(commit, commitWord(generation))
}

func (p *Page) caught() {
	if r := recover(); r != nil {
		err := fmt.Errorf("ledger: writing the page of counters: %v", r)
		p.err.Store(&err)
	}
}

// Err returns why the page stores no more, or nil.
func (p *Page) Err() error {
	if err := p.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Close unmaps the file, which stays.
func (p *Page) Close() error {
	bytes := p.bytes
	p.bytes, p.slots = nil, 0
	if bytes == nil {
		return nil
	}
	return syscall.Munmap(bytes)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrPage is returned for a file that holds no page, or of which a part is damaged.
var ErrPage = errors.New("ledger: not a whole page of counters")

// commitWord makes a generation hold. No flip of a single bit makes one of another.
func commitWord(generation uint32) uint64 { return uint64(generation)<<32 | uint64(^generation) }

// appendCopy writes the generation, the counters and their checksum.
func appendCopy(dst []byte, generation uint32, c *Counters) {
	le := binary.LittleEndian
	var flags uint64
	if c.Goodbye {
		flags |= flagGoodbye
	}
	if c.Before.BlindUnknown {
		flags |= flagBlindUnknown
	}
	for _, n := range [pageWords]uint64{uint64(generation), c.Stream, nanoseconds(c.StartedAt), c.Seen, c.Excluded, c.Refused,
		c.LastNumber, c.Sent, c.Datagrams, c.Truncated, flags, c.Offered.First, c.Offered.Last, c.Offered.Events,
		c.Destination, c.Began, c.Ended, c.Streams, c.Before.Breaks, uint64(c.Before.BlindTime), nanoseconds(c.Counted.Wall), uint64(c.Counted.Monotonic)} {
		dst = le.AppendUint64(dst, n)
	}
	for _, n := range c.Dropped {
		dst = le.AppendUint64(dst, n)
	}
	for _, n := range c.Before.Losses {
		var known uint64 // one more than the figure; 0: it is unknown
		if n != nil {
			known = *n + 1
		}
		dst = le.AppendUint64(dst, known)
	}
	le.AppendUint64(dst, uint64(crc32.Checksum(dst, castagnoli)))
}

func nanoseconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}
