package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

// The file of a [MappedStore]: a header, then entries back to back, then nothing
// that is ever read, up to the length of the file, which never changes. All
// integers are little endian.
//
//	header   0  8  magic
//	         8  4  version
//	        12  4  length of the file
//	        16  4  where the entries end
//	        20  4  how many there are
//	        24  4  zero
//	        28  4  CRC-32C of the header before it, and of the entries
//	entry    0  4  length of the value
//	         4  4  length of the key
//	         8  8  when it was put, nanoseconds since 1970
//	        16     key, value, zeros up to a multiple of 8
//
// It is preallocated, so that a full disk shows when it is made and not when it is
// read; and it is never written again, but replaced.
const (
	fileMagic   = "tcfacts\n"
	fileVersion = 1
	fileBytes   = 256 << 10 // room for three entries of the greatest length, or some hundred agents
	fileHeader  = 32
	atFileCRC   = 28
	entryHeader = 16
	maxKey      = 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Defect says what is wrong with a store's file.
type Defect uint8

// The defects.
const (
	NotOurs      Defect = iota // another kind of file, or one that others may write
	OtherVersion               // of the format
	CutOff                     // it has another length than it says
	BadChecksum                // bytes of it have changed

	numDefects
)

var defectTexts = [numDefects]string{"not_ours", "other_version", "cut_off", "bad_checksum"}

// String returns the defect's name in metrics and logs.
func (d Defect) String() string {
	if d < numDefects {
		return defectTexts[d]
	}
	return fmt.Sprintf("defect(%d)", uint8(d))
}

// ErrBadFile says that the file of a store is of no use; the error tells why.
var ErrBadFile = errors.New("metadata: bad file")

// defective is an ErrBadFile.
type defective struct {
	defect Defect
	detail string
}

func (d *defective) Error() string {
	return fmt.Sprintf("%v: %v: %s", ErrBadFile, d.defect, d.detail)
}

func (d *defective) Unwrap() error { return ErrBadFile }

// slot is an entry of a file.
type slot struct {
	at    int64  // when it was put, nanoseconds since 1970
	value []byte // in the file's bytes
	crc   uint32 // of the value
}

// parseFile returns the entries of a file. The values are slices of it, the keys are
// copies. The bytes may change at any time, if somebody writes into the file: the
// checksum is looked at last, so that it holds for what was read before.
func parseFile(file []byte) (map[string]slot, error) {
	bad := func(defect Defect, format string, args ...any) (map[string]slot, error) {
		return nil, &defective{defect, fmt.Sprintf(format, args...)}
	}
	le := binary.LittleEndian
	if len(file) < fileHeader || string(file[:len(fileMagic)]) != fileMagic {
		return bad(NotOurs, "%d bytes do not begin as a store of metadata does", len(file))
	}
	if version := le.Uint32(file[8:]); version != fileVersion {
		return bad(OtherVersion, "version %d, want %d", version, fileVersion)
	}
	if length := le.Uint32(file[12:]); uint64(length) != uint64(len(file)) {
		return bad(CutOff, "%d bytes of %d", len(file), length)
	}
	end, count := le.Uint32(file[16:]), le.Uint32(file[20:])
	if end < fileHeader || uint64(end) > uint64(len(file)) {
		return bad(BadChecksum, "entries end at %d of %d bytes", end, len(file))
	}
	rest := file[fileHeader:end]
	slots := map[string]slot{}
	for range count {
		if len(rest) < entryHeader {
			return bad(BadChecksum, "%d entries, but only %d are there", count, len(slots))
		}
		value, key := uint64(le.Uint32(rest)), uint64(le.Uint32(rest[4:]))
		size := padded(entryHeader + key + value)
		if value > MaxEntry || key > maxKey || size > uint64(len(rest)) {
			return bad(BadChecksum, "an entry with a key of %d bytes and a value of %d", key, value)
		}
		s := slot{at: int64(le.Uint64(rest[8:])), value: rest[entryHeader+key:][:value:value]}
		s.crc = crc32.Checksum(s.value, castagnoli)
		slots[string(rest[entryHeader:][:key])] = s
		rest = rest[size:]
	}
	if len(rest) > 0 || len(slots) != int(count) {
		return bad(BadChecksum, "%d entries, and %d bytes more", count, len(rest))
	}
	if want, got := le.Uint32(file[atFileCRC:]), checksum(file[:end]); got != want {
		return bad(BadChecksum, "%08x, want %08x", got, want)
	}
	return slots, nil
}

// checksum is the CRC of the header before it, and of the entries.
func checksum(file []byte) uint32 {
	return crc32.Update(crc32.Checksum(file[:atFileCRC], castagnoli), castagnoli, file[fileHeader:])
}

func padded(n uint64) uint64 { return (n + 7) &^ 7 }

// appendFile appends the used part of a file with these entries. Where they are
// more than the file has room for, those put longest ago are left out.
func appendFile(dst []byte, slots map[string]slot) []byte {
	newest := slices.SortedFunc(maps.Keys(slots), func(a, b string) int { return compareAt(slots[b], slots[a]) })
	le := binary.LittleEndian
	start, count := len(dst), 0
	dst = append(dst, make([]byte, fileHeader)...)
	for _, key := range newest {
		s := slots[key]
		size := padded(uint64(entryHeader + len(key) + len(s.value)))
		if uint64(len(dst)-start)+size > fileBytes {
			break
		}
		end := len(dst) + int(size)
		dst = le.AppendUint32(dst, uint32(len(s.value)))
		dst = le.AppendUint32(dst, uint32(len(key)))
		dst = le.AppendUint64(dst, uint64(s.at))
		dst = append(append(dst, key...), s.value...)
		dst = append(dst, make([]byte, end-len(dst))...)
		count++
	}
	file := dst[start:]
	copy(file, fileMagic)
	le.PutUint32(file[8:], fileVersion)
	le.PutUint32(file[12:], fileBytes)
	le.PutUint32(file[16:], uint32(len(file)))
	le.PutUint32(file[20:], uint32(count))
	le.PutUint32(file[atFileCRC:], checksum(file))
	return dst
}

func compareAt(a, b slot) int {
	switch {
	case a.at < b.at:
		return -1
	case a.at > b.at:
		return 1
	}
	return 0
}
