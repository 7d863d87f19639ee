package deploy

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files and the chart's copies anew")

const ourChart = "../../deploy/helm/tetracast"

// rendered is what a chart makes of values.
type rendered struct {
	notes   string
	objects []meta.Object // decoded, in the order of their kinds and names
	text    string        // all of them
}

// load reads our chart.
func load(t *testing.T) *v2.Chart {
	t.Helper()
	chart, err := loader.LoadDir(ourChart)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// templates renders a chart with values in YAML, the later over the earlier ones.
func templates(chart *v2.Chart, values ...string) (map[string]string, error) {
	all := map[string]any{}
	for _, text := range values {
		more, err := loader.LoadValues(strings.NewReader(text))
		if err != nil {
			return nil, err
		}
		all = loader.MergeMaps(all, more)
	}
	options := common.ReleaseOptions{Name: chart.Name(), Namespace: "tetracast", Revision: 1, IsInstall: true}
	with, err := util.ToRenderValues(chart, all, options, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, with)
}

// render renders a chart, and decodes all of it.
func render(t *testing.T, chart *v2.Chart, values ...string) rendered {
	t.Helper()
	files, err := templates(chart, values...)
	if err != nil {
		t.Fatal(err)
	}
	var r rendered
	var texts []string
	for name, text := range files {
		if path.Base(name) == "NOTES.txt" {
			r.notes = text
			continue
		}
		documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
		for {
			document, err := documents.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if object := decode(t, name, document); object != nil {
				r.objects = append(r.objects, object)
				texts = append(texts, kind(object)+" "+object.GetName()+"\n"+string(bytes.TrimSpace(document)))
			}
		}
	}
	slices.SortFunc(r.objects, func(a, b meta.Object) int {
		return strings.Compare(kind(a)+a.GetName(), kind(b)+b.GetName())
	})
	slices.Sort(texts)
	for _, text := range texts {
		_, document, _ := strings.Cut(text, "\n")
		r.text += "---\n" + strings.TrimPrefix(document, "---\n") + "\n"
	}
	return r
}

// decode decodes a document strictly: what the type does not have, and what is
// there twice, is an error. It returns nil for a document of comments.
func decode(t *testing.T, name string, document []byte) meta.Object {
	t.Helper()
	var head meta.TypeMeta
	if err := yaml.Unmarshal(document, &head); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, document)
	}
	types := map[meta.TypeMeta]meta.Object{
		{APIVersion: "apps/v1", Kind: "DaemonSet"}:                       &apps.DaemonSet{},
		{APIVersion: "apps/v1", Kind: "StatefulSet"}:                     &apps.StatefulSet{},
		{APIVersion: "v1", Kind: "ConfigMap"}:                            &core.ConfigMap{},
		{APIVersion: "v1", Kind: "Secret"}:                               &core.Secret{},
		{APIVersion: "v1", Kind: "Service"}:                              &core.Service{},
		{APIVersion: "v1", Kind: "ServiceAccount"}:                       &core.ServiceAccount{},
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:      &networking.NetworkPolicy{},
		{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:           &policy.PodDisruptionBudget{},
		{APIVersion: "monitoring.coreos.com/v1", Kind: "PodMonitor"}:     &monitoring.PodMonitor{},
		{APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule"}: &monitoring.PrometheusRule{},
	}
	object, ok := types[head]
	if !ok && head == (meta.TypeMeta{}) && len(withoutComments(document)) == 0 {
		return nil
	}
	if !ok {
		t.Fatalf("%s: %+v is no kind that the chart should make\n%s", name, head, document)
	}
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, document)
	}
	return object
}

func withoutComments(document []byte) string {
	var kept strings.Builder
	for line := range strings.Lines(string(document)) {
		if line = strings.TrimSpace(line); line != "---" && !strings.HasPrefix(line, "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func kind(object meta.Object) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", object), "*v1.")
}

// get returns the object of type T with that name.
func get[T meta.Object](t *testing.T, r rendered, name string) T {
	t.Helper()
	for _, object := range r.objects {
		if found, ok := object.(T); ok && object.GetName() == name {
			return found
		}
	}
	var none T
	t.Fatalf("no %T %s among %q", none, name, names(r))
	return none
}

func names(r rendered) (list []string) {
	for _, object := range r.objects {
		list = append(list, kind(object)+"/"+object.GetName())
	}
	return list
}

// golden compares text with a golden file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("%s is not what is rendered; go test -update writes it anew, and git diff shows it", file)
	}
}
