// Command package makes what is installed: for each architecture the static
// binaries, their bill of materials, a .deb and an .rpm; an image of both for
// containers; and the checksums of all. It needs Go and git and nothing else, no
// container daemon and no root, and the same commit gives the same bytes.
//
// It is a module of its own, because nothing of what it links belongs into the
// binary that it packs.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	out := flag.String("out", "../../dist", "folder to write to; what it holds is removed")
	arches := flag.String("arch", "amd64,arm64", "architectures, by Go's names")
	version := flag.String("version", "", "version, such as 1.2.3; empty: the one that Go stamped into the binary, from the git tag or commit")
	flag.Parse()
	if err := run(*out, strings.Split(*arches, ","), *version); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

// run makes everything below out, which holds nothing else afterwards.
func run(out string, arches []string, version string) error {
	if err := errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	var releases []*release
	for _, arch := range arches {
		r, err := build(out, arch, version)
		if err != nil {
			return err
		}
		if err := errors.Join(r.writeSBOM(), r.writePackage(out, "deb"), r.writePackage(out, "rpm")); err != nil {
			return err
		}
		releases = append(releases, r)
	}
	if err := writeImage(out, releases); err != nil {
		return err
	}
	return writeChecksums(out)
}

// writeChecksums writes SHA256SUMS, for sha256sum -c, over all files of the folder.
func writeChecksums(folder string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		return err
	}
	slices.Sort(paths)
	var sums strings.Builder
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), filepath.Base(path))
	}
	return os.WriteFile(filepath.Join(folder, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
