package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// MappedStore is a store in a file that is mapped into memory: what one process puts
// there, the next one on this host reads without asking anybody.
//
// Any number of processes may share the file. To put means to make a new file beside
// it and to rename it, so a mapping in use never changes; writers take turns by a
// lock of the folder (flock(2)), which ends with the process that holds it. A file
// that is of no use is renamed to its name and ".bad", counted, and replaced at the
// next put.
//
// Nothing is flushed to the disk: after a crash of the machine a file may be empty,
// but then all that is in it belongs to the boot before.
type MappedStore struct {
	path string

	mu       sync.Mutex
	current  *mapping  // nil: there is no file, or a bad one
	refused  fileState // the bad one, if it could not be renamed
	setAside [numDefects]uint64
	watchers map[chan struct{}]struct{}
}

// SetAside counts the files set aside, by [Defect].
type SetAside [numDefects]uint64

// Bounds of the waits in a MappedStore.
const (
	lockWait   = time.Second // for another writer
	lockRetry  = 5 * time.Millisecond
	watchEvery = 250 * time.Millisecond // a watcher looks for another file
)

// NewMappedStore returns a store in the file at path, which need not be there yet.
// It opens nothing.
func NewMappedStore(path string) *MappedStore {
	return &MappedStore{path: path, watchers: map[chan struct{}]struct{}{}}
}

// SetAside returns how many files were of no use, and why.
func (s *MappedStore) SetAside() SetAside {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setAside
}

// Get returns a copy of the value under the key. ErrBadFile: the file was set aside.
func (s *MappedStore) Get(_ context.Context, key string) ([]byte, error) {
	loan, err := s.Lend(key)
	if err != nil {
		return nil, err
	}
	value, ok := loan.copy()
	if !ok {
		loan.Damaged()
		return nil, &defective{BadChecksum, "it was changed while it was read"}
	}
	return value, nil
}

// Lend returns the value under the key where it is, in the mapping. The errors are
// those of Get.
func (s *MappedStore) Lend(key string) (*Loan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	if s.current != nil {
		if slot, ok := s.current.slots[key]; ok {
			return &Loan{store: s, mapping: s.current, slot: slot}, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, key)
}

// load brings current up to date with the file. Called with mu.
func (s *MappedStore) load() error {
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		s.current = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("metadata: store: %w", err)
	}
	state := stateOf(info)
	if s.current != nil && s.current.file == state {
		return nil
	}
	s.current = nil
	if state == s.refused {
		return fmt.Errorf("%w: it could not be set aside", ErrBadFile)
	}
	if !info.Mode().IsRegular() {
		s.putAside(state, NotOurs)
		return fmt.Errorf("%w: %s is no regular file", ErrBadFile, s.path)
	}
	var bad *defective
	switch m, state, err := openMapping(s.path); {
	case errors.As(err, &bad):
		s.putAside(state, bad.defect)
		return fmt.Errorf("%w: %s", err, s.path)
	case err != nil:
		return fmt.Errorf("metadata: store: %w", err)
	default:
		s.current = m
	}
	return nil
}

// putAside gets a bad file out of the way, if it is still there, and counts it.
// Another process may replace it at this very moment; then what it put is set aside,
// and it is as if it had not been put. Called with mu.
func (s *MappedStore) putAside(bad fileState, defect Defect) {
	if s.refused == bad {
		return
	}
	s.setAside[defect]++
	s.refused, s.current = bad, nil
	if info, err := os.Lstat(s.path); err == nil && stateOf(info).inode == bad.inode && info.Mode().IsRegular() {
		_ = os.Rename(s.path, s.path+".bad") // else it is passed over
	}
}

// Put keeps a copy of the value. It waits for other writers, at most a second.
func (s *MappedStore) Put(ctx context.Context, key string, value []byte) error {
	if len(value) > MaxEntry || len(key) > maxKey {
		return fmt.Errorf("%w: %.40s has a value of %d bytes and a key of %d, more than %d and %d", ErrBadEntry, key, len(value), len(key), MaxEntry, maxKey)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	unlock, err := lockFolder(ctx, filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("metadata: store: %w", err)
	}
	defer unlock()
	file, err := s.with(key, value)
	if err != nil {
		return fmt.Errorf("metadata: store: %w", err)
	}
	if err := replaceFile(s.path, file); err != nil {
		return fmt.Errorf("metadata: store: %w", err)
	}
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default: // it has been told already
		}
	}
	return nil
}

// with returns a file with the entries of the one that is there, and this one. A bad
// file has none. Called with mu and the folder's lock.
func (s *MappedStore) with(key string, value []byte) ([]byte, error) {
	if err := s.load(); err != nil && !errors.Is(err, ErrBadFile) {
		return nil, err
	}
	slots := map[string]slot{}
	if m := s.current; m != nil {
		for key, old := range m.slots {
			value, ok := (&Loan{mapping: m, slot: old}).copy()
			if !ok {
				s.putAside(m.file, BadChecksum)
				clear(slots)
				break
			}
			slots[key] = slot{at: old.at, value: value}
		}
	}
	slots[key] = slot{at: time.Now().UnixNano(), value: value}
	return appendFile(nil, slots), nil
}

// lockFolder waits until no other process has the folder's lock.
func lockFolder(ctx context.Context, folder string) (unlock func(), err error) {
	file, err := os.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil // which ends the lock
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) || ctx.Err() != nil {
			_ = file.Close()
			return nil, fmt.Errorf("locking %s: %w", folder, err)
		}
		time.Sleep(lockRetry)
	}
}

// replaceFile makes a new file and renames it to path. Called with the folder's
// lock, so what a killed process had begun is nobody's any more.
func replaceFile(path string, used []byte) (err error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Fallocate(int(file.Fd()), 0, 0, fileBytes); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			_ = file.Close()
			_ = os.Remove(name)
			return fmt.Errorf("allocating %d bytes: %w", fileBytes, err)
		}
		used = append(used, make([]byte, fileBytes-len(used))...) // this file system cannot: write them all
	}
	_, err = file.Write(used)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		_ = os.Remove(name)
	}
	return err
}

// Watch calls f for what this process puts, and within a second for what others do,
// until ctx ends. Of two puts under one key in that time it tells the later one.
func (s *MappedStore) Watch(ctx context.Context, f func(key string, value []byte)) error {
	poke := make(chan struct{}, 1)
	s.mu.Lock()
	s.watchers[poke] = struct{}{}
	told := s.times()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, poke)
		s.mu.Unlock()
	}()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poke:
		case <-ticker.C:
		}
		s.mu.Lock()
		now := s.times()
		s.mu.Unlock()
		for key, at := range now {
			if told[key] == at {
				continue
			}
			if value, err := s.Get(ctx, key); err == nil {
				f(key, value)
			}
		}
		told = now
	}
}

// times returns when each key was put. Called with mu.
func (s *MappedStore) times() map[string]int64 {
	times := map[string]int64{}
	if s.load() == nil && s.current != nil {
		for key, slot := range s.current.slots {
			times[key] = slot.at
		}
	}
	return times
}

var _ Store = (*MappedStore)(nil)
