package readfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRead: a file up to its limit is read, a longer one and one without an end are not, and
// a secret is one.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, n := range []int{0, 99, 100, 101, 10_000} {
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), n), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := Max(path, 100)
		if (err == nil) != (n <= 100) || err != nil && !errors.Is(err, ErrTooLong) || err == nil && len(text) != n {
			t.Errorf("%d bytes: %d read, %v", n, len(text), err)
		}
	}
	if _, err := Max("/dev/zero", 100); !errors.Is(err, ErrTooLong) {
		t.Errorf("/dev/zero: %v", err)
	}
	if _, err := Max(path+".not", 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for mode, open := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o440: false, 0o640: false, 0o644: true, 0o604: true, 0o660: true, 0o602: true, 0o601: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Secret(path, 1<<20); errors.Is(err, ErrOpenToOthers) != open {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}
