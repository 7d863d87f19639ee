package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// dist holds what run made for this machine's architecture, once for all tests.
var dist string

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	folder, err := os.MkdirTemp("", "tetracast-package-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer func() { _ = os.RemoveAll(folder) }()
	dist = folder
	if err := run(dist, []string{runtime.GOARCH}, "1.2.3"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	code = m.Run()
}

// one returns the one file of dist that the pattern matches.
func one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: found %q, %v", pattern, found, err)
	}
	return found[0]
}

func binary(t *testing.T) string { return one(t, "tetracast_*_linux_"+runtime.GOARCH) }

func agent(t *testing.T) string { return one(t, "tetracast-agent_*_linux_"+runtime.GOARCH) }

// sh runs a shell command and returns its output.
func sh(t *testing.T, command string, args ...string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", command, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", command, args, err, out)
	}
	return string(out)
}

// need skips the test without a program or without root, unless it has to run.
func need(t *testing.T, programs ...string) {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "not root"
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			why = program + " is not installed"
		}
	}
	if why != "" && os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
		t.Fatalf("TETRACAST_REQUIRE_ROOT_TESTS is set, but %s", why)
	}
	if why != "" {
		t.Skipf("SKIPPED, NOT TESTED: %s", why)
	}
}

func TestChecksums(t *testing.T) {
	sums := sh(t, `cd "$1" && sha256sum --check --strict SHA256SUMS`, dist)
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	if ok := strings.Count(sums, ": OK\n"); ok != len(entries)-1 || ok != 6 {
		t.Errorf("%d files and %d sums, want two binaries, bill of materials, deb, rpm and image: %s", len(entries)-1, ok, sums)
	}
}

// TestReproducible: packed again from the same binary, every byte is the same.
func TestReproducible(t *testing.T) {
	info, err := buildinfo.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	r := &release{arch: runtime.GOARCH, version: "1.2.3", info: info}
	if err := r.askGit(); err != nil {
		t.Fatal(err)
	}
	r.place(again)
	sh(t, `cp "$1" "$2" && cp "$3" "$4"`, binary(t), r.path, agent(t), r.agent)
	if err := errors.Join(r.writeSBOM(), r.writePackage(again, "deb"), r.writePackage(again, "rpm"),
		writeImage(again, []*release{r}), writeChecksums(again)); err != nil {
		t.Fatal(err)
	}
	sh(t, `diff -r "$1" "$2"`, dist, again)
}

// What the packages put where; Debian's and rpm's are the same.
var installed = []string{
	"/etc/tetracast/tetracast.yaml",
	"/usr/bin/tetracast",
	"/usr/bin/tetracast-agent",
	"/usr/lib/systemd/system/tetracast-collect.service",
	"/usr/lib/systemd/system/tetracast-collect.socket",
	"/usr/lib/systemd/system/tetracast-export.service",
	"/usr/share/doc/tetracast/install.md",
	"/usr/share/doc/tetracast/tetracast.cdx.json",
	"/usr/share/tetracast/key.conf",
}

// TestDeb installs the package into a folder, as on a machine whose systemd does
// not run, and takes it away again.
func TestDeb(t *testing.T) {
	need(t, "dpkg", "systemctl")
	root := scratch(t)
	dpkg := `dpkg --root="$1" --log=/dev/null --force-script-chrootless --force-not-root `
	sh(t, dpkg+`--install "$2"`, root, one(t, "*.deb"))
	if got := strings.Fields(sh(t, `cd "$1" && find etc/tetracast usr -name '*tetracast*' -type f -o -path '*/tetracast/*' -type f | sed s,^,/, | sort`, root)); !slices.Equal(got, installed) {
		t.Errorf("installed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(installed, "\n"))
	}
	if out := sh(t, `"$1"/usr/bin/tetracast version`, root); !strings.HasPrefix(out, "tetracast ") {
		t.Errorf("the installed binary says %q", out)
	}
	if links := enabled(t, root); links != "" {
		t.Errorf("enabled by the installation alone: %s", links)
	}
	sh(t, `systemctl --root="$1" enable tetracast-export.service tetracast-collect.service`, root)
	if links := enabled(t, root); strings.Count(links, "\n") != 3 {
		t.Errorf("enabled export and collect: %q, want two services and a socket", links)
	}
	sh(t, `mkdir -p "$1"/var/lib/private/tetracast-export "$1"/var/log/tetracast && echo {} >"$1"/var/log/tetracast/events.jsonl`, root)
	sh(t, dpkg+`--remove tetracast`, root)
	if links := enabled(t, root); links != "" {
		t.Errorf("still enabled after the removal: %s", links)
	}
	if left := sh(t, `cd "$1" && find . -path '*tetracast*' -type f -not -path './var/*'`, root); left != "./etc/tetracast/tetracast.yaml\n" {
		t.Errorf("left by the removal: %q, want the configuration alone", left)
	}
	sh(t, dpkg+`--purge tetracast`, root)
	if left := sh(t, `cd "$1" && find . -path '*tetracast*' | sort`, root); left != "./var/log/tetracast\n./var/log/tetracast/events.jsonl\n" {
		t.Errorf("left by the purge: %q, want the events alone", left)
	}
}

func enabled(t *testing.T, root string) string {
	return sh(t, `cd "$1" && find etc/systemd -name 'tetracast*' | sort`, root)
}

// scratch makes a root folder into which dpkg and rpm can install.
func scratch(t *testing.T) string {
	root := t.TempDir()
	sh(t, `cd "$1" && mkdir -p usr/lib var/lib/dpkg/info var/lib/dpkg/updates etc/systemd/system && touch var/lib/dpkg/status var/lib/dpkg/available`, root)
	return root
}

// TestUnits: systemd reads the installed units, also with the key's drop-in and
// another address to listen on, and finds nothing to complain about and little
// that the services could do.
func TestUnits(t *testing.T) {
	need(t, "dpkg", "systemd-analyze")
	root := scratch(t)
	sh(t, `dpkg-deb --extract "$2" "$1" && cp -R /usr/lib/systemd/system "$1"/usr/lib/systemd/ && mkdir -p "$1"/bin && cp /bin/kill "$1"/bin/`, root, one(t, "*.deb"))
	units := `tetracast-export.service tetracast-collect.service tetracast-collect.socket`
	verify := `systemd-analyze verify --man=no --recursive-errors=no --root="$1" ` + units
	if out := sh(t, verify, root); out != "" {
		t.Errorf("systemd-analyze verify says:\n%s", out)
	}
	for _, unit := range []string{"tetracast-export.service", "tetracast-collect.service"} {
		// From 0, which can do nothing, to 100. The network is what they are for.
		out := sh(t, `systemd-analyze security --no-pager --offline=yes --threshold=20 --root="$1" "$2" | tail -1`, root, unit)
		t.Log(strings.TrimSpace(out))
	}
	sh(t, `cd "$1"/etc/systemd/system && for unit in export collect; do
		install -D -m 644 "$1"/usr/share/tetracast/key.conf tetracast-$unit.service.d/key.conf; done &&
		mkdir tetracast-collect.socket.d && printf '[Socket]\nListenDatagram=\nListenDatagram=7514\n' >tetracast-collect.socket.d/listen.conf`, root)
	if out := sh(t, verify, root); out != "" {
		t.Errorf("with drop-ins systemd-analyze verify says:\n%s", out)
	}
	// The check can fail.
	sh(t, `sed -i s/^ProtectSystem=strict/ProtectSystem=yess/ "$1"/usr/lib/systemd/system/tetracast-export.service`, root)
	if out := sh(t, verify+` 2>&1 || true`, root); !strings.Contains(out, "Failed to parse") {
		t.Errorf("a wrong value passes: %q", out)
	}
}

func TestRPM(t *testing.T) {
	need(t, "rpm")
	file := one(t, "*.rpm")
	if out := sh(t, `rpm --checksig --nosignature "$1"`, file); !strings.Contains(out, "OK") {
		t.Error(out)
	}
	root := t.TempDir()
	rpm := `rpm --root="$1" --dbpath=/rpm `
	sh(t, rpm+`--initdb && `+rpm+`--install --nodeps --noscripts --nosignature --ignorearch "$2"`, root, file)
	got := strings.Fields(sh(t, rpm+`--query --list tetracast`, root))
	got = slices.DeleteFunc(got, func(name string) bool {
		info, err := os.Stat(filepath.Join(root, name))
		return err == nil && info.IsDir()
	})
	if !slices.Equal(got, installed) {
		t.Errorf("installed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(installed, "\n"))
	}
	if out := sh(t, rpm+`--query --configfiles tetracast`, root); strings.TrimSpace(out) != "/etc/tetracast/tetracast.yaml" {
		t.Errorf("configuration files: %q", out)
	}
	sh(t, rpm+`--erase --noscripts tetracast`, root)
	if left := sh(t, `cd "$1" && find . -name '*tetracast*'`, root); left != "" {
		t.Errorf("left by the removal: %s", left)
	}
}

// TestScripts: the maintainer scripts are called with the arguments of deb and of
// rpm, and call systemctl for what each means.
func TestScripts(t *testing.T) {
	need(t, "unshare")
	for _, c := range []struct{ script, args, want string }{
		{"postinstall.sh", "configure", "daemon-reload"},
		{"postinstall.sh", "configure 1.2.2", "daemon-reload|try-restart tetracast-export.service tetracast-collect.service"},
		{"postinstall.sh", "1", "daemon-reload"},
		{"postinstall.sh", "2", "daemon-reload|try-restart tetracast-export.service tetracast-collect.service"},
		{"preremove.sh", "upgrade 1.2.4", ""},
		{"preremove.sh", "1", ""},
		{"preremove.sh", "remove", "stop UNITS|--root=/ --no-reload disable UNITS"},
		{"preremove.sh", "0", "stop UNITS|--root=/ --no-reload disable UNITS"},
		{"postremove.sh", "remove", "daemon-reload"},
		{"postremove.sh", "0", "daemon-reload"},
	} {
		folder := t.TempDir()
		fake := "#!/bin/sh\necho \"$*\" >>" + folder + "/calls\n"
		if err := os.WriteFile(filepath.Join(folder, "systemctl"), []byte(fake), 0o755); err != nil {
			t.Fatal(err)
		}
		// A machine whose systemd runs, as far as the scripts can see.
		sh(t, `unshare --mount sh -c 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && PATH="$1:$PATH" sh "$2" $3' sh "$1" "$2" "$3"`,
			folder, "scripts/"+c.script, c.args)
		calls, err := os.ReadFile(filepath.Join(folder, "calls"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(strings.TrimSpace(string(calls)), "\n", "|")
		want := strings.ReplaceAll(c.want, "UNITS", "tetracast-export.service tetracast-collect.socket tetracast-collect.service")
		if got != want {
			t.Errorf("%s %s calls systemctl %q, want %q", c.script, c.args, got, want)
		}
	}
}

// TestConfigurationFile: the packaged file has only keys that the commands know,
// and lacks nothing but the destination. The agent leaves the collector's section
// alone.
func TestConfigurationFile(t *testing.T) {
	text, err := os.ReadFile("etc/tetracast.yaml")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	text = bytes.ReplaceAll(text, []byte("/var/l"), []byte(folder+"/l"))
	path := filepath.Join(folder, "tetracast.yaml")
	export := func(program string, text []byte) (code int, out []byte) {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "export", "--config", path, "--fail-fast", "--server-address", "unix:///nonexistent")
		out, _ = cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), out
	}
	if code, out := export(agent(t), text); code != 2 || !bytes.Contains(out, []byte("--udp-destination")) {
		t.Errorf("as it is packaged: exit code %d, %s", code, out)
	}
	edited := bytes.Replace(text, []byte("# udp-destination: [frame://collector.example:7514]"), []byte("udp-destination: [frame://127.0.0.1:9]"), 1)
	if code, out := export(agent(t), edited); bytes.Equal(edited, text) || code != 1 || !bytes.Contains(out, []byte("/nonexistent")) {
		t.Errorf("with a destination: exit code %d, %s", code, out)
	}
	unknown := bytes.Replace(edited, []byte("\nexport:\n"), []byte("\nexport:\n  stat-dir: /tmp\n"), 1)
	if code, out := export(binary(t), unknown); bytes.Equal(unknown, edited) || code != 2 || !bytes.Contains(out, []byte("stat-dir")) {
		t.Errorf("with an unknown key: exit code %d, %s", code, out)
	}
	if code, out := export(binary(t), append(edited, "  stat-dir: /tmp\n"...)); code != 1 || !bytes.Contains(out, []byte("/nonexistent")) {
		t.Errorf("with an unknown key in the section of collect: exit code %d, %s", code, out)
	}
	if code, out := export(binary(t), append(edited, "export:\n  state-dir: /tmp\n"...)); code != 2 || !bytes.Contains(out, []byte("a second section")) {
		t.Errorf("with a second section: exit code %d, %s", code, out)
	}
}

// TestSBOM: it is CycloneDX, and names the agent and each module of the binary and no
// other. The agent has no module that the binary has not.
func TestSBOM(t *testing.T) {
	text, err := os.ReadFile(one(t, "*.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b cyclonedx.BOM
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&b); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "pkg:golang/stdlib@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, dep := range info.Deps {
		want = append(want, "pkg:golang/"+dep.Path+"@"+dep.Version)
	}
	var got []string
	for _, c := range *b.Components {
		got = append(got, c.PackageURL)
	}
	if b.SpecVersion != cyclonedx.SpecVersion1_6 || !slices.Equal(got, want) || len(got) < 10 {
		t.Errorf("version %v, components\n%s\nwant\n%s", b.SpecVersion, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	f := func(path string, c *cyclonedx.Component) {
		t.Helper()
		sum := strings.Fields(sh(t, `sha256sum "$1"`, path))[0]
		if got := (*c.Hashes)[0].Value; got != sum {
			t.Errorf("the sum of %s is %s, the bill of materials says %s", path, sum, got)
		}
	}
	f(binary(t), b.Metadata.Component)
	f(agent(t), &(*b.Components)[0])
	if info, err = buildinfo.ReadFile(agent(t)); err != nil {
		t.Fatal(err)
	}
	for _, dep := range info.Deps {
		if url := "pkg:golang/" + dep.Path + "@" + dep.Version; !slices.Contains(want, url) {
			t.Errorf("the agent has %s, which the binary has not", url)
		}
	}
}

// TestImage: the image holds exactly these files, runs as nobody in particular,
// and its binary runs with nothing else in the root file system.
func TestImage(t *testing.T) {
	folder := t.TempDir()
	sh(t, `tar -xf "$2" -C "$1"`, folder, one(t, "*_image.tar"))
	store, err := layout.FromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	top, err := store.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}
	image := inner(t, top)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c := config.Config; c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/usr/bin/tetracast"}) || config.Architecture != runtime.GOARCH {
		t.Errorf("user %q, entrypoint %q, architecture %q", c.User, c.Entrypoint, config.Architecture)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	var listed []string
	files := tar.NewReader(content)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, fmt.Sprintf("%v %d:%d %s", header.FileInfo().Mode(), header.Uid, header.Gid, header.Name))
		unpack(t, root, header, files)
	}
	want := []string{
		"drwxr-xr-x 0:0 usr/",
		"drwxr-xr-x 0:0 usr/bin/",
		"-rwxr-xr-x 0:0 usr/bin/tetracast",
		"-rwxr-xr-x 0:0 usr/bin/tetracast-agent",
		"drwxr-xr-x 0:0 var/",
		"drwxr-xr-x 0:0 var/lib/",
		"drwx------ 65532:65532 var/lib/tetracast/",
	}
	if !slices.Equal(listed, want) {
		t.Errorf("in the image:\n%s\nwant:\n%s", strings.Join(listed, "\n"), strings.Join(want, "\n"))
	}
	need(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/tetracast", "decode")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.Output()
	if lines := bytes.Count(out, []byte("\n")); err != nil || lines != 683 {
		t.Errorf("in the image decode writes %d lines of 683, %v", lines, err)
	}
}

// inner returns the one image below an index of indexes.
func inner(t *testing.T, index v1.ImageIndex) v1.Image {
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%v, %v", manifest, err)
	}
	first := manifest.Manifests[0]
	if first.MediaType.IsIndex() {
		next, err := index.ImageIndex(first.Digest)
		if err != nil {
			t.Fatal(err)
		}
		return inner(t, next)
	}
	image, err := index.Image(first.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func unpack(t *testing.T, root string, header *tar.Header, content io.Reader) {
	t.Helper()
	path := filepath.Join(root, header.Name)
	if header.Typeflag == tar.TypeDir {
		if err := os.Mkdir(path, header.FileInfo().Mode().Perm()); err != nil {
			t.Fatal(err)
		}
		return
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, header.FileInfo().Mode().Perm())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, content); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
