package sink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// timeForm is that of the time in a rotated file's name, in UTC: the one that
// Tetragon gives the rotations of its own export file (lumberjack's). Names of
// one width sort by time.
const timeForm = "2006-01-02T15-04-05.000"

// A compressed file that is not whole yet has these around its name, so that no
// pattern for rotated files takes it.
const partPrefix, partSuffix = ".", ".part"

// names are the file's own and those of its rotations: events.jsonl,
// events-2026-11-24T08-00-00.000.jsonl, and the latter with the suffix of its
// compression. A rotated file keeps its name, so whatever reads it elsewhere, or
// compresses it here, is not overtaken by the next rotation.
type names struct {
	path, folder string
	stem, ext    string
}

func namesOf(path string) names {
	ext := filepath.Ext(path)
	return names{path: path, folder: filepath.Dir(path), stem: strings.TrimSuffix(filepath.Base(path), ext), ext: ext}
}

// rotated returns the name of the rotation at a time.
func (n *names) rotated(at string) string {
	return filepath.Join(n.folder, n.stem+"-"+at+n.ext)
}

// part returns the name under which a compressed file is made.
func (n *names) part(path string) string {
	return filepath.Join(n.folder, partPrefix+filepath.Base(path)+partSuffix)
}

// isPart reports whether the name is one that part returns.
func (n *names) isPart(name string) bool {
	inner, ok := strings.CutSuffix(name, partSuffix)
	if !ok || !strings.HasPrefix(inner, partPrefix) {
		return false
	}
	_, suffix, ok := n.parse(inner[len(partPrefix):])
	return ok && suffix != ""
}

// parse takes a rotation's name apart.
func (n *names) parse(name string) (at, suffix string, ok bool) {
	rest, ok := strings.CutPrefix(name, n.stem+"-")
	if !ok || len(rest) < len(timeForm) {
		return "", "", false
	}
	at = rest[:len(timeForm)]
	if t, err := time.Parse(timeForm, at); err != nil || t.Format(timeForm) != at {
		return "", "", false
	}
	suffix, ok = strings.CutPrefix(rest[len(timeForm):], n.ext)
	return at, suffix, ok && (suffix == "" || suffix == Gzip.suffix() || suffix == Zstd.suffix())
}

// rotation is a rotated file in all its forms: when it has been compressed, for a
// moment, and after a kill in that moment, it has more than one.
type rotation struct {
	at       string
	suffixes []string // of the name; the plain one is empty
}

func (r *rotation) plain() bool { return slices.Contains(r.suffixes, "") }

// list returns the rotations, the oldest first.
func (n *names) list() (list []rotation, err error) {
	entries, err := os.ReadDir(n.folder) // sorted, so the forms of one are neighbours
	if err != nil {
		return nil, fmt.Errorf("sink: listing rotated files: %w", err)
	}
	for _, e := range entries {
		at, suffix, ok := n.parse(e.Name())
		switch {
		case !ok || !e.Type().IsRegular():
		case len(list) > 0 && list[len(list)-1].at == at:
			last := &list[len(list)-1]
			last.suffixes = append(last.suffixes, suffix)
		default:
			list = append(list, rotation{at: at, suffixes: []string{suffix}})
		}
	}
	return list, nil
}

// next returns the time for a new rotation: now, but behind all others, so that
// a clock that was set back changes no order and no file takes another's name.
func next(list []rotation, now time.Time) string {
	at := now.UTC().Format(timeForm)
	if len(list) == 0 || list[len(list)-1].at < at {
		return at
	}
	newest, _ := time.Parse(timeForm, list[len(list)-1].at) // parse has read it before
	return newest.Add(time.Millisecond).Format(timeForm)
}

// rotate gives the file the name of a rotation and opens a new one. If it fails
// the file grows on: too long a file is better than no event.
func (f *File) rotate() {
	list, err := f.tryRotate()
	f.rotation.report(f.config.Log, "Rotating the output file", "it grows", err)
	if err == nil && f.retention.due() {
		f.retention.report(f.config.Log, "Removing rotated files", "more of them are kept", f.prune(list))
	}
	select {
	case f.packer <- struct{}{}:
	default: // it has not seen the last one yet
	}
}

// tryRotate returns the rotations that there are then.
func (f *File) tryRotate() (list []rotation, err error) {
	mine, same, err := f.same()
	if err != nil || !same {
		if err == nil {
			err = f.reopen() // somebody else has moved it: what has the name is not ours to rename
		}
		return nil, err
	}
	f.renaming.Lock()
	defer f.renaming.Unlock()
	if list, err = f.names.list(); err != nil {
		return nil, err
	}
	at := next(list, time.Now())
	rotated := f.names.rotated(at)
	if err := os.Rename(f.names.path, rotated); err != nil {
		return nil, fmt.Errorf("sink: rotating: %w", err)
	}
	if err := f.replace(&mine); err != nil {
		// Back, unless another file has come into the place. Without the name the
		// file is written on too, and its lock keeps it from being compressed.
		return nil, errors.Join(err, unix.Renameat2(unix.AT_FDCWD, rotated, unix.AT_FDCWD, f.names.path, unix.RENAME_NOREPLACE))
	}
	f.rotations.Add(1)
	return append(list, rotation{at: at, suffixes: []string{""}}), nil
}

// prune removes the oldest rotations beyond MaxFiles.
func (f *File) prune(list []rotation) (err error) {
	if f.config.MaxFiles == 0 {
		return nil
	}
	f.renaming.Lock()
	defer f.renaming.Unlock()
	for _, r := range list[:max(0, len(list)-max(0, f.config.MaxFiles-1))] {
		for _, suffix := range r.suffixes {
			if e := os.Remove(f.names.rotated(r.at) + suffix); !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("sink: removing rotated files: %w", err)
	}
	return nil
}
