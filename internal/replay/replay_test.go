package replay

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tetracast/internal/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPace: so many events a second, in virtual time, without running ahead by
// more than a millisecond's worth.
func TestPace(t *testing.T) {
	f := func(perSecond int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			p := newPacer(perSecond)
			for range 3 * perSecond {
				if err := p.wait(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			want := 3*time.Second - time.Second/time.Duration(perSecond) // the first one goes at once
			if took := time.Since(begin); took < want-time.Millisecond || took > want+time.Millisecond {
				t.Errorf("%d a second: three seconds' worth took %v, want %v", perSecond, took, want)
			}
		})
	}
	f(1)
	f(10)
	f(1000)
	f(50_000)
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close()
	live, err := Listen("unix://" + path)
	if err != nil {
		t.Fatalf("a socket that nobody listens on: %v", err)
	}
	defer func() { _ = live.Close() }()
	if second, err := Listen("unix://" + path); err == nil {
		_ = second.Close()
		t.Error("took a socket from somebody who listens on it")
	}
	if _, err := Listen("127.0.0.1:99999"); err == nil {
		t.Error("listens on port 99999")
	}
}

func TestNew(t *testing.T) {
	f := func(content string, want error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "r.binpb")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Recording: path}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", content, err, want)
		}
	}
	f("\x02\x0a\x00", nil)
	f("", source.ErrNoRecording)
	f("this is a letter", source.ErrNoRecording)
	if _, err := New(Config{Recording: "/no/such/file"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	if _, err := New(Config{EventsPerSecond: -1}); err == nil {
		t.Error("a negative rate was accepted")
	}
}

func TestBefore17(t *testing.T) {
	f := func(version string, want bool) {
		t.Helper()
		if got := before(version, 7); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
	f("v1.0.0", true)
	f("v1.6.2", true)
	f("v1.7.0", false)
	f("1.7.0-pre.1", false)
	f("v2.0.0", false)
	f("unknown", false)
}

// TestServeEnds when its context does, also with a client in the middle.
func TestServeEnds(t *testing.T) {
	address := "unix://" + filepath.Join(t.TempDir(), "t.sock")
	server, err := New(Config{Loop: true})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	client, err := source.New(source.Config{ServerAddress: address})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	_ = client.Run(context.Background(), func(batch [][]byte) {
		if n += len(batch); n >= 2000 {
			cancel()
		}
	})
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	if n < 2000 {
		t.Errorf("a looping server gave %d events", n)
	}
}
