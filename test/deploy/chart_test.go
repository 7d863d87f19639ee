package deploy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

const (
	image  = "image: {repository: registry.example/tetracast, tag: 1.2.3}\n"
	secret = "tetracast-key-1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	keyed  = "key: {value: \"" + secret + "\"}\n"
	open   = "collect: {allowSources: [10.0.0.0/8]}\n"
	all    = "podMonitor: {enabled: true}\nprometheusRule: {enabled: true}\ndashboards: {enabled: true}\n" +
		"export: {probes: {enabled: true}}\n"
)

func version(v string) string { return "tetragonVersion: \"" + v + "\"\n" }

// cases are the installations whose manifests are golden files.
var cases = []struct{ name, values string }{
	{"1.4", version("1.4") + image + open},
	{"1.4-key", version("1.4") + image + keyed},
	{"1.6", version("v1.6.1") + image + open},
	{"1.6-key", version("v1.6.1") + image + keyed},
	{"1.7", version("1.7") + image + open},
	{"1.7-key", version("1.7.0-pre.0") + image + keyed},
	{"existing-secret", image + "key: {existingSecret: fleet}\n"},
	{"exporter", image + "collect: {enabled: false}\nexport: {destinations: ['rsyslog://log.example', 'frame://collector.example?compression=zstd']}\n"},
	{"collector", image + keyed + "export: {enabled: false}\ncollect: {replicas: 3, write: /var/lib/tetracast/events.jsonl, service: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24]}, probes: {enabled: true}, networkPolicy: {sources: [{ipBlock: {cidr: 192.0.2.0/24}}], monitoring: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}}\n"},
	{"file", image + keyed + "export: {file: {enabled: true}}\n"},
	{"file-1.4", version("1.4") + image + keyed + "export: {file: {enabled: true, path: /var/run/cilium/tetragon/tetragon.log, hostPaths: [/var/run/cilium/tetragon]}}\n"},
	{"monitored", image + keyed + all},
}

func TestGolden(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := render(t, load(t), c.values)
			golden(t, c.name+".yaml", r.text)
			golden(t, c.name+".notes.txt", r.notes)
			if err := whole(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// whole says what does not fit together: a selector that selects nothing, a volume
// or a variable that is not there, a port without its name, a flag that the binary
// does not have.
func whole(r rendered) error {
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	pods := map[string]*core.PodTemplateSpec{}
	accounts := map[string]bool{}
	claims := map[string]bool{}
	for _, object := range r.objects {
		switch o := object.(type) {
		case *apps.DaemonSet:
			pods[o.Name] = &o.Spec.Template
			if !selects(o.Spec.Selector, &o.Spec.Template) {
				complain("%s does not select its own pods", o.Name)
			}
		case *apps.StatefulSet:
			pods[o.Name] = &o.Spec.Template
			if !selects(o.Spec.Selector, &o.Spec.Template) {
				complain("%s does not select its own pods", o.Name)
			}
			for _, claim := range o.Spec.VolumeClaimTemplates {
				claims[claim.Name] = true
			}
		case *core.ServiceAccount:
			accounts[o.Name] = true
		}
	}
	one := func(name string, selector *meta.LabelSelector) *core.PodTemplateSpec {
		var found *core.PodTemplateSpec
		for _, pod := range pods {
			if selects(selector, pod) {
				if found != nil {
					complain("%s selects more than its own pods", name)
				}
				found = pod
			}
		}
		if found == nil {
			complain("%s selects no pod", name)
		}
		return found
	}
	port := func(name string, pod *core.PodTemplateSpec, port string, protocol core.Protocol) {
		if pod == nil || !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p core.ContainerPort) bool { return p.Name == port && p.Protocol == protocol }) {
			complain("%s: its pods have no %s port %q", name, protocol, port)
		}
	}
	for _, object := range r.objects {
		name := kind(object) + "/" + object.GetName()
		if object.GetNamespace() != "tetracast" {
			complain("%s is in namespace %q", name, object.GetNamespace())
		}
		switch o := object.(type) {
		case *core.Service:
			pod := one(name, &meta.LabelSelector{MatchLabels: o.Spec.Selector})
			for _, p := range o.Spec.Ports {
				port(name, pod, p.TargetPort.StrVal, p.Protocol)
			}
		case *policy.PodDisruptionBudget:
			one(name, o.Spec.Selector)
		case *networking.NetworkPolicy:
			pod := one(name, &o.Spec.PodSelector)
			for _, rule := range o.Spec.Ingress {
				for _, p := range rule.Ports {
					port(name, pod, p.Port.StrVal, *p.Protocol)
				}
			}
		case *monitoring.PodMonitor:
			pod := one(name, &o.Spec.Selector)
			for _, e := range o.Spec.PodMetricsEndpoints {
				port(name, pod, *e.Port, core.ProtocolTCP)
			}
		}
	}
	for name, pod := range pods {
		if !accounts[pod.Spec.ServiceAccountName] {
			complain("%s runs as the service account %q, which is not there", name, pod.Spec.ServiceAccountName)
		}
		for _, problem := range container(pod.Spec.Containers[0], pod.Spec.Volumes, claims) {
			complain("%s: %s", name, problem)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(wrong, "\n"))
}

func selects(selector *meta.LabelSelector, pod *core.PodTemplateSpec) bool {
	s, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(pod.Labels))
}

var variable = regexp.MustCompile(`\$\(([A-Z_]+)\)`)

// container says what its volumes, variables and arguments lack.
func container(c core.Container, volumes []core.Volume, claims map[string]bool) (wrong []string) {
	mounted := map[string]bool{}
	for _, mount := range c.VolumeMounts {
		mounted[mount.Name] = true
		if !claims[mount.Name] && !slices.ContainsFunc(volumes, func(v core.Volume) bool { return v.Name == mount.Name }) {
			wrong = append(wrong, "there is no volume "+mount.Name)
		}
	}
	for _, volume := range volumes {
		if !mounted[volume.Name] {
			wrong = append(wrong, "nothing mounts the volume "+volume.Name)
		}
	}
	for _, arg := range c.Args {
		for _, match := range variable.FindAllStringSubmatch(arg, -1) {
			if !slices.ContainsFunc(c.Env, func(e core.EnvVar) bool { return e.Name == match[1] }) {
				wrong = append(wrong, arg+": there is no variable "+match[1])
			}
		}
		for _, folder := range []string{"--state-dir", "--key-file", "--tetragon-config-dir"} {
			path, ok := strings.CutPrefix(arg, folder+"=")
			if ok && !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return strings.HasPrefix(path+"/", m.MountPath+"/") }) {
				wrong = append(wrong, arg+": nothing is mounted there")
			}
		}
	}
	return append(wrong, unknownFlags(c.Args)...)
}

// unknownFlags holds the arguments, whose first is the command, to docs/commands.md.
func unknownFlags(args []string) (wrong []string) {
	page, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		return []string{err.Error()}
	}
	_, section, ok := strings.Cut(string(page), "\n## "+args[0]+"\n")
	if !ok {
		return []string{"no command " + args[0]}
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, arg := range args[1:] {
		flag, _, _ := strings.Cut(arg, "=")
		if !strings.Contains(section, "| `"+flag+"` |") {
			wrong = append(wrong, args[0]+" has no flag "+flag)
		}
	}
	return wrong
}

// TestUnknownFlag: a flag that no command has is a fault.
func TestUnknownFlag(t *testing.T) {
	if wrong := unknownFlags([]string{"export", "--no-such-flag=1"}); len(wrong) != 1 {
		t.Errorf("an unknown flag is no fault: %q", wrong)
	}
}

// TestReachesTetragon: how the exporter reaches each release.
func TestReachesTetragon(t *testing.T) {
	for v, socket := range map[string]bool{
		"1.4": false, "1.6": false, "v1.6.1": false, "1.6.0-rc.1": false,
		"1.7": true, "v1.7.0": true, "1.7.0-pre.0": true, "1.8.0-pre.0": true, "1.10": true,
	} {
		t.Run(v, func(t *testing.T) {
			ds := get[*apps.DaemonSet](t, render(t, load(t), version(v), image, keyed), "tetracast-export")
			pod := ds.Spec.Template.Spec
			c := pod.Containers[0]
			var hostPaths []core.HostPathVolumeSource
			for _, volume := range pod.Volumes {
				if volume.HostPath != nil {
					hostPaths = append(hostPaths, *volume.HostPath)
				}
			}
			if socket {
				if pod.HostNetwork || pod.DNSPolicy != "" && pod.DNSPolicy != core.DNSClusterFirst {
					t.Errorf("hostNetwork %v, dnsPolicy %q", pod.HostNetwork, pod.DNSPolicy)
				}
				if len(hostPaths) != 1 || hostPaths[0].Path != "/var/run/tetragon" || *hostPaths[0].Type != core.HostPathDirectoryOrCreate {
					t.Errorf("hostPath volumes: %+v", hostPaths)
				}
				wantArg(t, c, "--server-address=unix:///var/run/tetragon/tetragon.sock")
			} else {
				if !pod.HostNetwork || pod.DNSPolicy != core.DNSClusterFirstWithHostNet || len(hostPaths) != 0 {
					t.Errorf("hostNetwork %v, dnsPolicy %q, hostPath volumes %+v", pod.HostNetwork, pod.DNSPolicy, hostPaths)
				}
				wantArg(t, c, "--server-address=localhost:54321")
			}
			wantArg(t, c, "--tetragon-metrics-address=$(HOST_IP):2112")
			wantArg(t, c, "--metrics-address=$(POD_IP):7515")
			wantSecure(t, &pod, 0)
			if cpu, memory, limit := c.Resources.Requests.Cpu().String(), c.Resources.Requests.Memory().String(), c.Resources.Limits.Memory().String(); cpu != "20m" || memory != "64Mi" || limit != "192Mi" {
				t.Errorf("requests %s and %s, limit %s", cpu, memory, limit)
			}
			if _, limited := c.Resources.Limits[core.ResourceCPU]; limited {
				t.Error("a CPU limit would throttle a burst into loss")
			}
			for name, field := range map[string]string{"POD_UID": "metadata.uid", "NODE_NAME": "spec.nodeName", "POD_IP": "status.podIP", "HOST_IP": "status.hostIP"} {
				i := slices.IndexFunc(c.Env, func(e core.EnvVar) bool { return e.Name == name })
				if i < 0 || c.Env[i].ValueFrom == nil || c.Env[i].ValueFrom.FieldRef.FieldPath != field {
					t.Errorf("%s is not the field %s", name, field)
				}
			}
		})
	}
}

func wantArg(t *testing.T, c core.Container, want string) {
	t.Helper()
	if !slices.Contains(c.Args, want) {
		t.Errorf("no argument %s in %q", want, c.Args)
	}
}

// wantSecure holds a pod to the user, the group and what it may not do.
func wantSecure(t *testing.T, pod *core.PodSpec, group int64) {
	t.Helper()
	s := pod.SecurityContext
	if s == nil || *s.RunAsUser != 65532 || *s.RunAsGroup != group || !*s.RunAsNonRoot || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context: %+v", s)
	}
	if *pod.AutomountServiceAccountToken {
		t.Error("the pod has a token of the API server")
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Add) != 0 || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
			t.Errorf("the security context of %s: %+v", c.Name, s)
		}
	}
}

// TestCollector: the collector keeps its state, sees who sends, and lets a node be
// drained.
func TestCollector(t *testing.T) {
	for _, kind := range []core.ServiceType{core.ServiceTypeClusterIP, core.ServiceTypeNodePort, core.ServiceTypeLoadBalancer} {
		r := render(t, load(t), image, keyed, "collect: {service: {type: "+string(kind)+"}}\n")
		service := get[*core.Service](t, r, "tetracast-collect")
		local := service.Spec.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal
		if service.Spec.Type != kind || local != (kind != core.ServiceTypeClusterIP) || service.Spec.Ports[0].Protocol != core.ProtocolUDP {
			t.Errorf("%s: %+v", kind, service.Spec)
		}
	}
	r := render(t, load(t), image, keyed)
	set := get[*apps.StatefulSet](t, r, "tetracast-collect")
	wantSecure(t, &set.Spec.Template.Spec, 65532)
	wantArg(t, set.Spec.Template.Spec.Containers[0], "--metrics-address=$(POD_IP):7516")
	wantArg(t, set.Spec.Template.Spec.Containers[0], "--receive-buffer-size=33554432")
	if claims := set.Spec.VolumeClaimTemplates; len(claims) != 1 || claims[0].Spec.Resources.Requests.Storage().IsZero() {
		t.Errorf("volume claims: %+v", claims)
	}
	if headless := get[*core.Service](t, r, set.Spec.ServiceName); headless.Spec.ClusterIP != core.ClusterIPNone {
		t.Errorf("the service %s has an address", set.Spec.ServiceName)
	}
	if budget := get[*policy.PodDisruptionBudget](t, r, "tetracast-collect"); budget.Spec.MaxUnavailable.IntValue() != 1 || budget.Spec.MinAvailable != nil {
		t.Errorf("%+v", budget.Spec)
	}
	network := get[*networking.NetworkPolicy](t, r, "tetracast-collect").Spec
	if len(network.PolicyTypes) != 2 || len(network.Egress) != 0 || len(network.Ingress) != 2 {
		t.Errorf("%+v", network)
	}
}

// TestKey: exporter and collector take the same Secret, which both can read, and no
// key is ever in anything else.
func TestKey(t *testing.T) {
	for values, name := range map[string]string{keyed: "tetracast-key", "key: {existingSecret: fleet, file: k}\n": "fleet"} {
		r := render(t, load(t), image, values)
		ds, set := get[*apps.DaemonSet](t, r, "tetracast-export"), get[*apps.StatefulSet](t, r, "tetracast-collect")
		for _, pod := range []*core.PodSpec{&ds.Spec.Template.Spec, &set.Spec.Template.Spec} {
			i := slices.IndexFunc(pod.Volumes, func(v core.Volume) bool { return v.Secret != nil })
			if i < 0 {
				t.Fatalf("no Secret among the volumes of %s", pod.Containers[0].Name)
			}
			source := pod.Volumes[i].Secret
			if source.SecretName != name || *source.DefaultMode != 0o440 || len(source.Items) != 1 {
				t.Errorf("%s: %+v", pod.Containers[0].Name, source)
			}
			wantArg(t, pod.Containers[0], "--key-file=/etc/tetracast/"+source.Items[0].Path)
		}
		var made []string
		for _, object := range r.objects {
			if s, ok := object.(*core.Secret); ok {
				made = append(made, string(s.Data["fleet.key"]))
			}
		}
		if own := name == "tetracast-key"; own != slices.Equal(made, []string{secret}) || !own && made != nil {
			t.Errorf("%s: Secrets %q", name, made)
		}
		if strings.Contains(r.text+r.notes, secret) {
			t.Errorf("%s: the key is in clear in a manifest", name)
		}
	}
	for _, object := range render(t, load(t), image, open).objects {
		if kind(object) == "Secret" {
			t.Error("without a key there is a Secret")
		}
	}
}

// TestRefused: values that cannot work are refused with a hint.
func TestRefused(t *testing.T) {
	for values, want := range map[string]string{
		keyed: "image.repository",
		image: "tetracast key new",
		image + open + "collect: {enabled: false}\n":                        "export.destinations",
		image + keyed + "tetragonVersion: 1.7\n":                            "tetragonVersion",
		image + keyed + version("latest"):                                   "tetragonVersion",
		image + keyed + version("0.9"):                                      "tetragonVersion",
		image + keyed + "exporter: {}\n":                                    "exporter",
		image + keyed + "export: {hostNetwork: true}\n":                     "hostNetwork",
		image + keyed + "export: {metrics: {port: 70000}}\n":                "port",
		image + "key: {value: \"secret\"}\n":                                "value",
		image + "key: {value: \"" + secret + "\", existingSecret: fleet}\n": "one of them",
		image + keyed + "collect: {service: {type: ExternalName}}\n":        "type",
	} {
		if _, err := templates(load(t), values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nis refused with %v, want a word of %q", values, err, want)
		}
	}
}

func TestNotes(t *testing.T) {
	before, after := render(t, load(t), image, open, version("1.6")).notes, render(t, load(t), image, keyed, version("1.7")).notes
	for _, c := range []struct {
		notes string
		want  []string
	}{
		{before, []string{"pod-security.kubernetes.io/enforce=privileged", "host's network", "tetragon-config", "There is no key"}},
		{after, []string{"pod-security.kubernetes.io/enforce=privileged", "seLinuxType=spc_t", "net.core.rmem_max=33554432"}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.notes, want) {
				t.Errorf("the notes do not say %q:\n%s", want, c.notes)
			}
		}
	}
	typed := render(t, load(t), image, keyed, "export: {seLinuxType: spc_t}\n")
	if options := get[*apps.DaemonSet](t, typed, "tetracast-export").Spec.Template.Spec.SecurityContext.SELinuxOptions; options == nil || options.Type != "spc_t" {
		t.Errorf("SELinux options %+v", options)
	}
}

// TestFiles: the chart's copies are the rules of deploy/prometheus and the
// dashboards of deploy/grafana, all of them and nothing else.
func TestFiles(t *testing.T) {
	want := map[string][]byte{}
	for pattern, folder := range map[string]string{"../../deploy/prometheus/*.y*ml": "prometheus", "../../deploy/grafana/*.json": "grafana"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// Beside the rules lie their tests, and configurations to try them with.
			var rules struct{ Groups []any }
			if err := yaml.Unmarshal(text, &rules); folder == "prometheus" && (err != nil || rules.Groups == nil) {
				continue
			}
			want[filepath.Join(folder, filepath.Base(path))] = text
		}
	}
	files := filepath.Join(ourChart, "files")
	if *update {
		if err := os.RemoveAll(files); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			path := filepath.Join(files, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	copies, err := filepath.Glob(filepath.Join(files, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range copies {
		name, err := filepath.Rel(files, path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if original, ok := want[name]; !ok || !bytes.Equal(original, text) {
			t.Errorf("%s is not what is in deploy; make update copies it", path)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("the chart has no copy of %s; make update copies it", name)
	}
}

// TestRulesAndDashboards: whatever files the chart has become PrometheusRules and
// ConfigMaps, with their templates and braces as they are.
func TestRulesAndDashboards(t *testing.T) {
	chart := load(t)
	const rules = "# Of the fleet.\ngroups:\n  - name: tetracast\n    rules:\n      - alert: Lost\n        expr: sum(rate(lost[5m])) > 0\n        for: 5m\n        annotations:\n          summary: '{{ $labels.node }} loses {{ $value }}'\n"
	const dashboard = "{\n  \"title\": \"Fleet\",\n  \"legend\": \"{{node}}\"\n}\n"
	chart.Files = append(slices.DeleteFunc(chart.Files, func(f *common.File) bool { return strings.HasPrefix(f.Name, "files/") }),
		&common.File{Name: "files/prometheus/fleet.rules.yaml", Data: []byte(rules)},
		&common.File{Name: "files/grafana/Fleet_one.json", Data: []byte(dashboard)})
	r := render(t, chart, image, keyed, all, "prometheusRule: {labels: {release: prometheus}}\n")
	rule := get[*monitoring.PrometheusRule](t, r, "tetracast-fleet-rules")
	if alert := rule.Spec.Groups[0].Rules[0]; alert.Alert != "Lost" || alert.Annotations["summary"] != "{{ $labels.node }} loses {{ $value }}" || rule.Labels["release"] != "prometheus" {
		t.Errorf("%+v", rule)
	}
	board := get[*core.ConfigMap](t, r, "tetracast-dashboard-fleet-one")
	if got := board.Data["Fleet_one.json"]; strings.TrimSpace(got) != strings.TrimSpace(dashboard) || board.Labels["grafana_dashboard"] != "1" {
		t.Errorf("%+v", board)
	}
	if err := whole(r); err != nil {
		t.Error(err)
	}
	// What etcd takes, less what the rest of a ConfigMap needs.
	for _, file := range load(t).Files {
		if len(file.Data) > 1<<20-64<<10 {
			t.Errorf("%s has %d bytes, too many for a ConfigMap", file.Name, len(file.Data))
		}
	}
}
