package filetail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrNone says that there is no file to follow yet.
var ErrNone = errors.New("filetail: no such file")

var errNotLooked = errors.New("filetail: nobody looked yet")

// Check returns the files that the names mean, and an error if one of them cannot be
// read or none is there.
func Check(names []string) (found []string, err error) {
	for _, name := range names {
		if _, err := filepath.Match(name, ""); err != nil {
			return nil, fmt.Errorf("filetail: pattern %q: %w", name, err)
		}
	}
	var errs []error
	for _, path := range expand(names) {
		file, _, err := openFile(path)
		switch {
		case err == nil:
			_ = file.Close() // it was only read
			found = append(found, path)
		case errors.Is(err, fs.ErrNotExist):
			if dir, err := os.Open(filepath.Dir(path)); err == nil {
				_ = dir.Close()
			} else if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		default:
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return found, errs[0]
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNone, strings.Join(names, ", "))
	}
	return found, nil
}

// IsStream says whether the path is a pipe, a device or a socket: something that has
// no position to come back to.
func IsStream(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

// Advice says what a person can do about an error of Check or of Stats.
func Advice(err error) string {
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrPermission) && errors.As(err, &path):
		return "run as a user who may read it" + owner(path.Path) + "; Tetragon's --export-file-perm 640 lets a group read its file"
	case errors.Is(err, ErrNone):
		return "is Tetragon running, and does its --export-filename name this file? It is waited for"
	case errors.Is(err, errNotFile):
		return "name a file, or a pattern such as /var/log/pods/*_tetragon-*_*/export-stdout/*.log; a pipe is read with --source - <PIPE"
	}
	return "see the error"
}

// owner says who may read a file, or enter the folder that hides it.
func owner(path string) string {
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			return fmt.Sprintf(": %s has mode %04o, user %d, group %d", path, info.Mode().Perm(), s.Uid, s.Gid)
		}
	}
	return ""
}

// How often a problem that stays is told.
const (
	firstTold = time.Minute
	lastTold  = time.Hour
	graceTime = 10 * time.Second // for a name between two files
)

// report tells of a problem: when it comes, seldom while it stays, and when it is over.
type report struct {
	problem string // empty: none was told
	since   time.Time
	next    time.Time
	wait    time.Duration
}

// tell finds out whether all can be read, and says what is news.
func (t *Tail) tell(names []string, now time.Time) {
	open, problem := t.problem(names)
	t.count(func(s *Stats) { s.Problem, s.Files = problem, open })
	r := &t.report
	if problem == nil {
		if r.problem != "" {
			t.config.Logger.Info("The file can be read now")
		}
		*r = report{}
		return
	}
	if r.since.IsZero() {
		r.since = now
	}
	text := problem.Error()
	switch {
	case errors.Is(problem, ErrNone) && t.found && now.Sub(r.since) < graceTime:
		return // it was there a moment ago
	case text == r.problem && now.Before(r.next):
		return
	case text == r.problem:
		r.wait = min(2*r.wait, lastTold)
	default:
		r.problem, r.wait = text, firstTold
	}
	r.next = now.Add(r.wait)
	t.config.Logger.Warn("Nothing comes from a file that cannot be read", "error", problem, "hint", Advice(problem))
}

// problem returns how many files are open, and why something cannot be read.
func (t *Tail) problem(names []string) (open int, problem error) {
	for _, l := range t.order {
		if problem == nil {
			problem = l.err
		}
		for _, f := range l.files {
			if f.isOpen() {
				open++
			} else if !f.done && problem == nil {
				problem = f.err
			}
		}
	}
	if problem == nil && open == 0 {
		_, problem = Check(names)
	}
	return open, problem
}
