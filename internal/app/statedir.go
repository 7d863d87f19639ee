package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holdStateDir makes the folder, if it is missing, and holds it until release: two
// processes that do the same job would overwrite what the other leaves for its next
// run. An empty path is no folder.
//
// The lock is of the file, whatever links lead to it, and ends with the process.
func holdStateDir(path, job string) (release func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	fail := func(err error) (func(), error) {
		return nil, Failed(fmt.Errorf("app: --state-dir: %w", err), "it names a folder that this user can make, read and write")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fail(err)
	}
	file, err := os.OpenFile(filepath.Join(path, job+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fail(err)
	}
	switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		pid := make([]byte, 20)
		n, _ := file.ReadAt(pid, 0)
		_ = file.Close()
		return nil, Failed(fmt.Errorf("app: --state-dir: %s is in use by another %s, process %s", path, job, strings.TrimSpace(string(pid[:n]))),
			"each needs a folder of its own; this one is free when that process has ended")
	case err != nil:
		_ = file.Close()
		return fail(fmt.Errorf("locking %s: %w", file.Name(), err))
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	if err != nil {
		_ = file.Close()
		return fail(err)
	}
	return func() { _ = file.Close() }, nil // the file stays: removed, it could be locked twice
}
