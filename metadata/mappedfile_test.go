package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

// fileOf returns a whole file with these entries, put one after the other.
func fileOf(entries ...string) []byte {
	slots := map[string]slot{}
	for i, value := range entries {
		slots[fmt.Sprintf("agent.%d", i)] = slot{at: int64(i + 1), value: []byte(value)}
	}
	file := appendFile(nil, slots)
	return append(file, make([]byte, fileBytes-len(file))...)
}

func TestFile(t *testing.T) {
	slots, err := parseFile(fileOf("one", "", "three and a little more"))
	if err != nil || len(slots) != 3 || string(slots["agent.0"].value) != "one" || len(slots["agent.1"].value) != 0 || slots["agent.2"].at != 3 {
		t.Fatalf("read %v, %v", slots, err)
	}
	// What does not fit: the entries put first.
	long := string(make([]byte, MaxEntry))
	slots, err = parseFile(fileOf(long, long, long, long, "short"))
	if _, kept := slots["agent.0"]; err != nil || len(slots) != 4 || kept {
		t.Errorf("of five entries %d are left, the oldest among them: %v, %v", len(slots), kept, err)
	}
}

// TestFileBitFlips: whichever bit of the used part changes is noticed.
func TestFileBitFlips(t *testing.T) {
	file := fileOf("a value", "and another one")
	used := int(binary.LittleEndian.Uint32(file[16:]))
	for bit := range 8 * used {
		file[bit/8] ^= 1 << (bit % 8)
		if _, err := parseFile(file); !errors.Is(err, ErrBadFile) {
			t.Errorf("bit %d flipped: %v", bit, err)
		}
		file[bit/8] ^= 1 << (bit % 8)
	}
	for n := range used {
		if _, err := parseFile(file[:n]); !errors.Is(err, ErrBadFile) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

// FuzzFile: no content of a file makes the reader fail otherwise than by ErrBadFile,
// and what it accepts is within the limits and can be written and read again. The
// checksum is put right, so that the fuzzing gets past it.
func FuzzFile(f *testing.F) {
	for _, file := range [][]byte{fileOf("one", "two"), fileOf(), fileOf(string(make([]byte, 5000)))} {
		f.Add(file[:binary.LittleEndian.Uint32(file[16:])], true)
	}
	f.Add([]byte(fileMagic), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, used []byte, repair bool) {
		file := bytes.Clone(used)
		if repair && len(file) >= fileHeader {
			copy(file, fileMagic)
			le := binary.LittleEndian
			le.PutUint32(file[8:], fileVersion)
			le.PutUint32(file[12:], uint32(len(file)))
			if end := le.Uint32(file[16:]); end >= fileHeader && uint64(end) <= uint64(len(file)) {
				le.PutUint32(file[atFileCRC:], checksum(file[:end]))
			}
		}
		slots, err := parseFile(file)
		if err != nil {
			if !errors.Is(err, ErrBadFile) {
				t.Fatal(err)
			}
			return
		}
		for key, s := range slots {
			if len(key) > maxKey || len(s.value) > MaxEntry {
				t.Fatalf("a key of %d bytes, a value of %d", len(key), len(s.value))
			}
		}
		again := appendFile(nil, slots)
		again = append(again, make([]byte, max(0, fileBytes-len(again)))...)
		if got, err := parseFile(again); err != nil || len(got) > len(slots) {
			t.Fatalf("written again: %d of %d entries, %v", len(got), len(slots), err)
		}
		for key, value := range slots {
			_, _ = ReadEntry(key, value.value)
		}
	})
}
