package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tetracast/internal/app"
	"tetracast/internal/udp/netns"

	"github.com/spf13/pflag"
)

// TestMetadataPage: what docs/metadata-performance.md asks its reader to type
// runs, and shows what the page says that it shows.
func TestMetadataPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/metadata-performance.md")
	if err != nil {
		t.Fatal(err)
	}
	_, verify, ok := strings.Cut(string(page), "\n## Verify it yourself\n")
	if !ok {
		t.Fatal("the page has no part of that name")
	}
	folder := t.TempDir()
	program := filepath.Join(folder, "tetracast")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+asMain+"=1 exec "+self+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = folder
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s\n%v\n%s", script, err, out)
		}
		return string(out)
	}
	var scripts []string
	for _, part := range strings.Split(verify, "```sh\n")[1:] {
		script, _, _ := strings.Cut(part, "```")
		scripts = append(scripts, script)
	}
	if len(scripts) != 3 {
		t.Fatalf("%d scripts, want three", len(scripts))
	}
	if out := sh(scripts[0]); !strings.Contains(out, "Cached metadata event sent over UDP") {
		t.Errorf("the log: %s", out)
	}

	counters, trace, _ := strings.Cut(scripts[1], "\n")
	var counts struct {
		Exports, Datagrams int
		SendCalls          int                                 `json:"send_calls"`
		Cache              struct{ Hits, Made, Fallbacks int } `json:"record_cache"`
	}
	if err := json.Unmarshal([]byte(sh(counters)), &counts); err != nil || counts.Exports != 10000 || counts.Datagrams != counts.Exports ||
		counts.SendCalls != counts.Exports || counts.Cache.Hits < counts.Exports || counts.Cache.Made > 2 || counts.Cache.Fallbacks != 0 {
		t.Errorf("%s says %+v, %v", counters, counts, err)
	}

	for row, shows := range map[string]bool{"export/exporter": false, "export/old-way": true} {
		profile := strings.ReplaceAll(scripts[2], "export/exporter", row)
		profile = strings.ReplaceAll(profile, "1000000", "20000") // each allocation takes its time
		if out := sh(profile); strings.Contains(out, "encoding/json.Marshal") != shows || !strings.Contains(out, "Type: alloc_space") {
			t.Errorf("%s: the heap profile:\n%s", row, out)
		}
	}

	if _, err := exec.LookPath("strace"); err != nil {
		netns.SkipLoudly(t, "strace is not installed")
	}
	if out := sh(trace); !strings.Contains(out, " sendmmsg\n") {
		t.Errorf("%s:\n%s", trace, out)
	}
}

// TestBenchMetadataStart: the real exporter is timed from its start to its first
// agent_init, with the cache file if it has one.
func TestBenchMetadataStart(t *testing.T) {
	flags := pflag.NewFlagSet("export", pflag.ContinueOnError)
	new(app.ExportConfig).AddFlags(flags)
	built := flags.Lookup("metadata-cache-file") != nil
	t.Setenv("PATH", t.TempDir()) // no strace: its counts take long, and internal/bench has a test of them
	p := run(t, "bench", "metadata", "--rounds", "1", "--exports", "200", "--json")
	if code := p.wait(time.Minute); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	var report struct {
		Start []struct {
			Name, Note string
			Runs       int
			MedianMS   float64 `json:"median_ms"`
		}
	}
	if err := json.Unmarshal(p.out.Bytes(), &report); err != nil || len(report.Start) != 3 {
		t.Fatalf("%v, %s", err, p.out.String())
	}
	for _, row := range report.Start {
		measured := row.Name != "warm" || built
		if (row.Runs == 1 && row.MedianMS > 0) != measured || strings.HasPrefix(row.Note, "not built") == measured {
			t.Errorf("%+v, and the flag is there: %v", row, built)
		}
	}
}
