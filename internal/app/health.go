package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/spf13/pflag"
)

// aliveWait bounds how long the loops may take to answer.
const aliveWait = 5 * time.Second

// errNotAlive says that a loop does not answer.
var errNotAlive = errors.New("app: the loops do not go round")

// serveHealth answers on /healthz and /readyz: 200 where alive says so, else 503. A
// process that runs has a valid configuration; a destination that is down, or a
// Tetragon that is not there, is for metrics and no reason to be unready: a rollout
// must not wait for a SIEM. A file that this user may not read will not mend itself:
// ready says so, or what is waited for, and only /readyz has it: a restart would not help. It
// may be nil.
func serveHealth(mux *http.ServeMux, alive func(context.Context) error, ready func() (waits string, err error)) {
	healthy := func(w http.ResponseWriter, r *http.Request) bool {
		ctx, cancel := context.WithTimeout(r.Context(), aliveWait)
		defer cancel()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := alive(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return false
		}
		return true
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if healthy(w, r) {
			_, _ = io.WriteString(w, "ok\n")
		}
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if !healthy(w, r) {
			return
		}
		var waits string
		if ready != nil {
			var err error
			if waits, err = ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = io.WriteString(w, "ok\n")
		if waits != "" {
			_, _ = io.WriteString(w, "waiting: "+waits+"\n")
		}
	})
}

// answers returns a look that says whether f, which takes the locks of the loops,
// comes back.
func answers(f func()) func(context.Context) error {
	return func(ctx context.Context) error {
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return errNotAlive
		}
	}
}

// ProfileConfig says where profiles are served.
type ProfileConfig struct {
	Address string // host:port of loopback; empty: nowhere
}

func (c *ProfileConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Address, "pprof-address", "", "serve profiles of this process there, for go tool pprof, host:port of loopback; empty: do not")
}

// listen opens the address, which has to be one of loopback: a profile shows memory.
func (c *ProfileConfig) listen() (net.Listener, error) {
	if c.Address == "" {
		return nil, nil
	}
	hint := "such as 127.0.0.1:6060; ssh -L reaches it from elsewhere"
	addr, err := netip.ParseAddrPort(c.Address)
	if err != nil || !addr.Addr().IsLoopback() {
		return nil, Usage(fmt.Errorf("app: --pprof-address %q is not an address of loopback", c.Address), hint)
	}
	listener, err := net.Listen("tcp", c.Address)
	if err != nil {
		return nil, Failed(fmt.Errorf("app: --pprof-address: %w", err), hint)
	}
	return listener, nil
}

// serveProfiles serves on the listener, which may be nil, until ctx ends.
func serveProfiles(ctx context.Context, listener net.Listener) {
	if listener == nil {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: aliveWait}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	_ = server.Serve(listener) // it ends with Close
}
