package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The module that holds Tetragon's chart, from which the newest release's is read.
const (
	tetragonModule = "github.com/cilium/tetragon@v1.7.0"
	tetragonSum    = "h1:OrIjiUEUZKwipxSXbhztwVc5PeUxt7SEtLZpPx6jg8U="
)

// sidecar is what our values make of Tetragon's pod.
type sidecar struct {
	HostNetwork bool
	DNSPolicy   core.DNSPolicy
	Grace       int64
	Container   core.Container
	Volumes     []core.Volume // that the container mounts
}

// TestSidecar renders the charts of Tetragon 1.4, 1.6 and 1.7 with our values, with
// and without a key. The first two cannot be had by a package manager: a chart in
// testdata stands for them, and with TETRACAST_TETRAGON_REPO, a clone of Tetragon,
// the real ones have to give the same.
func TestSidecar(t *testing.T) {
	for _, c := range []struct{ version, values string }{{"1.4", "1.4"}, {"1.6", "1.4"}, {"1.7", "1.7"}} {
		t.Run(c.version, func(t *testing.T) {
			chart := tetragonChart(t, c.version)
			text, err := os.ReadFile("../../deploy/helm/tetragon/values-" + c.values + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			without := withoutKey.ReplaceAllString(string(text), "")
			for suffix, values := range map[string]string{"": without, "-key": string(text)} {
				s := renderSidecar(t, chart, values)
				document, err := yaml.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, "sidecar-"+c.version+suffix+".yaml", string(document))
				s.check(t, c.version, suffix != "")
			}
		})
	}
}

var withoutKey = regexp.MustCompile(`(?m)^.*# key\n`)

func (s *sidecar) check(t *testing.T, version string, keyed bool) {
	t.Helper()
	for _, problem := range container(s.Container, s.Volumes, nil) {
		t.Error(problem)
	}
	if !s.HostNetwork || s.DNSPolicy != core.DNSClusterFirstWithHostNet || s.Grace != 1 {
		t.Errorf("hostNetwork %v, dnsPolicy %q, grace period %d s", s.HostNetwork, s.DNSPolicy, s.Grace)
	}
	if !slices.Equal(s.Container.Command, []string{"/usr/bin/tetracast-agent"}) {
		t.Errorf("command %q", s.Container.Command)
	}
	c := s.Container.SecurityContext
	if *c.RunAsUser != 65532 || *c.RunAsGroup != 0 || !*c.ReadOnlyRootFilesystem || *c.AllowPrivilegeEscalation || !slices.Equal(c.Capabilities.Drop, []core.Capability{"ALL"}) {
		t.Errorf("security context %+v", c)
	}
	address := "--server-address=localhost:54321"
	if version == "1.7" {
		address = "--server-address=unix:///var/run/tetragon/tetragon.sock"
	}
	wantArg(t, s.Container, address)
	if has := slices.Contains(s.Container.Args, "--key-file=/etc/tetracast/fleet.key"); has != keyed {
		t.Errorf("with a key: %v, --key-file: %v", keyed, has)
	}
}

// renderSidecar renders the one DaemonSet of Tetragon itself; the rest of its chart
// is not ours to judge.
func renderSidecar(t *testing.T, chart *v2.Chart, values string) *sidecar {
	t.Helper()
	files, err := templates(chart, values)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if !strings.HasSuffix(name, "templates/daemonset.yaml") || strings.Contains(name, "rthooks") {
			continue
		}
		var ds apps.DaemonSet
		if err := yaml.UnmarshalStrict([]byte(text), &ds); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		pod := ds.Spec.Template.Spec
		i := slices.IndexFunc(pod.Containers, func(c core.Container) bool { return c.Name == "export-stdout" })
		if i < 0 {
			t.Fatalf("%s has no container export-stdout", name)
		}
		s := &sidecar{HostNetwork: pod.HostNetwork, DNSPolicy: pod.DNSPolicy, Grace: *pod.TerminationGracePeriodSeconds, Container: pod.Containers[i]}
		for _, volume := range pod.Volumes {
			if slices.ContainsFunc(s.Container.VolumeMounts, func(m core.VolumeMount) bool { return m.Name == volume.Name }) {
				s.Volumes = append(s.Volumes, volume)
			}
		}
		slices.SortFunc(s.Volumes, func(a, b core.Volume) int { return strings.Compare(a.Name, b.Name) })
		return s
	}
	t.Fatal("the chart has no templates/daemonset.yaml")
	return nil
}

// tetragonChart finds the chart of a release of Tetragon.
func tetragonChart(t *testing.T, version string) *v2.Chart {
	t.Helper()
	folder := "testdata/tetragon"
	if repo := os.Getenv("TETRACAST_TETRAGON_REPO"); repo != "" {
		folder = t.TempDir()
		command := `git -C "$1" archive "v$2.0" install/kubernetes/tetragon | tar -x -C "$3"`
		if out, err := exec.Command("/bin/sh", "-c", command, "sh", repo, version, folder).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		folder = filepath.Join(folder, "install/kubernetes/tetragon")
	} else if version == "1.7" {
		folder = filepath.Join(download(t), "install/kubernetes/tetragon")
	}
	chart, err := loader.LoadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// download fetches Tetragon's module as Go does, and returns its folder.
func download(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", tetragonModule).Output()
	var module struct{ Dir, Sum, Error string }
	if json.Unmarshal(out, &module) != nil || err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %s cannot be had here: %v %s", tetragonModule, err, module.Error)
	}
	if module.Sum != tetragonSum {
		t.Fatalf("%s has the sum %s, want %s", tetragonModule, module.Sum, tetragonSum)
	}
	return module.Dir
}
