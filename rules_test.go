package tetracast_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"tetracast/internal/metrics"
)

const rulesFile, rulesTestFile = "deploy/prometheus/tetracast.rules.yml", "deploy/prometheus/tetracast.rules.test.yml"

// TestRules: each alert says how bad it is and what to do, is fired and cleared in
// the test of the rules, and names only metrics that are served. promtool runs that
// test, where it is.
func TestRules(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Record, Alert, Expr string
				Labels, Annotations map[string]string
			}
		}
	}
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string           `yaml:"alertname"`
				ExpAlerts []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, rulesFile, &rules)
	readYAML(t, rulesTestFile, &tests)
	fired, cleared := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, a := range test.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fired[a.Alertname] = true
			} else if fired[a.Alertname] {
				cleared[a.Alertname] = true
			}
		}
	}
	alerts := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			wantMetrics(t, rulesFile, r.Expr)
			if r.Alert == "" {
				continue
			}
			alerts++
			if !fired[r.Alert] || !cleared[r.Alert] {
				t.Errorf("%s: fired %v, then cleared %v, in %s", r.Alert, fired[r.Alert], cleared[r.Alert], rulesTestFile)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || !strings.Contains(r.Annotations["summary"], ": ") {
				t.Errorf("%s: severity %q, and a summary that says what to do: %q", r.Alert, r.Labels["severity"], r.Annotations["summary"])
			}
		}
	}
	if alerts < 20 {
		t.Errorf("%d alerts", alerts)
	}
	promtool := os.Getenv("TETRACAST_PROMTOOL")
	if promtool == "" {
		promtool = "promtool"
		if _, err := exec.LookPath(promtool); err != nil {
			t.Skip("SKIPPED, NOT TESTED: promtool test rules; promtool is not here (Debian's package prometheus has it)")
		}
	}
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}, {"check", "config", "deploy/prometheus/prometheus.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// metricName finds what is named like a metric of ours. A colon is in the names of
// rules.
var metricName = regexp.MustCompile(`[a-z:]*\btetracast_[a-z_]+(:\w+)?`)

// wantMetrics wants every metric in the expression to be served.
func wantMetrics(t *testing.T, where, expr string) {
	t.Helper()
	for _, name := range metricName.FindAllString(expr, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !strings.Contains(name, ":") && name != "tetracast_" && !slices.Contains(metrics.Names(), base) {
			t.Errorf("%s: %s is no metric: %s", where, name, expr)
		}
	}
}

func readYAML(t *testing.T, path string, to any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, to); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
