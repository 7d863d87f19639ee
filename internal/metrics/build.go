package metrics

import (
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

var common catalogue

var buildInfo = common.gauge("build_info", "1; what the process was built from, as labels.", "version", "revision", "goversion")

// Build is a prometheus.Collector of what the process was built from.
type Build struct{}

// Describe is that of prometheus.Collector.
func (Build) Describe(to chan<- *prometheus.Desc) { common.describe(to) }

// Collect is that of prometheus.Collector.
func (Build) Collect(to chan<- prometheus.Metric) {
	version, revision, goVersion := "unknown", "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version, goVersion = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	send(to, buildInfo, 1, version, revision, goVersion)
}
