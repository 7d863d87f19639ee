package promql

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quiet are the panels of which a run in which nothing goes wrong shows nothing.
var quiet = []string{"Send errors by class", "dropped to"}

// TestLive has a real Prometheus, with the rules, scrape a real exporter and collector,
// and answer every query of the dashboards. TETRACAST_PROMETHEUS names its program.
func TestLive(t *testing.T) {
	prometheus := os.Getenv("TETRACAST_PROMETHEUS")
	if prometheus == "" {
		t.Skip("SKIPPED, NOT TESTED: TETRACAST_PROMETHEUS names no prometheus (Debian's package has one)")
	}
	folder := t.TempDir()
	program := filepath.Join(folder, "tetracast")
	build := exec.Command("go", "build", "-o", program, "./cmd/tetracast")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	socket, udp := "unix://"+filepath.Join(folder, "tetragon.sock"), free(t, "udp")
	exported, collected, tetragon, web := free(t, "tcp"), free(t, "tcp"), free(t, "tcp"), free(t, "tcp")
	rules, err := filepath.Abs(filepath.Join(root, "deploy/prometheus/tetracast.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - {job_name: tetracast-export, static_configs: [{targets: [%q]}]}
  - {job_name: tetracast-collect, static_configs: [{targets: [%q]}]}
`, rules, exported, collected)
	configFile := filepath.Join(folder, "prometheus.yml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	sink, err := net.ListenPacket("udp4", "127.0.0.1:0") // nobody reads what it gets
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	start(t, program, "replay", "--server-address", socket, "--loop", "--rate", "500", "--metrics-address", tetragon, "--loss", "ring_buffer=1")
	start(t, program, "collect", "--listen", udp, "--write", os.DevNull, "--metrics-address", collected)
	start(t, program, "export", "--server-address", socket, "--udp-destination", "frame://"+udp, "--udp-destination", "json://"+sink.LocalAddr().String(), "--metrics-address", exported,
		"--tetragon-metrics-address", tetragon, "--stats-interval", "2s", "--metadata-interval", "2s")
	start(t, prometheus, "--config.file", configFile, "--storage.tsdb.path", filepath.Join(folder, "data"), "--web.listen-address", web)

	ask := func(query string) (series []result, err error) {
		answer, err := http.PostForm("http://"+web+"/api/v1/query", url.Values{"query": {query}})
		if err != nil {
			return nil, err
		}
		defer func() { _ = answer.Body.Close() }()
		var body struct {
			Error string
			Data  struct{ Result []result }
		}
		err = json.NewDecoder(answer.Body).Decode(&body)
		if err == nil && body.Error != "" {
			err = errors.New(body.Error)
		}
		return body.Data.Result, err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		n, err := ask("count_over_time(fleet:tetracast_lost_events:ratio_rate5m[1m]) > 10 and on () increase(tetracast_exporter_upstream_lost_events_total[1m]) > 0")
		if err == nil && len(n) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the rules have no result yet: %v", err)
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "deploy/grafana/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, file := range files {
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr, LegendFormat string }
			}
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &board)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				query := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1m", `instance="$instance"`, fmt.Sprintf("instance=%q", exported), "$instance", ".*").Replace(target.Expr)
				series, err := ask(query)
				silent := false
				for _, q := range quiet {
					silent = silent || strings.Contains(p.Title+" "+target.LegendFormat, q)
				}
				if err != nil || len(series) == 0 && !silent {
					t.Errorf("%s: %s: %d series, %v\n%s", filepath.Base(file), p.Title, len(series), err, query)
				}
				queries++
			}
		}
	}
	t.Logf("%d queries answered", queries)
	if alerts, err := ask(`ALERTS{alertstate="firing",alertname=~"Tetracast.*",alertname!="TetracastUpstreamLoss"}`); len(alerts) != 0 || err != nil {
		t.Errorf("alerts while nothing is wrong: %v, %v", alerts, err)
	}
}

// result is a series that Prometheus answers with.
type result struct{ Metric map[string]string }

// start runs a program until the test ends.
func start(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // by a signal, or in order: it is all the same
		if t.Failed() {
			t.Logf("%s %s\n%s", filepath.Base(program), args[0], log.String())
		}
	})
}

// free returns an address that was free a moment ago.
func free(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.LocalAddr().String()
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
