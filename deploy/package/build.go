package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// release is a binary and what is known of it.
type release struct {
	path     string // of the binary
	arch     string // by Go's name
	version  string // without the leading v
	revision string // of the commit
	time     time.Time
	info     *buildinfo.BuildInfo
}

// build compiles the command for an architecture, as a static binary without
// paths of this machine. What the release is, it reads from the binary itself.
func build(out, arch, version string) (*release, error) {
	folder, err := os.MkdirTemp(out, "build-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	fresh, err := filepath.Abs(filepath.Join(folder, "tetracast"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-C", "../..", "-trimpath", "-buildvcs=auto", "-ldflags=-s -w", "-o", fresh, "./cmd/tetracast")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOWORK=off")
	if message, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for %s: %w\n%s", arch, err, message)
	}
	r := &release{arch: arch, version: version}
	if r.info, err = buildinfo.ReadFile(fresh); err != nil {
		return nil, fmt.Errorf("reading what was built: %w", err)
	}
	for _, setting := range r.info.Settings {
		switch setting.Key {
		case "vcs.revision":
			r.revision = setting.Value
		case "vcs.time":
			if r.time, err = time.Parse(time.RFC3339, setting.Value); err != nil {
				return nil, fmt.Errorf("the commit's time: %w", err)
			}
		}
	}
	if r.revision == "" {
		if err := r.askGit(); err != nil {
			return nil, err
		}
	}
	if r.version == "" {
		r.version = strings.TrimPrefix(r.info.Main.Version, "v")
	}
	r.path = filepath.Join(out, r.name(""))
	return r, os.Rename(fresh, r.path)
}

// askGit reads the commit where Go stamps none: not in a linked work tree (Go
// 1.26), nor with -buildvcs=false. The version is then one that Go would make up.
func (r *release) askGit() error {
	out, err := exec.Command("git", "log", "-1", "--format=%H %cI").Output()
	if err != nil {
		return fmt.Errorf("asking git for the commit: %w", err)
	}
	revision, date, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if r.time, err = time.Parse(time.RFC3339, date); err != nil {
		return fmt.Errorf("asking git for the commit's time: %w", err)
	}
	r.revision, r.time = revision, r.time.UTC()
	if r.version == "" {
		r.version = fmt.Sprintf("0.0.0-%s-%.12s", r.time.Format("20060102150405"), revision)
	}
	return nil
}

// name returns a file name of this release.
func (r *release) name(suffix string) string {
	return fmt.Sprintf("tetracast_%s_linux_%s%s", r.version, r.arch, suffix)
}

// sbom is where the bill of materials is.
func (r *release) sbom() string { return r.path + ".cdx.json" }
