package source

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tetracast/internal/source/framer"
)

// TestGuard: when the twin is asked, and what follows from what it saw.
func TestGuard(t *testing.T) {
	f := func(name string, lasts time.Duration, batches func(at time.Duration) uint64, twin func(at time.Duration) bool, asked int, ended time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			defer cancel()
			times, at := 0, time.Duration(0)
			guard(ctx, func() uint64 { return batches(time.Since(begin)) },
				func() bool { times++; return twin(time.Since(begin)) },
				func(cause error) {
					at = time.Since(begin)
					if !errors.Is(cause, framer.ErrStalled) {
						t.Errorf("%s: ended by %v", name, cause)
					}
				})
			if times != asked || at != ended {
				t.Errorf("%s: the twin was asked %d times, want %d; ended after %v, want %v", name, times, asked, at, ended)
			}
		})
	}
	none := func(time.Duration) uint64 { return 0 }
	steady := func(at time.Duration) uint64 { return uint64(at / time.Second) }
	sees := func(time.Duration) bool { return true }
	blind := func(time.Duration) bool { return false }
	f("events", time.Hour, steady, sees, 0, 0)
	f("stalled", time.Hour, none, sees, 1, minSilence+grace)
	f("the framer is a second later", 40*time.Second, func(at time.Duration) uint64 { return uint64(at / (31 * time.Second)) }, sees, 1, 0)
	// 30 s, 1, 2, 4, 8 minutes, then every ten.
	f("the twin sees nothing", 15*time.Minute+40*time.Second, none, blind, 5, 0)
	f("the twin sees nothing for long", 15*time.Minute+40*time.Second+3*maxSilence, none, blind, 8, 0)
}

// TestBlame: which ends are a reason to fall back.
func TestBlame(t *testing.T) {
	protocol := errors.Join(framer.ErrProtocol)
	stall := errors.Join(framer.ErrStalled)
	f := func(config GRPCClient, used GRPCClient, answers bool, cause error, want bool) {
		t.Helper()
		s, err := New(Config{GRPCClient: config})
		if err != nil {
			t.Fatal(err)
		}
		s.answers = func(context.Context, string) bool { return answers }
		if got := s.fallBack(t.Context(), Tetragon{Client: used}, cause); got != want || (s.Stats().Fallbacks == 1) != want || s.framed("unix:///x") == (want || config == ClientGRPCGo) {
			t.Errorf("%s, %s, answers %v, %v: %v, want %v", config, used, answers, cause, got, want)
		}
	}
	f("", ClientFramer, false, protocol, true)
	f(ClientAuto, ClientFramer, true, stall, true)
	f(ClientAuto, ClientFramer, false, stall, false)
	f(ClientAuto, ClientGRPCGo, true, protocol, false)
	f(ClientAuto, ClientFramer, true, status.Error(codes.Unavailable, ""), false)
	f(ClientAuto, ClientFramer, true, status.Error(codes.ResourceExhausted, ""), false)
	f(ClientFramer, ClientFramer, true, protocol, false)
	f(ClientFramer, ClientFramer, true, stall, false)
	f(ClientGRPCGo, ClientGRPCGo, true, protocol, false)
}
