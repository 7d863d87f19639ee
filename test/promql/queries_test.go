package promql

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const root = "../.."

// standard are the metrics of Go's client library and of Prometheus itself that are
// used.
var standard = []string{"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}

// served returns the metrics of docs/metrics.md by name, with their labels.
func served(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `(tetracast_[a-z_]+)` \\| (\\w+) \\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		labels := strings.Split(strings.ReplaceAll(strings.Trim(m[3], "-"), "`", ""), ", ")
		metrics[m[1]] = labels
		if m[2] == "histogram" {
			metrics[m[1]+"_bucket"], metrics[m[1]+"_sum"], metrics[m[1]+"_count"] = append(labels, "le"), labels, labels
		}
	}
	if len(metrics) < 100 {
		t.Fatalf("docs/metrics.md has %d metrics", len(metrics))
	}
	return metrics
}

// rules returns the expressions of the rules, and the names that they record.
func rules(t *testing.T) (exprs, recorded []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/tetracast.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Record, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			exprs = append(exprs, r.Expr)
			if r.Record != "" {
				recorded = append(recorded, r.Record)
			}
		}
	}
	return exprs, recorded
}

// check parses a query and wants its metrics, and the labels by which it chooses or
// groups them, to be there.
func check(t *testing.T, where, query string, metrics map[string][]string, recorded []string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v\n%s", where, err, query)
		return
	}
	given := []string{"__name__", "instance", "job"} // by the scrape
	known := slices.Clone(given)
	named := false
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		named = true
		labels, ok := metrics[selector.Name]
		switch {
		case slices.Contains(standard, selector.Name):
		case slices.Contains(recorded, selector.Name):
			known = append(known, "stage")
		case selector.Name == "" && strings.Contains(query, "__name__=~"):
		case !ok:
			t.Errorf("%s: %s is no metric:\n%s", where, selector.Name, query)
		}
		known = append(known, labels...)
		for _, m := range selector.LabelMatchers {
			if !slices.Contains(labels, m.Name) && !slices.Contains(given, m.Name) {
				t.Errorf("%s: %s has no label %s:\n%s", where, selector.Name, m.Name, query)
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var by []string
		switch node := node.(type) {
		case *parser.AggregateExpr:
			by = node.Grouping
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				by = node.VectorMatching.MatchingLabels
			}
		}
		for _, label := range by {
			if !slices.Contains(known, label) {
				t.Errorf("%s: nothing has the label %s:\n%s", where, label, query)
			}
		}
		return nil
	})
	if !named {
		t.Errorf("%s: no metric in the query:\n%s", where, query)
	}
}

func TestRules(t *testing.T) {
	metrics := served(t)
	exprs, recorded := rules(t)
	if len(exprs) < 30 {
		t.Errorf("%d rules", len(exprs))
	}
	for _, expr := range exprs {
		check(t, "tetracast.rules.yml", expr, metrics, recorded)
	}
}

// variables are what Grafana puts in the place of its own.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$instance", ".*")

func TestDashboards(t *testing.T) {
	metrics := served(t)
	_, recorded := rules(t)
	files, err := filepath.Glob(filepath.Join(root, "deploy/grafana/*.json"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	uids := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			UID, Title, Description string
			Templating              struct {
				List []struct {
					Name  string
					Query any
				}
			}
			Panels []struct {
				ID      int
				Title   string
				GridPos struct{ X, Y, W, H int } `json:"gridPos"`
				Targets []struct{ Expr, RefID string }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name := filepath.Base(file)
		if board.UID == "" || uids[board.UID] || board.Title == "" || board.Description == "" || len(board.Panels) < 10 {
			t.Errorf("%s: uid %q, title %q, %d panels", name, board.UID, board.Title, len(board.Panels))
		}
		uids[board.UID] = true
		for _, v := range board.Templating.List {
			query, ok := v.Query.(map[string]any)
			if !ok {
				continue
			}
			metric, _, _ := strings.Cut(strings.TrimPrefix(query["query"].(string), "label_values("), ",")
			if metrics[metric] == nil {
				t.Errorf("%s: variable %s: %s is no metric", name, v.Name, metric)
			}
		}
		ids := map[int]bool{}
		for i, p := range board.Panels {
			if ids[p.ID] || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %d, %s", name, p.ID, p.Title)
			}
			ids[p.ID] = true
			for _, q := range board.Panels[:i] {
				a, b := p.GridPos, q.GridPos
				if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
					t.Errorf("%s: panels %q and %q lie over each other", name, q.Title, p.Title)
				}
			}
			for _, target := range p.Targets {
				check(t, name+": "+p.Title, variables.Replace(target.Expr), metrics, recorded)
			}
		}
	}
}
