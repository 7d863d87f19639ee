package app

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"tetracast/datagram"
)

// TestNewKey: a key file is its owner's alone, never overwritten, and another
// key each time.
func TestNewKey(t *testing.T) {
	folder := t.TempDir()
	var log bytes.Buffer
	var ids []uint32
	for _, name := range []string{"one", "two"} {
		path := filepath.Join(folder, name)
		if err := NewKey(path, Streams{Err: &log}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v: want mode 600", info.Mode(), err)
		}
		keys, err := readKeys(path)
		if err != nil || len(keys) != 1 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		ids = append(ids, keys[0].ID())
	}
	if ids[0] == ids[1] {
		t.Error("two keys are the same")
	}
	before, _ := os.ReadFile(filepath.Join(folder, "one"))
	if err := NewKey(filepath.Join(folder, "one"), Streams{Err: &log}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was overwritten: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(folder, "one")); !bytes.Equal(before, after) {
		t.Error("the key file changed")
	}
	if err := os.WriteFile(filepath.Join(folder, "none"), []byte("# no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(filepath.Join(folder, "none")); !errors.Is(err, datagram.ErrKeyFile) {
		t.Errorf("a file without a key: %v", err)
	}
}
