package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Counters are a stream's figures in the form in which they outlive the process.
type Counters struct {
	Stream     uint64
	StartedAt  time.Time
	Seen       uint64
	Excluded   uint64
	Dropped    Drops  // at intake, and by this stream
	Refused    uint64 // the part of Dropped that had a number
	LastNumber uint64
	Sent       uint64
	Datagrams  uint64
	Truncated  uint64
	Goodbye    bool // the stream ended in order, and its receivers were told
}

// Page keeps the counters of a process's streams in a small mapped file. A store
// there costs what a store to memory does, and is in the file even if the process
// is killed the next moment; only a crash of the machine can lose it. So the
// successor of a killed process can tell what its predecessor had counted.
//
// A Page has one owner. Should somebody cut the file off under it, it stops
// storing and says so through Err; it never crashes the process.
type Page struct {
	bytes []byte
	slots int
	err   error
}

// The file: a header of pageHeader bytes, then the slots, each of them the words
// of its counters, a word for each reason that the header names, and a checksum.
// All integers are little endian.
const (
	pageMagic  = "tcstate1"
	pageHeader = 1024 // magic, number of slots, length of the reasons' names, names with a newline after each
	pageNames  = 16   // where the names begin
	pageWords  = 10   // beside the reasons
	maxSlots   = 1024
)

const pageSlot = 8 * (pageWords + int(numReasons) + 1)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrPage is returned for a file that holds no page, or a damaged one.
var ErrPage = errors.New("ledger: not a page of counters")

// CreatePage makes the file anew, with room for so many streams, and maps it.
// What was there before is gone; read it first with ReadPage.
func CreatePage(path string, streams int) (*Page, error) {
	fail := func(err error) (*Page, error) { return nil, fmt.Errorf("ledger: making the page of counters: %w", err) }
	if streams < 1 || streams > maxSlots {
		return fail(fmt.Errorf("%d streams, want 1 to %d", streams, maxSlots))
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = file.Close() }()
	size := pageHeader + streams*pageSlot
	header := make([]byte, size)
	copy(header, pageMagic)
	binary.LittleEndian.PutUint32(header[8:], uint32(streams))
	names := strings.Join(reasonTexts[:], "\n")
	binary.LittleEndian.PutUint32(header[12:], uint32(copy(header[pageNames:pageHeader], names)))
	// Written and not only extended: a full disk is an error here, not later.
	if _, err = file.Write(header); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fail(err)
	}
	bytes, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fail(fmt.Errorf("mapping %d bytes: %w", size, err))
	}
	return &Page{bytes: bytes, slots: streams}, nil
}

// Store puts the counters of stream i, from 0, into the page. It allocates
// nothing and calls nothing of the kernel's.
func (p *Page) Store(i int, c *Counters) {
	if p.err != nil || i >= p.slots {
		return
	}
	// A page that cannot be written, since the file was cut off or the disk failed,
	// raises SIGBUS, which would end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer p.caught()
	appendSlot(p.bytes[pageHeader+i*pageSlot:][:0:pageSlot], c)
}

func (p *Page) caught() {
	if r := recover(); r != nil {
		p.err = fmt.Errorf("ledger: writing the page of counters: %v", r)
	}
}

// Err returns why the page stores no more, or nil.
func (p *Page) Err() error { return p.err }

// Close unmaps the file, which stays.
func (p *Page) Close() error {
	bytes := p.bytes
	p.bytes, p.slots = nil, 0
	if bytes == nil {
		return nil
	}
	return syscall.Munmap(bytes)
}

// appendSlot writes the counters and their checksum, last of all: a slot that
// was being written when the process was killed does not pass as whole.
func appendSlot(dst []byte, c *Counters) {
	le := binary.LittleEndian
	var goodbye uint64
	if c.Goodbye {
		goodbye = 1
	}
	for _, n := range [pageWords]uint64{c.Stream, uint64(c.StartedAt.UnixNano()), c.Seen, c.Excluded, c.Refused,
		c.LastNumber, c.Sent, c.Datagrams, c.Truncated, goodbye} {
		dst = le.AppendUint64(dst, n)
	}
	for _, n := range c.Dropped {
		dst = le.AppendUint64(dst, n)
	}
	le.AppendUint64(dst, uint64(crc32.Checksum(dst, castagnoli)))
}

// ReadPage returns the counters of the streams in the file. A slot that was being
// written when its process was killed is left out, and one that was never used.
// Drops for a reason that this release does not know count as Killed. The error
// is ErrPage, or that of the file.
func ReadPage(path string) ([]Counters, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: reading the page of counters: %w", err)
	}
	damaged := fmt.Errorf("%w: %s, %d bytes", ErrPage, path, len(bytes))
	le := binary.LittleEndian
	if len(bytes) < pageHeader || string(bytes[:8]) != pageMagic || le.Uint32(bytes[12:]) > pageHeader-pageNames {
		return nil, damaged
	}
	names := strings.Split(string(bytes[pageNames:][:le.Uint32(bytes[12:])]), "\n")
	slot := 8 * (pageWords + len(names) + 1)
	slots := bytes[pageHeader:]
	if uint64(len(slots)) != uint64(slot)*uint64(le.Uint32(bytes[8:])) {
		return nil, damaged
	}
	var all []Counters
	for ; len(slots) > 0; slots = slots[slot:] {
		s := slots[:slot]
		if le.Uint64(s) == 0 || le.Uint64(s[slot-8:]) != uint64(crc32.Checksum(s[:slot-8], castagnoli)) {
			continue
		}
		word := func(i int) uint64 { return le.Uint64(s[8*i:]) }
		c := Counters{
			Stream: word(0), StartedAt: time.Unix(0, int64(word(1))).UTC(), Seen: word(2), Excluded: word(3), Refused: word(4),
			LastNumber: word(5), Sent: word(6), Datagrams: word(7), Truncated: word(8), Goodbye: word(9) == 1,
		}
		for i, name := range names {
			reason := slices.Index(reasonTexts[:], name)
			if reason < 0 {
				reason = int(Killed)
			}
			c.Dropped[reason] += word(pageWords + i)
		}
		all = append(all, c)
	}
	return all, nil
}
