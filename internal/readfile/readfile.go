// Package readfile reads files that somebody else may have written, or that a flag names by
// mistake: never more of one than it may hold.
package readfile

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrTooLong is wrapped by the error of Max for a file that is longer than allowed.
var ErrTooLong = errors.New("longer than it may be")

// ErrOpenToOthers is wrapped by the error of Secret for a file that others may read.
var ErrOpenToOthers = errors.New("others may read or change it")

// Max returns the content of a file of at most limit bytes. It may be a pipe.
func Max(path string, limit int64) ([]byte, error) {
	return read(path, limit, false)
}

// Secret is Max for a file with a secret: one that others than its owner and its group may
// read, or others than its owner may change, is refused.
func Secret(path string, limit int64) ([]byte, error) {
	return read(path, limit, true)
}

func read(path string, limit int64, secret bool) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if secret {
		// Of the open file: the path may name another one in a moment.
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o027 != 0 {
			return nil, fmt.Errorf("%s: %w: mode %#o", path, ErrOpenToOthers, mode.Perm())
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes", path, ErrTooLong, limit)
	}
	return text, nil
}
