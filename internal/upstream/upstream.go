// Package upstream reads what Tetragon itself lost, before an event came to an
// exporter, from the metrics that Tetragon serves for Prometheus.
//
// Tetragon counts since its own start and under names that changed between
// releases. A [Reader] takes the names of all releases, adds up the labels of
// each, and reports differences since its own start, which survive a restart of
// Tetragon: a counter that went back began anew at 0. What could not be read
// since the start is unknown, and not 0.
//
// The names, read in docs/content/en/docs/reference/metrics.md and pkg/metrics of
// github.com/cilium/tetragon at the tags:
//
//	stage                          v1.0                                   v1.1                                   v1.2 to v1.8
//	bpf_missed                     -                                      tetragon_missed_events_total           tetragon_bpf_missed_events_total
//	ring_buffer                    tetragon_ringbuf_perf_event_lost_total likewise                               tetragon_observer_ringbuf_events_lost_total
//	event_queue                    tetragon_ringbuf_queue_lost_total      likewise                               tetragon_observer_ringbuf_queue_events_lost_total
//	listener_overflow_all_clients  tetragon_notify_overflowed_events_total in all
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// DefaultInterval is the time between two looks.
const DefaultInterval = 10 * time.Second

// The bounds of an answer: a Tetragon with many policies serves some 500 KB.
const (
	maxAnswerBytes = 8 << 20
	answerTime     = 5 * time.Second
)

// names are the metrics of each stage, in the order in which an event passes the
// stages. The first one that is there counts.
var names = []struct {
	stage   string
	metrics []string
}{
	{missed, []string{"tetragon_bpf_missed_events_total", "tetragon_missed_events_total"}},
	{"ring_buffer", []string{"tetragon_observer_ringbuf_events_lost_total", "tetragon_ringbuf_perf_event_lost_total"}},
	{"event_queue", []string{"tetragon_observer_ringbuf_queue_events_lost_total", "tetragon_ringbuf_queue_lost_total"}},
	{"listener_overflow_all_clients", []string{"tetragon_notify_overflowed_events_total"}},
}

// missed is the stage whose counter v1.0 does not have.
const missed = "bpf_missed"

// Stages returns the names of the stages in their order.
func Stages() []string {
	stages := make([]string, len(names))
	for i, n := range names {
		stages[i] = n.stage
	}
	return stages
}

// Config says where to read. The zero value of every field is usable.
type Config struct {
	// Find returns Tetragon's metrics address, [host]:port or a URL, as it is now;
	// empty: it serves none. It is asked before each look. Nil: nothing is read.
	Find func() string
	// Version returns Tetragon's version, v1.7.0; empty: unknown. Only where the names of
	// v1.0 and v1.1 are served does it matter. Nil: unknown.
	Version func() string
	// Interval is the time between two looks, give or take a tenth. Zero:
	// DefaultInterval.
	Interval time.Duration
	// Client makes the requests. Nil: one that takes no proxy from the environment.
	Client *http.Client
	// Logger gets changes of state. Nil discards them.
	Logger *slog.Logger
}

// Reader looks at Tetragon's counters. Make one with [New]; Run it once. Losses
// and Totals are safe for concurrent use.
type Reader struct {
	config Config
	said   said
	row    int // looks since then that succeeded, or below 0 failed, without a break

	mu     sync.Mutex
	stages []counter // as names
}

// counter is a figure that survives a reset.
type counter struct {
	known bool
	last  float64 // as Tetragon last told
	sum   float64 // of the growth since the first look
}

// see notes what Tetragon tells.
func (c *counter) see(value float64) {
	switch {
	case !c.known:
		c.known = true
	case value >= c.last:
		c.sum += value - c.last
	default:
		c.sum += value // it began anew at 0
	}
	c.last = value
}

// New returns a reader. It starts no goroutine.
func New(config Config) *Reader {
	if config.Interval <= 0 {
		config.Interval = DefaultInterval
	}
	if config.Client == nil {
		config.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: answerTime}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Version == nil {
		config.Version = func() string { return "" }
	}
	return &Reader{config: config, stages: make([]counter, len(names))}
}

// Run looks at once and then at each interval until ctx ends, and returns its
// error.
func (r *Reader) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if r.config.Find != nil {
			r.report(r.Look(ctx))
		}
		tenth := r.config.Interval / 10
		timer.Reset(r.config.Interval - tenth + rand.N(2*tenth+1))
	}
}

// said is what the log says of reading the metrics.
type said uint8

const (
	nothing said = iota
	readable
	unreadable
)

// So many looks in a row have to fail, and so many to succeed, before the log says that
// something changed: a scrape that times out now and then is no news.
const (
	failuresInARow  = 3
	successesInARow = 6
)

// report logs when looking begins to fail for good, or to succeed.
func (r *Reader) report(err error) {
	switch {
	case err == nil:
		r.row = max(r.row, 0) + 1
	default:
		r.row = min(r.row, 0) - 1
	}
	switch {
	case r.said == nothing && r.row > 0 || r.said == unreadable && r.row >= successesInARow:
		r.said = readable
		r.config.Logger.Info("Tetragon's own losses are read from its metrics")
	case r.said != unreadable && r.row <= -failuresInARow:
		r.said = unreadable
		r.config.Logger.Warn("What Tetragon itself lost is unknown: its metrics cannot be read", "error", err,
			"hint", "--tetragon-metrics-address names them; Tetragon serves them with --metrics-server")
	}
}

// ErrNoAddress is returned by Look when Tetragon serves no metrics.
var ErrNoAddress = errors.New("upstream: Tetragon names no metrics address")

// Look reads the counters once. After an error all is as it was.
func (r *Reader) Look(ctx context.Context) error {
	address := r.config.Find()
	if address == "" {
		return ErrNoAddress
	}
	target, err := endpoint(address)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("upstream: address %q: %w", address, err)
	}
	answer, err := r.config.Client.Do(request)
	if err != nil {
		return fmt.Errorf("upstream: reading Tetragon's metrics: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("upstream: reading Tetragon's metrics at %s: status %s", target, answer.Status)
	}
	values, err := parse(answer.Body, r.config.Version())
	if err != nil {
		return fmt.Errorf("upstream: reading Tetragon's metrics at %s: %w", target, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, v := range values {
		if v != nil {
			r.stages[i].see(*v)
		}
	}
	return nil
}

// Losses returns what was lost since the first look, by stage; nil is unknown.
// The map is the caller's.
func (r *Reader) Losses() map[string]*uint64 {
	return r.by(func(c *counter) float64 { return c.sum })
}

// Totals returns what was lost since Tetragon's own start, likewise.
func (r *Reader) Totals() map[string]*uint64 {
	return r.by(func(c *counter) float64 { return c.last })
}

func (r *Reader) by(value func(c *counter) float64) map[string]*uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	losses := make(map[string]*uint64, len(names))
	for i, n := range names {
		losses[n.stage] = nil
		if c := &r.stages[i]; c.known {
			sum := uint64(value(c))
			losses[n.stage] = &sum
		}
	}
	return losses
}

// endpoint makes a URL of what Tetragon calls its metrics address: a port on this
// host, as in ":2112", if it names no host.
func endpoint(address string) (string, error) {
	if strings.Contains(address, "://") {
		target, err := url.Parse(address)
		if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
			return "", fmt.Errorf("upstream: metrics address %q, want host:port or http://host:port/path", address)
		}
		if target.Path == "" {
			target.Path = "/metrics"
		}
		return target.String(), nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("upstream: metrics address %q, want host:port: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/metrics", nil
}
