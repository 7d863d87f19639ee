package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// lossNames returns what a release calls the counters of its own losses, by the
// stage at which they happen. internal/upstream says where that was read.
func lossNames(version string) map[string]string {
	n := map[string]string{
		"bpf_missed":                    "tetragon_bpf_missed_events_total",
		"ring_buffer":                   "tetragon_observer_ringbuf_events_lost_total",
		"event_queue":                   "tetragon_observer_ringbuf_queue_events_lost_total",
		"listener_overflow_all_clients": "tetragon_notify_overflowed_events_total",
	}
	if before(version, 2) {
		n["bpf_missed"] = "tetragon_missed_events_total"
		n["ring_buffer"] = "tetragon_ringbuf_perf_event_lost_total"
		n["event_queue"] = "tetragon_ringbuf_queue_lost_total"
	}
	if before(version, 1) {
		delete(n, "bpf_missed")
	}
	return n
}

// DefaultAddress is where a release serves gRPC if nothing else is asked for: the
// default of its Helm chart.
func DefaultAddress(version string) string {
	if version != "" && before(version, 7) {
		return "localhost:54321"
	}
	return "unix:///var/run/tetragon/tetragon.sock"
}

// SocketBeside is the unix socket that a release serves beside TCP; empty: none. An
// unknown release has none.
func SocketBeside(version string) string {
	if version == "" || before(version, 8) {
		return ""
	}
	return "/var/run/tetragon/tetragon.sock"
}

// metrics serves the counters of losses. Each look finds them grown by
// Config.Losses.
type metrics struct {
	server *Server
	looks  atomic.Uint64
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	looks := m.looks.Add(1)
	names := lossNames(m.server.version.GetVersion())
	for _, stage := range slices.Sorted(maps.Keys(names)) {
		name := names[stage]
		if stage == "bpf_missed" && m.server.config.Losses[stage] == 0 {
			continue // it appears with the first miss
		}
		_, _ = fmt.Fprintf(w, "# TYPE %s counter\n%s %d\n", name, name, looks*m.server.config.Losses[stage])
	}
}

// serveMetrics serves until ctx ends.
func (s *Server) serveMetrics(ctx context.Context, listener net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", &metrics{server: s})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("replay: serving metrics: %w", err)
	}
	return nil
}

// writeInfo writes what Tetragon tells its clients in tetragon-info.json.
func (s *Server) writeInfo(address net.Addr, metricsAddress string) error {
	grpcAddress := address.String()
	if address.Network() == "unix" {
		grpcAddress = "unix://" + grpcAddress
	}
	info := map[string]any{"server_address": grpcAddress, "metrics_address": metricsAddress}
	if !before(s.version.GetVersion(), 7) {
		info["pid"] = os.Getpid()
	}
	text, err := json.Marshal(info)
	if err == nil {
		err = os.WriteFile(s.config.InfoFile, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("replay: writing the info file: %w", err)
	}
	return nil
}
