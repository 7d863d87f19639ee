// Package metrics turns the accounts and counts of an exporter and of a collector
// into metrics of Prometheus.
//
// Nothing here is on the way of an event. An [Exporter] and a [Collector] are
// prometheus.Collectors that read a snapshot when they are scraped; only the
// histograms of times are fed by samples, a few a second. Reasons, faults and stages
// are the words of the accounts.
//
// All metrics stand in one catalogue, from which docs/metrics.md is made. Units are
// seconds and bytes. No label takes its values from what was received, but the host
// names that were asked for.
package metrics
