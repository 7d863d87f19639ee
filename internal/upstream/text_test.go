package upstream

import (
	"bytes"
	"math/rand/v2"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// TestParseWhatPrometheusWrites: sums over labels of any text are read as the
// library that Tetragon serves them with wrote them.
func TestParseWhatPrometheusWrites(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		pieces := []string{"a", "\"", "\\", "\n", "}", "{", " ", "=", ",", "é", "#", "tetragon_bpf_missed_events_total 7"}
		var s string
		for range random.IntN(6) {
			s += pieces[random.IntN(len(pieces))]
		}
		return s
	}
	for range 200 {
		registry := prometheus.NewRegistry()
		want := map[string]float64{}
		for i, n := range names {
			if random.IntN(4) == 0 {
				continue
			}
			name := n.metrics[random.IntN(len(n.metrics))]
			counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: text()}, []string{"policy", "error"})
			registry.MustRegister(counter)
			for range 1 + random.IntN(3) {
				value := float64(random.Uint64N(1 << (10 + 10*uint(i))))
				counter.WithLabelValues(text(), text()).Add(value)
				want[n.stage] += value
			}
		}
		out := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(out, httptest.NewRequest("GET", "/metrics", nil))
		values, err := parse(bytes.NewReader(out.Body.Bytes()), "v1.1.0")
		if len(want) > 1 || len(want) == 1 && want["listener_overflow_all_clients"] == 0 {
			for _, n := range names {
				want[n.stage] += 0 // where another is there, one that is absent is 0
			}
		}
		if (err == nil) != (len(want) > 0) {
			t.Fatalf("%v, want %v of\n%s", err, want, out.Body)
		}
		for i, v := range values {
			sum, ok := want[names[i].stage]
			if ok != (v != nil) || ok && *v != sum {
				t.Fatalf("%s: %v, want %v of\n%s", names[i].stage, v, sum, out.Body)
			}
		}
	}
}
