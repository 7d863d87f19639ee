package filetail

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"tetracast/internal/source/line"
)

// checkpoint is what the next run reads.
type checkpoint struct {
	Version int       `json:"version"`
	Clean   bool      `json:"clean"` // an orderly end wrote this, and nothing behind the positions was sent
	SavedAt time.Time `json:"saved_at"`
	// Names are those that were followed: of others, what was rotated before is none of ours.
	Names []string               `json:"names"`
	Logs  map[string][]savedFile `json:"logs"` // by the path of the live file, the oldest first
}

// savedFile is one file of a log.
type savedFile struct {
	Path        string `json:"path"`
	Device      uint64 `json:"dev"`
	Inode       uint64 `json:"ino"`
	Head        uint64 `json:"head"`       // FNV-64a of the first HeadBytes bytes of the plain text
	HeadBytes   int    `json:"head_bytes"` // up to contentBytes
	Offset      int64  `json:"offset"`     // behind the last event, of the plain text
	Before      uint64 `json:"before"`     // FNV-64a of the BeforeBytes bytes before it
	BeforeBytes int    `json:"before_bytes"`
	Done        bool   `json:"done,omitempty"`
}

const checkpointVersion = 2

// maxCheckpoint is more than maxLogs logs need in practice, in bytes.
const maxCheckpoint = 64 << 20

// legacy is the checkpoint up to version 1: of one file.
type legacy struct {
	Offset    int64  `json:"offset"`
	Head      uint64 `json:"head"`
	HeadBytes int    `json:"head_bytes"`
	Clean     bool   `json:"clean"`
}

// readCheckpoint reads what save wrote, this one or an earlier release's, which has the
// log of an empty path.
func readCheckpoint(text []byte) (c checkpoint, err error) {
	if err = json.Unmarshal(text, &c); err == nil && c.Version == 0 {
		var old legacy
		if err = json.Unmarshal(text, &old); err == nil && old.HeadBytes == 0 {
			err = errors.New("no position in it")
		}
		c.Clean, c.Logs = old.Clean, map[string][]savedFile{"": {{Offset: old.Offset, Head: old.Head, HeadBytes: old.HeadBytes}}}
	} else if err == nil && c.Version != checkpointVersion {
		err = fmt.Errorf("version %d", c.Version)
	}
	if err == nil && len(c.Logs) > maxLogs {
		err = fmt.Errorf("%d logs", len(c.Logs))
	}
	for path, files := range c.Logs {
		if err == nil && len(files) > 4*maxFiles {
			err = fmt.Errorf("%d files of %s", len(files), path)
		}
		for _, f := range files {
			if err == nil && (f.Offset < 0 || f.HeadBytes < 0 || f.HeadBytes > contentBytes || f.BeforeBytes < 0 || f.BeforeBytes > contentBytes || int64(f.BeforeBytes) > f.Offset) {
				err = fmt.Errorf("offset %d, %d and %d bytes of content", f.Offset, f.HeadBytes, f.BeforeBytes)
			}
		}
	}
	if err != nil {
		return checkpoint{}, fmt.Errorf("filetail: no checkpoint: %w", err)
	}
	return c, nil
}

// load reads the checkpoint, if there is one.
func (t *Tail) load() error {
	if t.config.Checkpoint == "" {
		return nil
	}
	info, err := os.Stat(t.config.Checkpoint)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var text []byte
	if err == nil && info.Size() <= maxCheckpoint {
		text, err = os.ReadFile(t.config.Checkpoint)
	}
	if err != nil {
		return fmt.Errorf("filetail: reading the checkpoint: %w", err)
	}
	c, err := readCheckpoint(text)
	switch {
	case err != nil:
		t.config.Logger.Error("The checkpoint cannot be read: the files are read from their beginnings, and events may come twice", "path", t.config.Checkpoint, "error", err)
		t.stats.MayRepeat = true
		return nil
	case !c.Clean:
		t.config.Logger.Warn("The previous run did not end in order: events behind its last checkpoint may come twice", "saved_at", c.SavedAt)
		t.stats.MayRepeat = true
	}
	t.loadedAt = c.SavedAt
	t.known = map[string]bool{}
	for _, name := range c.Names {
		t.known[name] = true
	}
	for path, files := range c.Logs {
		l := &log{path: path, unwrap: line.Unwrapper{Limit: t.config.MaxLineBytes}}
		for _, f := range files {
			at := position{f.Offset, content{f.Before, f.BeforeBytes}}
			l.files = append(l.files, &file{path: f.Path, id: inode{f.Device, f.Inode}, head: content{f.Head, f.HeadBytes}, at: at, settle: at, done: f.Done, closed: f.Done})
		}
		if path == "" { // of an earlier release
			if names := t.config.Names(); len(names) > 0 {
				l.path, l.before = resolve(names[0]), true
				l.files[0].path = l.path
				t.known[names[0]] = true
			}
		}
		t.logs[l.path] = l
	}
	return nil
}

// settle moves the positions up to what has reached its end.
func (t *Tail) settle() {
	_, settled := t.config.Progress()
	if t.marks.reach(settled) {
		t.changed = true
	}
}

// Save writes the checkpoint at an orderly end. Call it after Run, when what was handed on
// has reached its end as far as it will. clean says that nothing behind that was
// sent anywhere.
func (t *Tail) Save(clean bool) error {
	t.settle()
	return t.write(clean)
}

// save writes the checkpoint if it is due.
func (t *Tail) save(clean bool) {
	if !t.changed || time.Since(t.saved) < saveInterval {
		return
	}
	t.saved, t.changed = time.Now(), false
	if err := t.write(clean); err != nil {
		t.config.Logger.Error("The position is not saved: after a kill more events come twice", "error", err)
		t.saved = t.saved.Add(lookInterval)
	}
}

// write replaces the checkpoint.
func (t *Tail) write(clean bool) error {
	if t.config.Checkpoint == "" {
		return nil
	}
	c := checkpoint{Version: checkpointVersion, Clean: clean, SavedAt: time.Now().UTC(), Names: t.config.Names(), Logs: map[string][]savedFile{}}
	for path, l := range t.logs {
		files := make([]savedFile, 0, len(l.files))
		for _, f := range l.files {
			head := f.known()
			files = append(files, savedFile{Path: f.path, Device: f.id.dev, Inode: f.id.number, Head: head.sum, HeadBytes: head.bytes,
				Offset: f.settle.offset, Before: f.settle.before.sum, BeforeBytes: f.settle.before.bytes, Done: f.closed})
		}
		c.Logs[path] = files
	}
	text, err := json.Marshal(c)
	if err == nil {
		beside := t.config.Checkpoint + ".new"
		if err = os.WriteFile(beside, text, 0o600); err == nil {
			err = os.Rename(beside, t.config.Checkpoint)
		}
	}
	if err != nil {
		return fmt.Errorf("filetail: writing the checkpoint: %w", err)
	}
	return nil
}
