package filetail

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// watcher tells when something changes in the folders of the logs: inotify(7). The look
// once a second finds what it misses. It reads only when it is armed, so a writer of
// many lines wakes nobody while the lines it wrote before are worked off.
type watcher struct {
	file    *os.File       // nil: the kernel has none to give
	watched map[string]int // folders, by their descriptors
	arm     chan struct{}
	told    chan bool // whether names changed, not only content
	ended   chan struct{}
	armed   bool
	renamed bool // names changed, and nobody asked yet
}

const (
	changesOfNames = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	changes        = unix.IN_MODIFY | changesOfNames
)

func newWatcher(blind bool) *watcher {
	w := &watcher{watched: map[string]int{}, arm: make(chan struct{}, 1), told: make(chan bool, 1), ended: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil && blind {
		err = unix.Close(fd)
		fd = -1
	}
	if err != nil || fd < 0 {
		close(w.ended)
		return w
	}
	w.file = os.NewFile(uintptr(fd), "inotify") // pollable, so Close ends the read
	go w.read(w.file)
	return w
}

func (w *watcher) read(file *os.File) {
	defer close(w.ended)
	buffer := make([]byte, 16<<10)
	for range w.arm {
		n, err := file.Read(buffer)
		if err != nil {
			return
		}
		names := false
		for events := buffer[:n]; len(events) >= unix.SizeofInotifyEvent; {
			mask, length := binary.NativeEndian.Uint32(events[4:]), binary.NativeEndian.Uint32(events[12:])
			names = names || mask&^unix.IN_MODIFY != 0
			events = events[min(len(events), unix.SizeofInotifyEvent+int(length)):]
		}
		w.told <- names
	}
}

// notices returns what tells of the next change, whether of names.
func (w *watcher) notices() <-chan bool {
	if w.file != nil && !w.armed {
		w.armed = true
		w.arm <- struct{}{}
	}
	return w.told
}

// heard says that a notice was taken.
func (w *watcher) heard(names bool) { w.armed, w.renamed = false, w.renamed || names }

// names says whether names changed since it was asked last.
func (w *watcher) names() bool {
	select {
	case names := <-w.notices():
		w.heard(names)
	default:
	}
	renamed := w.renamed
	w.renamed = false
	return renamed
}

// watch looks at these folders from now on, and at no others.
func (w *watcher) watch(folders map[string]bool) {
	if w.file == nil {
		return
	}
	conn, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		for folder, wd := range w.watched {
			if !folders[folder] {
				_, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) // it is gone with its folder
				delete(w.watched, folder)
			}
		}
		for folder := range folders {
			// Again for one that is watched: it may be another folder of the same name.
			if wd, err := unix.InotifyAddWatch(int(fd), folder, changes); err == nil {
				w.watched[folder] = wd
			}
		}
	})
}

func (w *watcher) close() {
	if w.file == nil {
		return
	}
	close(w.arm)
	_ = w.file.Close()
	<-w.ended
}
