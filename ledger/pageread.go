package ledger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"time"
)

// The file: a header, then the slots. A slot is the word that says which copy
// holds, and two copies, each of them the words of its counters, a word for each
// reason and each stage that the header names, and a checksum. All integers are
// little endian.
const (
	pageMagic  = "tcstate2"
	pageHeader = 1024
	maxSlots   = 1024

	headerSlots = 8    // how many there are, 4 bytes
	headerNames = 12   // length of the names, 4 bytes
	headerBoot  = 16   // id of the start of the host
	headerText  = 32   // the names, a newline between them: reasons, then stages with stagePrefix
	headerCheck = 1016 // checksum of all before it

	pageWords = 22 // beside the names: as appendCopy has them

	stagePrefix = "upstream."
)

const (
	flagGoodbye uint64 = 1 << iota
	flagBlindUnknown
)

var pageNames = namesOfPage()

const (
	pageCopy = 8 * (pageWords + int(numReasons) + len(stages) + 1)
	pageSlot = 8 + 2*pageCopy
)

func namesOfPage() []string {
	names := slices.Clone(reasonTexts[:])
	for _, stage := range stages {
		names = append(names, stagePrefix+stage)
	}
	return names
}

func putPageHeader(dst []byte, slots int, boot [16]byte) {
	copy(dst, pageMagic)
	binary.LittleEndian.PutUint32(dst[headerSlots:], uint32(slots))
	names := strings.Join(pageNames, "\n")
	if len(names) > headerCheck-headerText {
		panic("ledger: BUG: the names do not fit the header of a page")
	}
	binary.LittleEndian.PutUint32(dst[headerNames:], uint32(len(names)))
	copy(dst[headerBoot:], boot[:])
	copy(dst[headerText:], names)
	binary.LittleEndian.PutUint64(dst[headerCheck:], uint64(crc32.Checksum(dst[:headerCheck], castagnoli)))
}

// ReadPage returns the counters in the file, one for each slot. What a process was
// storing when it was killed is as it was before. Drops for a reason that this
// release does not know count as Killed.
//
// The error is that of the file, or ErrPage. With ErrPage the counters may be there
// all the same, but for the slots that are damaged, which are zero: what is zero
// then is unknown.
func ReadPage(path string) ([]Counters, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: reading the page of counters: %w", err)
	}
	all, ok := parsePage(bytes)
	if !ok {
		err = fmt.Errorf("%w: %s, %d bytes", ErrPage, path, len(bytes))
	}
	return all, err
}

// parsePage returns the counters, and false if some are damaged, or all: then none.
func parsePage(bytes []byte) (all []Counters, ok bool) {
	le := binary.LittleEndian
	if len(bytes) < pageHeader || string(bytes[:8]) != pageMagic ||
		le.Uint64(bytes[headerCheck:]) != uint64(crc32.Checksum(bytes[:headerCheck], castagnoli)) {
		return nil, false
	}
	names := strings.Split(string(bytes[headerText:][:min(le.Uint32(bytes[headerNames:]), headerCheck-headerText)]), "\n")
	size := 8 * (pageWords + len(names) + 1)
	slots := bytes[pageHeader:]
	if uint64(len(slots)) != uint64(8+2*size)*uint64(le.Uint32(bytes[headerSlots:])) {
		return nil, false
	}
	all, ok = make([]Counters, 0, le.Uint32(bytes[headerSlots:])), true
	for ; len(slots) > 0; slots = slots[8+2*size:] {
		c, whole := readSlot(slots[:8+2*size], size, names)
		ok = ok && whole
		if !c.Counted.Wall.IsZero() {
			copy(c.Counted.Boot[:], bytes[headerBoot:])
		}
		all = append(all, c)
	}
	return all, ok
}

// readSlot returns the copy that holds, or false if it is damaged.
func readSlot(slot []byte, size int, names []string) (c Counters, ok bool) {
	le := binary.LittleEndian
	commit := le.Uint64(slot)
	generation := uint32(commit >> 32)
	if commit != commitWord(generation) {
		return c, false
	}
	words := slot[8+int(generation&1)*size:][:size]
	if le.Uint64(words) != uint64(generation) || le.Uint64(words[size-8:]) != uint64(crc32.Checksum(words[:size-8], castagnoli)) {
		return c, false
	}
	next := func() uint64 {
		n := le.Uint64(words)
		words = words[8:]
		return n
	}
	next() // the generation
	c.Stream, c.StartedAt = next(), moment(next())
	c.Seen, c.Excluded, c.Refused, c.LastNumber = next(), next(), next(), next()
	c.Sent, c.Datagrams, c.Truncated = next(), next(), next()
	flags := next()
	c.Goodbye, c.Before.BlindUnknown = flags&flagGoodbye != 0, flags&flagBlindUnknown != 0
	c.Offered = Offered{First: next(), Last: next(), Events: next()}
	c.Destination, c.Began, c.Ended, c.Streams = next(), next(), next(), next()
	c.Before.Breaks, c.Before.BlindTime = next(), time.Duration(next())
	c.Counted = Moment{Wall: moment(next()), Monotonic: time.Duration(next())}
	for _, name := range names {
		n := next()
		if stage, ok := strings.CutPrefix(name, stagePrefix); ok {
			if i := slices.Index(stages[:], stage); i >= 0 && n > 0 {
				n--
				c.Before.Losses[i] = &n
			}
			continue
		}
		reason := slices.Index(reasonTexts[:], name)
		if reason < 0 {
			reason = int(Killed)
		}
		c.Dropped[reason] += n
	}
	return c, true
}

func moment(nanoseconds uint64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(nanoseconds)).UTC()
}
