package filetail

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// expand returns the files that the names mean, patterns or not, with links resolved:
// the rotations of a file lie beside it, not beside a link to it.
func expand(names []string) (paths []string) {
	for _, name := range names {
		found := []string{name}
		if _, err := os.Lstat(name); err != nil && strings.ContainsAny(name, `*?[\`) {
			found, _ = filepath.Glob(name) // Check has refused a wrong pattern
		}
		for _, f := range found {
			paths = append(paths, resolve(f))
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	return slices.DeleteFunc(paths, func(p string) bool {
		// A pattern that matches rotations too does not make logs of them.
		return slices.ContainsFunc(paths, func(live string) bool {
			_, ok := rotationOf(live, p)
			return ok
		})
	})
}

// resolve follows links as far as there is something to follow.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return filepath.Clean(path)
}

// rotation is what the name of a rotated file says of its age: to compress one makes
// it young.
type rotation struct {
	number int    // the higher, the older; 0: the name has a time in it
	name   string // without .gz
}

func (r rotation) compare(o rotation) int {
	return cmp.Or(cmp.Compare(o.number, r.number), cmp.Compare(r.name, o.name))
}

// rotationOf says whether path can be a file that had the name live before: as
// Tetragon's own rotation names it, name-TIME.ext; as logrotate does, name.ext.1 and
// name.ext-DATE; as kubelet does, name.ext.TIME; each also with .gz.
func rotationOf(live, path string) (rotation, bool) {
	if filepath.Dir(live) != filepath.Dir(path) {
		return rotation{}, false
	}
	base, name := filepath.Base(live), strings.TrimSuffix(filepath.Base(path), ".gz")
	ext := filepath.Ext(base)
	r := rotation{name: name}
	if after, ok := strings.CutPrefix(name, base+"."); ok && isTime(after) {
		if n, err := strconv.Atoi(after); err == nil && len(after) < len("20260315") {
			r.number = n
			return r, n > 0
		}
		return r, true
	}
	after, ok := strings.CutPrefix(name, base+"-")
	if !ok && ext != "" {
		after, ok = strings.CutPrefix(name, strings.TrimSuffix(base, ext)+"-")
		if ok {
			after, ok = strings.CutSuffix(after, ext)
		}
	}
	return r, ok && isTime(after)
}

// isTime says whether the text can be a number, a date or a time.
func isTime(text string) bool {
	return text != "" && '0' <= text[0] && text[0] <= '9' && strings.Trim(text, "0123456789TZ:._+-") == ""
}

// candidate is a file in the folder of a log.
type candidate struct {
	path string
	id   inode
	size int64
	time int64 // of the last change, in nanoseconds since 1970
	live bool
	rotation
}

func (c *candidate) zipped() bool { return strings.HasSuffix(c.path, ".gz") }

// list returns the rotations of a log, the oldest first, and behind them its live file, if
// there is one. Of a file that is there both ways, the compressed one is not whole.
// Beyond maxFiles the oldest are left out.
func list(live string) (all []candidate, err error) {
	folder, err := os.Open(filepath.Dir(live))
	if err != nil {
		return nil, err
	}
	names, err := folder.Readdirnames(-1)
	_ = folder.Close() // it was only read
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for _, name := range names {
		c := candidate{path: filepath.Join(filepath.Dir(live), name)}
		var ok bool
		if c.rotation, ok = rotationOf(live, c.path); !ok || c.zipped() && there[c.name] {
			continue
		}
		if info, err := os.Lstat(c.path); err == nil && info.Mode().IsRegular() {
			c.id, c.size, c.time = inodeOf(info), info.Size(), info.ModTime().UnixNano()
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return a.compare(b.rotation) })
	all = all[max(0, len(all)-maxFiles):]
	if info, err := os.Stat(live); err == nil && info.Mode().IsRegular() {
		all = append(all, candidate{path: live, id: inodeOf(info), size: info.Size(), time: info.ModTime().UnixNano(), live: true})
	}
	return all, nil
}
