package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"

	"tetracast/internal/metrics"
)

// Where metrics are served by default: not to the network unless it is asked for.
const (
	DefaultExportMetrics  = "127.0.0.1:7515"
	DefaultCollectMetrics = "127.0.0.1:7516"
)

// MetricsConfig says where a command serves its metrics.
type MetricsConfig struct {
	Address string // host:port; empty: nowhere

	flag *pflag.Flag
}

func (c *MetricsConfig) addFlags(flags *pflag.FlagSet, address string) {
	flags.StringVar(&c.Address, "metrics-address", address, "TCP address on which to serve metrics for Prometheus at /metrics, and health at /healthz and /readyz, host:port; empty: none. If the default port is taken, as by a second process, there are none; one that was asked for must be free")
	c.flag = flags.Lookup("metrics-address")
}

// given says whether somebody asked for the address.
func (c *MetricsConfig) given() bool { return c.flag == nil || c.flag.Changed }

// Bounds of the server.
const (
	scrapeTime     = 10 * time.Second
	maxScrapes     = 4        // at one time; others get 503
	maxHeaderBytes = 16 << 10 // of a request
)

// metricsServer serves metrics over HTTP.
type metricsServer struct {
	registry *prometheus.Registry
	listener net.Listener
	alive    func(context.Context) error      // for /healthz and /readyz; set before run
	ready    func() (waits string, err error) // for /readyz; nil: whoever is alive is ready
	log      *slog.Logger
}

// open listens. It returns nil if nothing is to be served.
func (c *MetricsConfig) open(log *slog.Logger) (*metricsServer, error) {
	if c.Address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", c.Address)
	switch {
	case err != nil && c.given():
		return nil, Failed(fmt.Errorf("app: --metrics-address: %w", err), "another address or port 0 is free perhaps; empty serves no metrics")
	case err != nil:
		log.Warn("No metrics are served: the default address is taken", "cause", err, "hint", "--metrics-address names another one, and empty says that there shall be none")
		return nil, nil
	}
	s := &metricsServer{registry: prometheus.NewRegistry(), listener: listener, log: log}
	s.registry.MustRegister(metrics.Build{}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	log.Info("Serving metrics", "address", listener.Addr())
	return s, nil
}

// run serves what was registered until ctx ends, or gives the address back if it is
// never called.
func (s *metricsServer) run(ctx context.Context) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{s.log}, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime, EnableOpenMetrics: true,
	}))
	serveHealth(mux, s.alive, s.ready)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "tetracast. Its metrics are at /metrics, its health at /healthz and /readyz.\n")
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: scrapeTime, WriteTimeout: 2 * scrapeTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("Metrics are not served any more", "cause", err)
	}
}

// close gives the address back; run does it by itself.
func (s *metricsServer) close() {
	if s != nil {
		_ = s.listener.Close()
	}
}

// scrapeLog gets what goes wrong in a scrape.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) { l.log.Warn("A scrape failed", "cause", fmt.Sprint(v...)) }
