package metadata

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// mapping is a store's file in memory, read only. It is unmapped when nobody refers
// to it any more; who keeps a slice of it keeps the mapping too.
//
// Whoever may write the file can cut it off under us, and then its pages are gone,
// or are zeros: each access is guarded, and what it read is held against a checksum.
type mapping struct {
	bytes []byte
	slots map[string]slot
	file  fileState
}

// fileState tells one file from another, and from itself after it was changed.
type fileState struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

func stateOf(info os.FileInfo) fileState {
	s := fileState{size: info.Size(), modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = uint64(stat.Dev), stat.Ino
	}
	return s
}

// openMapping maps a file and reads its entries. The state is that of the file also
// with an ErrBadFile.
func openMapping(path string) (*mapping, fileState, error) {
	// Not through a link, for the folder may be one where others make links; and not
	// waiting, should it be a pipe.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileState{}, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, fileState{}, err
	}
	state := stateOf(info)
	switch stat, ok := info.Sys().(*syscall.Stat_t); {
	case !info.Mode().IsRegular():
		return nil, state, &defective{NotOurs, "it is no regular file"}
	case !ok || int(stat.Uid) != os.Geteuid() && stat.Uid != 0 || info.Mode().Perm()&0o022 != 0:
		// What is in it is sent as what we say.
		return nil, state, &defective{NotOurs, "it belongs to somebody else, or others may write it"}
	case info.Size() < fileHeader:
		return nil, state, &defective{CutOff, fmt.Sprintf("%d bytes", info.Size())}
	case info.Size() > fileBytes:
		return nil, state, &defective{NotOurs, fmt.Sprintf("%d bytes", info.Size())}
	}
	bytes, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, state, fmt.Errorf("mapping %d bytes: %w", info.Size(), err)
	}
	m := &mapping{bytes: bytes, file: state}
	runtime.AddCleanup(m, func(bytes []byte) { _ = syscall.Munmap(bytes) }, bytes)
	if fault := guarded(func() { m.slots, err = parseFile(m.bytes) }); fault != nil {
		err = &defective{CutOff, fault.Error()}
	}
	if err != nil {
		return nil, state, err
	}
	return m, state, nil
}

// guarded calls f, which reads a mapping, and returns an error if that is not there
// any more: the SIGBUS that would end the process becomes a panic of this goroutine
// (runtime/debug.SetPanicOnFault).
func guarded(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // only a memory fault has one
			err = errors.New("the file was cut off while it was read")
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// Loan is a value that stays in the mapping of its file. Nobody may read its bytes
// but through a call of the kernel, for which missing memory is EFAULT.
type Loan struct {
	store   *MappedStore
	mapping *mapping
	slot    slot
}

// Intact says whether the bytes are still what they were when they were lent.
func (l *Loan) Intact() bool {
	intact := false
	fault := guarded(func() { intact = crc32.Checksum(l.slot.value, castagnoli) == l.slot.crc })
	runtime.KeepAlive(l)
	return fault == nil && intact
}

// copy returns the bytes in memory of their own.
func (l *Loan) copy() ([]byte, bool) {
	var value []byte
	fault := guarded(func() { value = append([]byte{}, l.slot.value...) })
	runtime.KeepAlive(l)
	return value, fault == nil && crc32.Checksum(value, castagnoli) == l.slot.crc
}

// Damaged sets the file aside from which the value was lent, for it was changed.
func (l *Loan) Damaged() {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.putAside(l.mapping.file, BadChecksum)
}
