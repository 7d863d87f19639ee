package source_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/corpus"
	"tetracast/internal/replay"
	"tetracast/internal/source"
)

// TestNotUTF8: a Tetragon whose stream ends at every tenth event, for the name of a
// control group. After the second break the name is not asked for and all events come;
// the user's own field filters stay. Without the remedy each costs an event and a break.
func TestNotUTF8(t *testing.T) {
	own, err := source.ParseFilters("", "", `{"fields":"process.exec_id,process.docker"}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []source.GRPCClient{source.ClientFramer, source.ClientGRPCGo} {
		f := func(remedies bool, filters source.Filters, events int, breaks uint64, fields int, log string) {
			t.Helper()
			address := "unix://" + filepath.Join(t.TempDir(), "t.sock")
			server, _ := serve(t, address, replay.Config{NotUTF8Every: 10})
			var logged bytes.Buffer
			s, err := source.New(source.Config{ServerAddress: address, Reconnect: true, GRPCClient: client, Remedies: remedies, Filters: filters,
				Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			if err != nil {
				t.Fatal(err)
			}
			k := newTaker(events)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var running sync.WaitGroup
			running.Go(func() { _ = s.Run(ctx, k.take) })
			select {
			case <-k.reached:
			case <-ctx.Done():
				t.Fatalf("%s, remedies %v: not all events came; %+v", client, remedies, s.Stats())
			}
			cancel()
			running.Wait()
			stats := s.Stats()
			if remedies && stats.NotUTF8 != breaks || stats.NotUTF8 < breaks || (stats.LeftOut != nil) != remedies || len(server.Request().FieldFilters) != fields || strings.Count(logged.String(), log) != 1 {
				t.Errorf("%s, remedies %v: %+v; asked for %v; log:\n%s", client, remedies, stats, server.Request().FieldFilters, &logged)
			}
			if remedies && !strings.Contains(logged.String(), "left_out=process.docker,parent.docker,ancestors.docker") {
				t.Errorf("the log does not say what is left out:\n%s", &logged)
			}
		}
		const every = 10
		f(true, source.Filters{}, corpus.SampleEvents-2, 2, 1, "from now on events come without these fields")
		f(true, own, corpus.SampleEvents-2, 2, 2, "from now on events come without these fields")
		if client == source.ClientFramer { // seven seconds
			f(false, source.Filters{}, 8*(every-1), 7, 0, "--remedies auto asks for events without")
		}
	}
}

// TestLoop: a Tetragon that makes an event of each of its own sends over TCP keeps itself
// busy with one client, for ever. AvoidLoop ends that; over a unix socket there is none;
// a Tetragon that does not know such a filter is not asked.
func TestLoop(t *testing.T) {
	for _, client := range []source.GRPCClient{source.ClientFramer, source.ClientGRPCGo} {
		f := func(network, version string, remedies, avoided bool) {
			t.Helper()
			address := "127.0.0.1:0"
			if network == "unix" {
				address = "unix://" + filepath.Join(t.TempDir(), "t.sock")
			} else {
				free, err := net.Listen("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				address = free.Addr().String()
				_ = free.Close()
			}
			server, stop := serve(t, address, replay.Config{Feedback: true, Version: version})
			var opened, closed atomic.Int64
			var logged bytes.Buffer
			s, err := source.New(source.Config{ServerAddress: address, Reconnect: true, GRPCClient: client, Remedies: remedies,
				Logger: slog.New(slog.NewTextHandler(&logged, nil)),
				Opened: func(local, remote netip.AddrPort) func() {
					if !local.IsValid() || remote.String() != address {
						t.Errorf("opened from %s to %s, want to %s", local, remote, address)
					}
					opened.Add(1)
					return sync.OnceFunc(func() { closed.Add(1) })
				}})
			if err != nil {
				t.Fatal(err)
			}
			const some = corpus.SampleEvents + 200
			want := some
			if network == "unix" {
				want = corpus.SampleEvents
			}
			k := newTaker(want)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var running sync.WaitGroup
			running.Go(func() { _ = s.Run(ctx, k.take) })
			select {
			case <-k.reached:
			case <-ctx.Done():
				t.Fatalf("there is no loop: %+v", s.Stats())
			}
			if err := s.AvoidLoop(ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond) // what is on the way
			before, _ := server.Felt()
			time.Sleep(500 * time.Millisecond)
			after, _ := server.Felt()
			asked := server.Request().GetDenyList()
			cancel()
			running.Wait()
			if looping := after-before > 20; looping == (avoided || network == "unix") {
				t.Errorf("%s, %s, %s, remedies %v: %d events in half a second; denied %v; log:\n%s", client, network, version, remedies, after-before, asked, &logged)
			}
			if got := len(asked) == 1; got != avoided {
				t.Errorf("%s, %s, %s: denied %v", client, network, version, asked)
			}
			if network == "tcp" && strings.Count(logged.String(), "Events come over TCP") != 1 {
				t.Errorf("the log does not name the risk once:\n%s", &logged)
			}
			stop()
			if opened.Load() != closed.Load() || (opened.Load() == 0) != (network == "unix") {
				t.Errorf("%d connections were told of, %d of their ends", opened.Load(), closed.Load())
			}
		}
		f("tcp", "v1.7.0", true, true)
		f("tcp", "v1.4.1", true, false)
		f("tcp", "v1.7.0", false, false)
		f("unix", "v1.7.0", true, false)
	}
}

// TestFilterRefused: a Tetragon that takes no such filter is asked without it again.
func TestFilterRefused(t *testing.T) {
	refusing := func(p *peer) {
		var request tetragon.GetEventsRequest
		if err := proto.Unmarshal(p.request[5:], &request); err != nil || len(request.DenyList) > 0 {
			p.answer()
			p.trailers("grpc-status", "2", "grpc-message", "error compiling CEL expression")
			return
		}
		send(p)
		p.await(func(http2.Frame) bool { return false })
	}
	address := scriptedOn(t, "tcp", "127.0.0.1:0", greet, refusing)
	var logged bytes.Buffer
	s, err := source.New(source.Config{ServerAddress: address, Reconnect: true, Remedies: true, GRPCClient: source.ClientFramer,
		Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx, func([][]byte) {}) })
	until := func(what func() bool) {
		t.Helper()
		for !what() {
			if ctx.Err() != nil {
				t.Fatalf("%+v\n%s", s.Stats(), &logged)
			}
			time.Sleep(time.Millisecond)
		}
	}
	until(func() bool { return s.Stats().Subscribed })
	if err := s.AvoidLoop(ctx); err != nil {
		t.Fatal(err)
	}
	until(func() bool { return s.Stats().Connects >= 3 && s.Stats().Subscribed })
	if err := s.AvoidLoop(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	running.Wait()
	if stats := s.Stats(); stats.Breaks != 1 || !strings.Contains(logged.String(), "does not take the filter") {
		t.Errorf("%+v\n%s", stats, &logged)
	}
}
