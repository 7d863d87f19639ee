package filetail

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"tetracast/internal/source/line"
)

// log is a name and the files that have it or had it, the oldest first.
type log struct {
	path   string // of the live file
	files  []*file
	unwrap line.Unwrapper // a line's parts may lie in two files
	ending []*file        // read to their ends, while parts of a line are open
	heads  map[inode]head // of files that have no place in the set, or had none
	err    error          // why something of it cannot be read; nil: it can
	strict bool           // files that are not known are none of ours: this is the first start
	before bool           // those older than the one that is known are none of ours
}

// head is the beginning of a file as it was when it was looked at.
type head struct {
	size, time int64
	text       []byte
	err        error
}

// look finds the set's files in the folder again, and takes in new ones. It returns
// those that are gone without having been read to their ends, whether the name went to
// another file, and whether anything is news for the checkpoint.
func (l *log) look(now time.Time) (gone []*file, rotated, news bool, err error) {
	all, err := list(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, false, err // nothing is known of what is there
	}
	before := len(l.files)
	place := make([]*file, len(all))
	for _, f := range l.files {
		f.placed = false
	}
	l.byInode(all, place)
	l.byContent(all, place)
	first := slices.IndexFunc(place, func(f *file) bool { return f != nil })
	for i := range all {
		if c := &all[i]; place[i] == nil && !l.isCopy(c, now) {
			place[i] = l.take(c, l.strict && !c.live || l.before && i < first)
			rotated = rotated || c.live && len(l.files) > 0
			l.files = append(l.files, place[i])
		}
	}
	l.strict, l.before = false, false
	news = len(l.files) > before
	gone = l.arrange(all, place, now)
	for _, f := range l.files {
		news, f.moved = news || f.moved, false
	}
	return gone, rotated, news || len(l.files) < before, nil
}

// byInode finds the files that kept their inode.
func (l *log) byInode(all []candidate, place []*file) {
	known := map[inode]*file{}
	for _, f := range l.files {
		if f.id != (inode{}) {
			known[f.id] = f
		}
	}
	for i := range all {
		c := &all[i]
		f := known[c.id]
		if f == nil || !f.isOpen() && !l.still(f, c) {
			continue
		}
		f.put(c)
		place[i] = f
	}
}

// still says whether a file that is not open is the one that had this inode: it may
// have been given to another.
func (l *log) still(f *file, c *candidate) bool {
	if f.zipped() != c.zipped() {
		f.id = inode{}
		return false
	}
	if f.size == c.size && f.time == c.time {
		return true
	}
	if f.head.bytes == 0 { // nothing else is known of it
		if f.done {
			f.id = inode{}
		}
		return !f.done
	}
	h := l.head(c)
	if h.err == nil && !f.head.begins(h.text) {
		if f.done || !c.live {
			f.id = inode{}
			return false
		}
		return true // truncated perhaps: opening it tells
	}
	return true
}

// byContent finds the others that have another inode now.
func (l *log) byContent(all []candidate, place []*file) {
	for i := range all {
		c := &all[i]
		if place[i] != nil {
			continue
		}
		for _, f := range l.files {
			if f.placed || f.isOpen() {
				continue
			}
			if h := l.head(c); h.err == nil && f.same(h.text) || f.done && c.path == f.path+".gz" {
				f.put(c)
				place[i] = f
				break
			}
		}
	}
}

// isCopy says whether a file is none of its own: a copy of one that is in the set, or
// one that may become such a copy.
func (l *log) isCopy(c *candidate, now time.Time) bool {
	if c.live {
		return false
	}
	h := l.head(c)
	if h.err == nil && slices.ContainsFunc(l.files, func(f *file) bool { return f.same(h.text) }) {
		return true
	}
	young := now.UnixNano()-c.time < int64(2*lookInterval)
	return young && (h.err != nil && !errors.Is(h.err, fs.ErrPermission) || len(h.text) < leastContent && c.size == 0)
}

// take makes a file of what was found. One that is none of ours is only known.
func (l *log) take(c *candidate, foreign bool) *file {
	f := &file{id: c.id, done: foreign, closed: foreign}
	f.put(c)
	if h := l.head(c); h.err == nil && !c.live {
		f.head = contentOf(h.text)
	}
	if foreign {
		f.at.offset = c.size
		f.settle = f.at
	}
	delete(l.heads, c.id)
	return f
}

// put notes where the file was found.
func (f *file) put(c *candidate) {
	if f.done && !c.zipped() && c.size > f.at.offset && (f.size != c.size || f.time != c.time) {
		f.done, f.closed = false, false // somebody wrote on
	}
	if f.live && !c.live {
		f.left = time.Now()
	}
	f.moved = f.moved || f.path != c.path || f.id != c.id
	f.path, f.id, f.placed, f.live, f.size, f.time = c.path, c.id, true, c.live, c.size, c.time
}

// arrange puts the files in order, forgets those that are done and gone, and returns
// those that are gone before they are done.
func (l *log) arrange(all []candidate, place []*file, now time.Time) (gone []*file) {
	var kept []*file
	for _, f := range l.files {
		switch {
		case f.placed:
			continue
		case f.isOpen(), f.done && !f.closed:
			if f.live {
				f.live, f.left = false, now
			}
			kept = append(kept, f) // without a name, so older than those that have one
		case !f.done:
			gone = append(gone, f)
		}
	}
	for _, f := range place {
		if f != nil {
			kept = append(kept, f)
		}
	}
	l.files = kept
	for id := range l.heads {
		if !slices.ContainsFunc(all, func(c candidate) bool { return c.id == id }) {
			delete(l.heads, id)
		}
	}
	return gone
}

// head reads the beginning of a file, if that was not done.
func (l *log) head(c *candidate) head {
	if h, ok := l.heads[c.id]; ok && h.size == c.size && h.time == c.time {
		return h
	}
	h := head{size: c.size, time: c.time}
	h.text, h.err = beginning(c)
	if l.heads == nil {
		l.heads = map[inode]head{}
	}
	l.heads[c.id] = h
	return h
}

func beginning(c *candidate) ([]byte, error) {
	fd, info, err := openFile(c.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = fd.Close() }()
	if inodeOf(info) != c.id {
		return nil, errOther
	}
	if !c.zipped() {
		return readAt(fd, 0, contentBytes)
	}
	in, err := gzip.NewReader(fd)
	if err != nil {
		return nil, err
	}
	text := make([]byte, contentBytes)
	n, err := io.ReadFull(in, text)
	if err == io.EOF || err == io.ErrUnexpectedEOF && n > 0 {
		err = nil // it is short, or it is being written
	}
	return text[:n], err
}

// live returns the file that has the name, or nil.
func (l *log) live() *file {
	if n := len(l.files); n > 0 && l.files[n-1].live {
		return l.files[n-1]
	}
	return nil
}

// renew notes that a file was written anew: its inode has a new file, and what it was
// is searched for by its content.
func (l *log) renew(f *file) {
	fresh := &file{path: f.path, id: f.id, live: f.live, placed: f.placed, size: f.size, time: f.time, left: f.left}
	f.known()
	if f.isOpen() && f.in == nil {
		fresh.fd, f.fd = f.fd, nil
	}
	f.close()
	f.id, f.live, f.placed, f.truncated, f.retry = inode{}, false, false, true, time.Time{}
	i := slices.Index(l.files, f)
	l.files = slices.Insert(l.files, i+1, fresh)
}
