package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"tetracast/internal/source"
	"tetracast/ledger"
)

// TestVersions: a replay that behaves like each release of Tetragon, from the
// RPCs it has to the names of its loss counters; the export's account and the
// collector's say what Tetragon lost.
func TestVersions(t *testing.T) {
	for _, version := range []string{"1.0", "1.2", "1.4", "1.6", "1.7", "1.8"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			address, info := "unix://"+filepath.Join(folder, "tetragon.sock"), filepath.Join(folder, "tetragon-info.json")
			replay := run(t, "replay", "--as", version, "--server-address", address, "--metrics-address", "127.0.0.1:0", "--info-file", info,
				"--loss", "bpf_missed=3,ring_buffer=5,event_queue=7,listener_overflow_all_clients=11", "--rate", "300")
			metrics := regexp.MustCompile(`Serving metrics" address=(\S+)`).FindStringSubmatch(replay.waitLog("Serving metrics"))[1]
			replay.waitLog("msg=Serving address")
			collect := startCollect(t, "--exit-idle", "1s")
			account := filepath.Join(folder, "export.json")
			export := run(t, "export", "--server-address", address, "--udp-destination", "frame://"+collect.address, "--reconnect=false",
				"--account", account, "--tetragon-metrics-address", metrics, "--stats-interval", "500ms")
			export.wait(60 * time.Second)
			if got := source.MetricsAddress(info); got != metrics {
				t.Errorf("the info file names %q, want %q", got, metrics)
			}
			collect.wait(20 * time.Second)
			exported, collected := readJSON[ledger.Exporter](t, account), readJSON[ledger.Collector](t, collect.account)
			// It looked at its start, and every half second of the two that the replay took.
			want := map[string]uint64{"bpf_missed": 3, "ring_buffer": 5, "event_queue": 7, "listener_overflow_all_clients": 11}
			if version == "1.0" {
				delete(want, "bpf_missed") // it has no such counter
			}
			told := collected.Agents[0].Streams[0].Upstream
			for _, stage := range ledger.UpstreamStages() {
				for side, got := range map[string]*uint64{"export": exported.Upstream[stage], "collect": told[stage]} {
					if n, known := want[stage]; known != (got != nil) || known && *got%n != 0 || known && *got == 0 {
						t.Errorf("%s of %s: %v, want a multiple of %d, known %v", side, stage, figureOf(got), n, known)
					}
				}
			}
			if collected.Received != exported.Streams[0].Sent || collected.Closes == nil || !*collected.Closes {
				t.Errorf("received %d of %d", collected.Received, exported.Streams[0].Sent)
			}
		})
	}
}

func figureOf(n *uint64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprint(*n)
}
