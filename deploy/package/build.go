package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// release is the binaries for an architecture and what is known of them.
type release struct {
	path     string // of tetracast
	agent    string // of tetracast-agent, the one that exports
	arch     string // by Go's name
	version  string // without the leading v
	revision string // of the commit
	time     time.Time
	info     *buildinfo.BuildInfo // of tetracast; the agent has fewer modules
}

// build compiles both commands for an architecture, as static binaries without
// paths of this machine. What the release is, it reads from the binary itself.
func build(out, arch, version string) (*release, error) {
	folder, err := os.MkdirTemp(out, "build-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	fresh, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-C", "../..", "-trimpath", "-buildvcs=auto", "-ldflags=-s -w", "-o", fresh+"/", "./cmd/tetracast", "./cmd/tetracast-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOWORK=off", "GOTOOLCHAIN=auto") // the toolchain of go.mod, also where the system's is older
	if message, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for %s: %w\n%s", arch, err, message)
	}
	r := &release{arch: arch, version: version}
	if r.info, err = buildinfo.ReadFile(filepath.Join(fresh, "tetracast")); err != nil {
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
	r.place(out)
	return r, errors.Join(os.Rename(filepath.Join(fresh, "tetracast"), r.path), os.Rename(filepath.Join(fresh, "tetracast-agent"), r.agent))
}

// place says where the binaries are.
func (r *release) place(out string) {
	r.path, r.agent = filepath.Join(out, r.name("tetracast")), filepath.Join(out, r.name("tetracast-agent"))
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

// name returns the file name of a command of this release.
func (r *release) name(command string) string {
	return fmt.Sprintf("%s_%s_linux_%s", command, r.version, r.arch)
}

// sbom is where the bill of materials is.
func (r *release) sbom() string { return r.path + ".cdx.json" }
