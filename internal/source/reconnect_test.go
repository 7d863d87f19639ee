package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fakeSession gives messages, then an error, after a while.
type fakeSession struct {
	messages int
	lives    time.Duration
	end      error
	ctx      context.Context
}

func (f *fakeSession) next() ([][]byte, error) {
	if f.messages > 0 {
		f.messages--
		return [][]byte{{0x0a, 0}}, nil
	}
	select {
	case <-time.After(f.lives):
		return nil, f.end
	case <-f.ctx.Done():
		return nil, f.ctx.Err()
	}
}

func (f *fakeSession) close() {}

// newFake returns a subscription whose attempts are made by open.
func newFake(t *testing.T, config Config, open func(attempt int) (*fakeSession, error)) *Subscription {
	t.Helper()
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	attempt := 0
	s.open = func(ctx context.Context, _ *asked) (session, Tetragon, error) {
		attempt++
		f, err := open(attempt)
		if err != nil {
			return nil, Tetragon{}, err
		}
		f.ctx = ctx
		return f, Tetragon{}, nil
	}
	return s
}

// runFor runs the subscription for a time and returns how many messages came.
func runFor(t *testing.T, s *Subscription, d time.Duration) (messages int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := s.Run(ctx, func(batch [][]byte) { messages += len(batch) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
	return messages
}

// elsewhere is an address on another host.
const elsewhere = "192.0.2.1:54321"

// TestTetragonIsLate: a Tetragon that comes after a minute is found within the
// longest wait, with few attempts and one log line for one cause. On this host the
// longest wait is a second.
func TestTetragonIsLate(t *testing.T) {
	f := func(address string, longest time.Duration, fewest, most int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			begin := time.Now()
			attempts := 0
			var connected time.Duration
			config := Config{Reconnect: true, ServerAddress: address, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Connected: func(Tetragon) { connected = time.Since(begin) }}
			s := newFake(t, config, func(int) (*fakeSession, error) {
				attempts++
				if time.Since(begin) < time.Minute {
					return nil, ErrNotFound
				}
				return &fakeSession{messages: 3, lives: time.Hour}, nil
			})
			if n := runFor(t, s, 2*time.Minute); n != 3 {
				t.Errorf("%s: %d messages", address, n)
			}
			if connected < time.Minute || connected > time.Minute+longest {
				t.Errorf("%s: connected after %v", address, connected)
			}
			if attempts < fewest || attempts > most {
				t.Errorf("%s: %d attempts in a minute", address, attempts)
			}
			if n := strings.Count(log.String(), "not there yet"); n != 1 {
				t.Errorf("%s: %d log lines for one cause:\n%s", address, n, log.String())
			}
			if stats := s.Stats(); stats.Breaks != 0 || stats.BlindTime != 0 || stats.Connects != 1 {
				t.Errorf("%s: stats %+v", address, stats)
			}
		})
	}
	f(elsewhere, maxWait, 3, 40)
	f("tetragon.example:54321", maxWait, 3, 40)
	f("", maxWaitLocal, 60, 300)
	f("unix:///nonexistent/tetragon.sock", maxWaitLocal, 60, 300)
	f("localhost:54321", maxWaitLocal, 60, 300)
	f("[::1]:54321", maxWaitLocal, 60, 300)
}

// TestTraces: while there is no Tetragon, its info file or its socket is noticed when it
// appears and when it is another one than before.
func TestTraces(t *testing.T) {
	folder := t.TempDir()
	info, socket := filepath.Join(folder, "tetragon-info.json"), filepath.Join(folder, "tetragon.sock")
	write := func(path string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte("{}"), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		f := func(config Config, change func(), noticed bool) {
			t.Helper()
			s, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Second, change)
			begin := time.Now()
			if err := s.wait(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); noticed && took > 3*time.Second+traceInterval || !noticed && took != time.Minute {
				t.Errorf("%+v: waited %v", config, took)
			}
		}
		places := Config{Places: Places{InfoFile: info, Sockets: []string{socket}}}
		f(places, func() { write(info) }, true)
		f(places, func() { write(info) }, true)
		f(places, func() { write(socket) }, true)
		f(places, func() { _ = os.Remove(socket) }, true)
		f(places, func() {}, false)
		f(Config{ServerAddress: "unix://" + socket}, func() { write(socket) }, true)
		f(Config{ServerAddress: "unix://" + socket}, func() { write(info) }, false)
		f(Config{ServerAddress: elsewhere}, func() { write(info) }, false)
	})
}

// TestNameIsLate: the name of Tetragon's address resolves after a minute.
func TestNameIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var log bytes.Buffer
		s, err := New(Config{
			ServerAddress: "tetragon.example:54321", Reconnect: true,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Dial: func(context.Context, string, string) (net.Conn, error) {
				if time.Since(begin) < time.Minute {
					return nil, &net.DNSError{Err: "no such host", Name: "tetragon.example", IsNotFound: true}
				}
				return nil, errors.New("the name resolved")
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		runFor(t, s, 2*time.Minute)
		if n := strings.Count(log.String(), "no such host"); n != 1 {
			t.Errorf("%d log lines name the unresolved name:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "the name resolved") {
			t.Errorf("it was not tried again after the name resolved:\n%s", log.String())
		}
	})
}

// TestWaits: waits grow to the longest with jitter, and begin anew after a
// subscription that lived.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		s := newFake(t, Config{Reconnect: true, ServerAddress: elsewhere}, func(attempt int) (*fakeSession, error) {
			at = append(at, time.Now())
			if attempt == 60 {
				return &fakeSession{lives: livedTime, end: status.Error(codes.Unavailable, "")}, nil
			}
			return nil, ErrNotFound
		})
		runFor(t, s, 30*time.Minute)
		var longest time.Duration
		for i := 1; i < 60; i++ {
			wait := at[i].Sub(at[i-1])
			longest = max(longest, wait)
			bound := min(maxWait, minWait<<min(i-1, 20))
			if wait > bound {
				t.Errorf("wait %d is %v, longer than %v", i, wait, bound)
			}
		}
		if longest < maxWait/3 {
			t.Errorf("the longest wait is %v: they do not grow", longest)
		}
		if wait := at[60].Sub(at[59]) - livedTime; wait > minWait {
			t.Errorf("after a subscription that lived the wait is %v", wait)
		}
	})
}

// TestInternal: the end that an invalid string brings is a matter of 50 ms, at
// most ten a second, for as long as it goes on.
func TestInternal(t *testing.T) {
	f := func(lives time.Duration, least, most int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			s := newFake(t, Config{Reconnect: true}, func(int) (*fakeSession, error) {
				return &fakeSession{messages: 1, lives: lives, end: status.Error(codes.Internal, "string field contains invalid UTF-8")}, nil
			})
			n := runFor(t, s, 10*time.Second)
			stats := s.Stats()
			if n < least || n > most || stats.Internal != stats.Breaks {
				t.Errorf("living %v: %d subscriptions in 10 s, want %d to %d; stats %+v", lives, n, least, most, stats)
			}
			if lives == time.Second {
				// Blind for 50 ms after each.
				if want := time.Duration(stats.Breaks) * internalWait; stats.BlindTime < want-internalWait || stats.BlindTime > want {
					t.Errorf("blind for %v after %d breaks", stats.BlindTime, stats.Breaks)
				}
			}
		})
	}
	f(0, 90, 101)
	f(30*time.Millisecond, 90, 101)
	f(time.Second, 9, 10)
}

// TestEnds: what Run returns for each way in which a stream can end.
func TestEnds(t *testing.T) {
	broken := status.Error(codes.Unavailable, "going away")
	f := func(config Config, open func(int) (*fakeSession, error), want error) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := newFake(t, config, open).Run(ctx, func([][]byte) {}); !errors.Is(err, want) {
				t.Errorf("%+v: %v, want %v", config, err, want)
			}
		})
	}
	ending := func(err error) func(int) (*fakeSession, error) {
		return func(int) (*fakeSession, error) { return &fakeSession{messages: 5, end: err}, nil }
	}
	absent := func(int) (*fakeSession, error) { return nil, fmt.Errorf("%w: here", ErrNotFound) }
	f(Config{}, ending(io.EOF), nil)
	f(Config{}, ending(broken), broken)
	f(Config{}, absent, ErrNotFound)
	f(Config{Reconnect: true, FailFast: true}, absent, ErrNotFound)
	f(Config{Reconnect: true}, absent, context.DeadlineExceeded)
	f(Config{Reconnect: true, FailFast: true}, ending(io.EOF), context.DeadlineExceeded)
}

// TestBlindTime grows only while there is no subscription, also in the middle
// of it.
func TestBlindTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := newFake(t, Config{Reconnect: true}, func(attempt int) (*fakeSession, error) {
			if attempt > 1 && time.Since(begin) < 90*time.Second {
				return nil, ErrNotFound
			}
			return &fakeSession{lives: time.Minute, end: io.EOF}, nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			_ = s.Run(ctx, func([][]byte) {})
			close(done)
		}()
		at := func(d time.Duration, least, most time.Duration) {
			t.Helper()
			time.Sleep(time.Until(begin.Add(d)))
			if blind := s.Stats().BlindTime; blind < least || blind > most {
				t.Errorf("after %v: blind for %v, want %v to %v", d, blind, least, most)
			}
		}
		at(59*time.Second, 0, 0)
		at(80*time.Second, 20*time.Second, 20*time.Second)
		at(130*time.Second, 30*time.Second, 30*time.Second+maxWait)
		cancel()
		<-done
	})
}
