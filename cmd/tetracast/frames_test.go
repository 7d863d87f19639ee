package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tetracast/internal/corpus"
)

// TestFrameCommands: keys and dictionaries are made by commands whose wrong
// usage is told.
func TestFrameCommands(t *testing.T) {
	folder := t.TempDir()
	key, dictionary, sample := filepath.Join(folder, "key"), filepath.Join(folder, "own.dict"), filepath.Join(folder, "sample.binpb.gz")
	if err := os.WriteFile(sample, corpus.Sample(), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(code int, want string, args ...string) {
		t.Helper()
		p := run(t, args...)
		if got := p.wait(20 * time.Second); got != code || !strings.Contains(p.log.String(), want) || p.out.Len() > 0 {
			t.Errorf("%v: exit code %d, want %d and %q:\n%s%s", args, got, code, want, p.out.String(), p.log.String())
		}
	}
	f(0, key, "key", "new", key)
	f(1, "never overwritten", "key", "new", key)
	f(2, "usage: tetracast key new FILE", "key", "new")
	f(0, dictionary, "dictionary", "train", sample, "--output", dictionary)
	f(2, "RECORDING", "dictionary", "train")
	f(2, "want 1024 to", "dictionary", "train", sample, "--size", "10")
	f(1, "not a recording", "dictionary", "train", key)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want mode 600", info, err)
	}
}
