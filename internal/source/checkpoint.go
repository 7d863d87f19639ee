package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// position is how far a file was read. The file is known by its first bytes, for
// its name and, once compressed, its inode change.
type position struct {
	Offset    int64  `json:"offset"`     // behind the last whole line, of the plain text
	Head      uint64 `json:"head"`       // hash of the first HeadBytes bytes
	HeadBytes int    `json:"head_bytes"` // up to maxHeadBytes; 0: no file
	// Clean: an orderly end wrote this, and nothing behind Offset was sent.
	Clean bool `json:"clean"`
}

// maxHeadBytes is enough to hold an exec_id and the time of an event, which no two
// files have in common.
const maxHeadBytes = 1024

// of says whether the position is one of the file.
func (p *position) of(file io.ReaderAt) bool {
	if p.HeadBytes == 0 {
		return false
	}
	head, n := headOf(io.NewSectionReader(file, 0, maxHeadBytes), p.HeadBytes)
	return n == p.HeadBytes && head == p.Head
}

// headOf returns a hash over the next want bytes of text, and how many there were.
func headOf(text io.Reader, want int) (hash uint64, n int) {
	h := fnv.New64a()
	read, _ := io.CopyN(h, text, int64(want)) // what cannot be read is no head
	return h.Sum64(), int(read)
}

// readCheckpoint reads what write wrote.
func readCheckpoint(text []byte) (p position, err error) {
	if err = json.Unmarshal(text, &p); err == nil && (p.Offset < 0 || p.HeadBytes < 0 || p.HeadBytes > maxHeadBytes || int64(p.HeadBytes) > p.Offset) {
		err = fmt.Errorf("offset %d, head of %d bytes", p.Offset, p.HeadBytes)
	}
	if err != nil {
		return position{}, fmt.Errorf("source: no checkpoint: %w", err)
	}
	return p, nil
}

// load reads the checkpoint, if there is one.
func (t *Tail) load() error {
	if t.config.Checkpoint == "" {
		return nil
	}
	text, err := os.ReadFile(t.config.Checkpoint)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("source: reading the checkpoint: %w", err)
	}
	p, err := readCheckpoint(text)
	switch {
	case err != nil:
		t.config.Logger.Error("The checkpoint cannot be read: the file is read from its beginning, and events may come twice", "path", t.config.Checkpoint, "cause", err)
		t.stats.mayRepeat.Store(true)
	case !p.Clean:
		t.config.Logger.Warn("The process before this one did not end in order: events behind its last checkpoint may come twice", "offset", p.Offset)
		t.stats.mayRepeat.Store(true)
	}
	t.saved = p
	t.begin(p)
	return nil
}

// Save writes the checkpoint at an orderly end, when everything that was handed on
// has reached its own. Call it after Run.
func (t *Tail) Save() error { return t.write(t.seen, true) }

// checkpoint saves the position, if all before it is settled.
func (t *Tail) checkpoint() {
	p := t.seen
	if p == t.saved || !t.config.Settled() {
		return
	}
	if err := t.write(p, false); err != nil {
		t.config.Logger.Error("The position is not saved: after a kill more events come twice", "cause", err)
		return
	}
	t.saved = p
}

// write replaces the checkpoint.
func (t *Tail) write(p position, clean bool) error {
	if t.config.Checkpoint == "" {
		return nil
	}
	p.Clean = clean
	text, err := json.Marshal(p)
	if err == nil {
		beside := t.config.Checkpoint + ".new"
		if err = os.WriteFile(beside, text, 0o600); err == nil {
			err = os.Rename(beside, t.config.Checkpoint)
		}
	}
	if err != nil {
		return fmt.Errorf("source: writing the checkpoint: %w", err)
	}
	return nil
}
