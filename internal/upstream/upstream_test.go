package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tetracast/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStages: the stages are those of the account.
func TestStages(t *testing.T) {
	if !slices.Equal(Stages(), ledger.UpstreamStages()) {
		t.Errorf("stages %v, the account has %v", Stages(), ledger.UpstreamStages())
	}
}

// served is a metrics endpoint whose text a test changes.
func served(t *testing.T) (set func(string), address string) {
	t.Helper()
	var text atomic.Pointer[string]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" || text.Load() == nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(*text.Load()))
	}))
	t.Cleanup(server.Close)
	return func(s string) { text.Store(&s) }, strings.TrimPrefix(server.URL, "http://")
}

func text(r *Reader) string {
	var out bytes.Buffer
	for _, stage := range Stages() {
		if n := r.Losses()[stage]; n != nil {
			fmt.Fprintf(&out, "%s %d ", stage, *n)
		}
	}
	return out.String()
}

// TestLosses over the names of each release, and a reset of the counters.
func TestLosses(t *testing.T) {
	releases := []struct{ name, missed, ring, queue string }{
		{"1.0", "", "tetragon_ringbuf_perf_event_lost_total", "tetragon_ringbuf_queue_lost_total"},
		{"1.1", "tetragon_missed_events_total", "tetragon_ringbuf_perf_event_lost_total", "tetragon_ringbuf_queue_lost_total"},
		{"1.7", "tetragon_bpf_missed_events_total", "tetragon_observer_ringbuf_events_lost_total", "tetragon_observer_ringbuf_queue_events_lost_total"},
	}
	for _, release := range releases {
		t.Run(release.name, func(t *testing.T) {
			set, address := served(t)
			r := New(Config{Find: func() string { return address }})
			look := func(missed, ring, queue, overflow int) {
				t.Helper()
				out := fmt.Sprintf("# TYPE x counter\n%s %d\n%s %d\ntetragon_notify_overflowed_events_total %d\nother{a=\"b\"} 1\n", release.ring, ring, release.queue, queue, overflow)
				if release.missed != "" {
					out += fmt.Sprintf("%s{msg_op=\"5\",error=\"unknown\"} %d\n%s{msg_op=\"13\",error=\"ENOSPC\"} 1\n", release.missed, missed, release.missed)
				}
				set(out)
				if err := r.Look(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if got := text(r); got != "" {
				t.Errorf("before the first look: %s", got)
			}
			look(100, 200, 300, 400)
			look(105, 210, 300, 401)
			look(2, 3, 4, 5) // Tetragon was restarted
			look(3, 3, 4, 5)
			want := "bpf_missed 9 ring_buffer 13 event_queue 4 listener_overflow_all_clients 6 "
			if release.missed == "" {
				want = "ring_buffer 13 event_queue 4 listener_overflow_all_clients 6 "
			}
			if got := text(r); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestAbsentIsZero: bpf_missed appears with the first miss. Before it is 0 where the
// release counts it, and unknown where that is not known.
func TestAbsentIsZero(t *testing.T) {
	const since12 = "tetragon_observer_ringbuf_events_lost_total 1\ntetragon_observer_ringbuf_queue_events_lost_total 2\ntetragon_notify_overflowed_events_total 3\n"
	const before12 = "tetragon_ringbuf_perf_event_lost_total 1\ntetragon_ringbuf_queue_lost_total 2\ntetragon_notify_overflowed_events_total 3\n"
	f := func(version, first, second string, want string) {
		t.Helper()
		set, address := served(t)
		r := New(Config{Find: func() string { return address }, Version: func() string { return version }})
		for _, answer := range []string{first, second} {
			set(answer)
			if err := r.Look(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if got := text(r); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
	rest := "ring_buffer 0 event_queue 0 listener_overflow_all_clients 0 "
	f("", since12, since12, "bpf_missed 0 "+rest)
	f("v1.7.0", since12, since12+"tetragon_bpf_missed_events_total{msg_op=\"5\"} 7\n", "bpf_missed 7 "+rest)
	f("v1.7.0", since12, since12+"tetragon_bpf_missed_events_total{msg_op=\"5\"} NaN\n", "bpf_missed 0 "+rest) // as it was
	f("v1.1.2", before12, before12+"tetragon_missed_events_total{msg_op=\"5\"} 7\n", "bpf_missed 7 "+rest)
	f("v1.0.3", before12, before12, rest)
	f("", before12, before12, rest)
}

// TestWarningDoesNotFlap: looks that fail now and then are no news; looking that fails
// for good is said once, and that it works again when it does for a while.
func TestWarningDoesNotFlap(t *testing.T) {
	f := func(looks string, want string) { // + succeeds, - fails
		t.Helper()
		var log bytes.Buffer
		r := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for _, look := range looks {
			var err error
			if look == '-' {
				err = errors.New("too slow")
			}
			r.report(err)
		}
		got := ""
		for line := range strings.Lines(log.String()) {
			got += string(line[strings.Index(line, "level=")+len("level=")])
		}
		if got != want {
			t.Errorf("%s: %s, want %s\n%s", looks, got, want, log.String())
		}
	}
	f("++++++++", "I")
	f("+-+-+-+-+--+--+--", "I")
	f("--+", "I") // it began before Tetragon did
	f("+-----------", "IW")
	f("----++++++++++", "WI")
	f("---+---+---+---++", "W")
	f("---++++++---", "WIW")
}

// TestBadAnswers: none of them changes what is known.
func TestBadAnswers(t *testing.T) {
	set, address := served(t)
	r := New(Config{Find: func() string { return address }})
	if err := r.Look(context.Background()); err == nil {
		t.Error("no error for status 404")
	}
	set("tetragon_notify_overflowed_events_total 1\n")
	if err := r.Look(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "\x00\x01", "tetragon_notify_overflowed_events_total", "tetragon_notify_overflowed_events_total NaN\n",
		"tetragon_notify_overflowed_events_total -1\n", "other 1\n", "a 1\n" + strings.Repeat("#", maxAnswerBytes)} {
		set(bad)
		if err := r.Look(context.Background()); err == nil {
			t.Errorf("no error for %.40q", bad)
		}
	}
	if got := text(r); got != "listener_overflow_all_clients 0 " {
		t.Errorf("%s", got)
	}
}

func TestEndpoint(t *testing.T) {
	f := func(address, want string) {
		t.Helper()
		got, err := endpoint(address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
	f(":2112", "http://127.0.0.1:2112/metrics")
	f("0.0.0.0:2112", "http://127.0.0.1:2112/metrics")
	f("[::]:2112", "http://127.0.0.1:2112/metrics")
	f("10.0.0.1:2112", "http://10.0.0.1:2112/metrics")
	f("https://node:2112", "https://node:2112/metrics")
	f("http://node:2112/m", "http://node:2112/m")
	f("2112", "")
	f("ftp://node", "")
	f("http://", "")
}

// TestRun: an endpoint that comes late is read when it is there.
func TestRun(t *testing.T) {
	set, address := served(t)
	looks := make(chan struct{}, 100)
	r := New(Config{Interval: 10 * time.Millisecond, Find: func() string { looks <- struct{}{}; return address }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-looks
	<-looks
	set("tetragon_notify_overflowed_events_total 1\n")
	for r.Losses()["listener_overflow_all_clients"] == nil {
		<-looks
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if err := New(Config{Find: func() string { return "" }}).Look(context.Background()); !errors.Is(err, ErrNoAddress) {
		t.Errorf("%v, want ErrNoAddress", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("tetragon_notify_overflowed_events_total 1\n"))
	f.Add([]byte("# TYPE tetragon_bpf_missed_events_total counter\ntetragon_bpf_missed_events_total{msg_op=\"5\"} 1e3\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		values, err := parse(bytes.NewReader(in), "")
		if err == nil && len(values) != len(names) {
			t.Errorf("%d values", len(values))
		}
	})
}
