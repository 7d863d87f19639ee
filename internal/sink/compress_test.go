package sink

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// read returns the text of a file, decompressed.
func read(t testing.TB, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var in io.Reader = file
	switch filepath.Ext(path) {
	case ".gz":
		in, err = gzip.NewReader(file)
	case ".zst":
		in, err = zstd.NewReader(file)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(text)
}

// names of the files in a folder, sorted.
func namesIn(t testing.TB, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// allLines returns the lines of all files in a folder.
func allLines(t testing.TB, folder string) (lines []string) {
	t.Helper()
	for _, name := range namesIn(t, folder) {
		lines = slices.AppendSeq(lines, strings.Lines(read(t, filepath.Join(folder, name))))
	}
	return lines
}

// runUntilIdle runs Run until it has nothing to do any more.
func runUntilIdle(t *testing.T, f *File) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	synctest.Wait()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCompression(t *testing.T) {
	for _, c := range []Compression{Gzip, Zstd} {
		synctest.Test(t, func(t *testing.T) {
			f, path := open(t, FileConfig{MaxBytes: 4, MaxFiles: 3, Compression: c})
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			write(t, f, "aaa", "bbb", "ccc", "ddd")
			list, err := f.names.list()
			if err != nil {
				t.Fatal(err)
			}
			before, err := os.Stat(f.names.rotated(list[0].at))
			if err != nil {
				t.Fatal(err)
			}
			runUntilIdle(t, f)
			folder := filepath.Dir(path)
			files := namesIn(t, folder)
			if len(files) != 3 || !strings.HasSuffix(files[0], c.suffix()) || !strings.HasSuffix(files[1], c.suffix()) {
				t.Fatalf("files %v", files)
			}
			if got := strings.Join(allLines(t, folder), ""); got != "bbb\nccc\nddd\n" {
				t.Errorf("%q", got)
			}
			after, err := os.Stat(filepath.Join(folder, files[0]))
			if err != nil || after.Mode() != before.Mode() || after.ModTime().Unix() != before.ModTime().Unix() {
				t.Errorf("mode %v, time %v, %v; want %v and %v", after.Mode(), after.ModTime(), err, before.Mode(), before.ModTime())
			}
			write(t, f, "eee") // counts the compressed ones
			if got := strings.Join(allLines(t, folder), ""); got != "ccc\nddd\neee\n" {
				t.Errorf("%q", got)
			}
		})
	}
}

// What a process that was killed while it compressed leaves is mended by the next
// one: under a final name there is only what is whole.
func TestCompressionAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		for name, text := range map[string]string{
			"events-2026-01-01T00-00-00.000.jsonl":           "a\n", // killed while it compressed
			".events-2026-01-01T00-00-00.000.jsonl.zst.part": "half",
			"events-2026-01-02T00-00-00.000.jsonl":           "b\n", // killed before the plain one went
			"events-2026-01-02T00-00-00.000.jsonl.zst":       "as good as whole: made once more",
			".events-2026-01-03T00-00-00.000.jsonl.gz.part":  "half", // the plain one was removed meanwhile
			"events-2026-01-04T00-00-00.000.jsonl":           "c\n",
			"events.jsonl":                                   "d\n",
			".notes.part":                                    "not ours\n",
			".events-2026-01-01T00-00-00.000.jsonl.part":     "not ours\n",
		} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, _ := open(t, FileConfig{Path: filepath.Join(folder, "events.jsonl"), MaxBytes: 100, Compression: Zstd})
		runUntilIdle(t, f)
		want := []string{".events-2026-01-01T00-00-00.000.jsonl.part", ".notes.part", "events-2026-01-01T00-00-00.000.jsonl.zst", "events-2026-01-02T00-00-00.000.jsonl.zst",
			"events-2026-01-04T00-00-00.000.jsonl.zst", "events.jsonl"}
		if got := namesIn(t, folder); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if got := strings.Join(allLines(t, folder), ""); got != "not ours\nnot ours\na\nb\nc\nd\n" {
			t.Errorf("%q", got)
		}
	})
}

// reading is a context that tells when it is asked, which is at each read.
type reading struct {
	context.Context
	tell func()
}

func (r reading) Err() error {
	r.tell()
	return r.Context.Err()
}

func TestCompressionIsInterrupted(t *testing.T) {
	f, path := open(t, FileConfig{MaxBytes: 4, Compression: Gzip})
	folder := filepath.Dir(path)
	write(t, f, "aaa", "bbb")
	plain := filepath.Join(folder, namesIn(t, folder)[0])
	pack := func(tell func(cancel func())) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return f.pack(reading{ctx, func() { tell(cancel) }}, plain)
	}
	unchanged := func(what string) {
		t.Helper()
		if got := namesIn(t, folder); len(got) != 2 || read(t, plain) != "aaa\n" {
			t.Errorf("%s: files %v", what, got)
		}
	}

	if err := pack(func(cancel func()) {
		if got := namesIn(t, folder); len(got) != 3 || got[0] != "."+filepath.Base(plain)+".gz.part" {
			t.Errorf("while it is made: files %v", got)
		}
		cancel()
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	unchanged("the end of the process")

	writer, err := openAppend(plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pack(func(func()) {}); !errors.Is(err, ErrInUse) {
		t.Errorf("somebody writes to it: %v", err)
	}
	_ = writer.Close()
	unchanged("somebody writes to it")

	if err := pack(func(func()) { _ = os.Remove(plain) }); err != nil {
		t.Errorf("removed meanwhile: %v", err)
	}
	if got := namesIn(t, folder); !slices.Equal(got, []string{"events.jsonl"}) {
		t.Errorf("removed meanwhile: files %v", got)
	}
	if err := pack(func(func()) {}); err != nil {
		t.Errorf("removed before: %v", err)
	}
}

func TestParseCompression(t *testing.T) {
	for text, want := range map[string]Compression{"none": None, "gzip": Gzip, "zstd": Zstd} {
		if got, err := ParseCompression(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if _, err := ParseCompression("lz4"); err == nil || !strings.Contains(err.Error(), `"lz4"`) {
		t.Errorf("%v", err)
	}
}
