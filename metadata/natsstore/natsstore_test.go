package natsstore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"tetracast/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a store that runs, and what ends it.
type running struct {
	*Store
	t    *testing.T
	once sync.Once
	stop context.CancelFunc
	done chan error
}

func run(t *testing.T, config Config) *running {
	t.Helper()
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Store: s, t: t, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(r.end)
	return r
}

func (r *running) end() {
	r.once.Do(func() {
		r.stop()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			r.t.Errorf("Run ended with %v", err)
		}
	})
}

// alone returns a server without peers.
func alone(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := NewServer(ServerConfig{Dir: dir, Name: "alone"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// within waits until f returns nil: another process's or goroutine's doing has no
// condition to wait on.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func (r *running) put(key, value string) {
	r.t.Helper()
	within(r.t, 30*time.Second, "putting "+key, func() error { return r.Put(r.t.Context(), key, []byte(value)) })
}

// want waits until the key has the value; empty: until it has none.
func (r *running) want(key, value string) {
	r.t.Helper()
	within(r.t, 30*time.Second, "getting "+key, func() error {
		got, err := r.Get(r.t.Context(), key)
		if errors.Is(err, metadata.ErrNotFound) && value == "" || err == nil && string(got) == value {
			return nil
		}
		return fmt.Errorf("it is %q, %w", got, err)
	})
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := run(t, Config{Server: alone(t, dir), Expiry: time.Hour})
	if _, err := s.Get(t.Context(), "stream.1"); err != nil && !errors.Is(err, ErrAway) && !errors.Is(err, metadata.ErrNotFound) {
		t.Errorf("before it runs: %v", err)
	}
	s.put("stream.1", "one")
	s.want("stream.1", "one")
	s.put("stream.1", "two")
	s.want("stream.1", "two")
	s.want("stream.2", "")
	if err := s.Put(t.Context(), "stream.3", make([]byte, metadata.MaxEntry+1)); !errors.Is(err, metadata.ErrBadEntry) {
		t.Errorf("an entry that is too long: %v", err)
	}
	if err := s.Put(t.Context(), "no key", nil); err == nil || errors.Is(err, metadata.ErrBadEntry) {
		t.Errorf("a key that NATS has not: %v", err)
	}
	s.end()
	if err := s.Put(t.Context(), "stream.1", nil); !errors.Is(err, ErrAway) {
		t.Errorf("after the end: %v", err)
	}
	again := run(t, Config{Server: alone(t, dir), Expiry: time.Hour})
	again.want("stream.1", "two")
}

// TestExpiry: an entry that nobody puts again is forgotten; one that is put again
// is not. The bucket of a server of our own takes another expiry with the next
// start.
func TestExpiry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := run(t, Config{Server: alone(t, dir), Expiry: time.Hour})
	s.put("silent", "1")
	s.end()
	s = run(t, Config{Server: alone(t, dir), Expiry: time.Second})
	s.put("heard", "1")
	for range 8 {
		s.put("heard", "1")
		time.Sleep(250 * time.Millisecond)
	}
	s.want("silent", "")
	if _, err := s.Get(t.Context(), "heard"); err != nil {
		t.Errorf("what was put again: %v", err)
	}
	s.want("heard", "")
}

// TestWatch: a watcher sees what is put from then on, of whoever puts it, within a
// second.
func TestWatch(t *testing.T) {
	s := run(t, Config{Server: alone(t, t.TempDir())})
	s.put("before", "0")
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, func(key string, value []byte) { seen <- key + "=" + string(value) })
	}()
	if first := <-seen; first != "=" {
		t.Errorf("seen %s before the store said that it listens", first)
	}
	s.put("ready", "1")
	if first := <-seen; first != "ready=1" {
		t.Errorf("seen %s, which was put before", first)
	}
	var slowest time.Duration
	for i := range 50 {
		want := fmt.Sprintf("key.%d=%d", i, i)
		s.put(fmt.Sprintf("key.%d", i), fmt.Sprint(i))
		begin := time.Now()
		for got := ""; got != want; {
			select {
			case got = <-seen:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s was not seen", want)
			}
		}
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("the slowest of 50 changes was seen after %v", slowest)
	if slowest > time.Second {
		t.Errorf("a change was seen after %v", slowest)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}

// elsewhere is a NATS server that somebody else runs.
func elsewhere(t *testing.T, options server.Options) (stop func()) {
	t.Helper()
	options.NoSigs, options.NoLog, options.JetStream = true, true, true
	s, err := server.NewServer(&options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server is not ready")
	}
	stop = sync.OnceFunc(func() { s.Shutdown(); s.WaitForShutdown() })
	t.Cleanup(stop)
	return stop
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// TestAway: a server that is not there, comes, goes and comes back. While it is
// away a call fails at once.
func TestAway(t *testing.T) {
	t.Parallel()
	port, dir := freePort(t), t.TempDir()
	options := server.Options{Host: "127.0.0.1", Port: port, StoreDir: dir}
	s := run(t, Config{URL: fmt.Sprintf("nats://127.0.0.1:%d", port), Expiry: time.Hour})
	away := func() error {
		if err := s.Put(t.Context(), "a", nil); !errors.Is(err, ErrAway) {
			return fmt.Errorf("Put says %w", err)
		}
		if _, err := s.Get(t.Context(), "a"); !errors.Is(err, ErrAway) {
			return fmt.Errorf("Get says %w", err)
		}
		return nil
	}
	within(t, time.Second, "nobody there yet", away)
	if err := s.Watch(t.Context(), func(string, []byte) {}); !errors.Is(err, ErrAway) {
		t.Errorf("a watch says %v", err)
	}
	stop := elsewhere(t, options)
	s.put("a", "1")
	stop()
	within(t, 20*time.Second, "gone", away)
	begin := time.Now()
	for range 1000 {
		if err := away(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("1000 calls of a store that is away took %v", took)
	}
	elsewhere(t, options)
	s.want("a", "1")
}

// TestSecured: a server that wants TLS of its own authority and a password.
func TestSecured(t *testing.T) {
	t.Parallel()
	secure, err := peerTLS([][ed25519.SeedSize]byte{{1}})
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	elsewhere(t, server.Options{Host: "127.0.0.1", Port: port, StoreDir: t.TempDir(), TLSConfig: secure, TLSVerify: true, TLSTimeout: 5, Username: "u", Password: "p"})
	url := fmt.Sprintf("tls://u:p@127.0.0.1:%d", port)
	good := run(t, Config{URL: url, TLS: secure})
	good.put("a", "1")
	good.want("a", "1")

	var log strings.Builder
	quiet := slog.New(slog.NewTextHandler(&lockedWriter{w: &log}, nil))
	refused := func(config Config) {
		t.Helper()
		config.Log = quiet
		s := run(t, config)
		time.Sleep(500 * time.Millisecond) // several tries to connect
		if err := s.Put(t.Context(), "a", nil); !errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", config.URL, err)
		}
		s.end()
	}
	refused(Config{URL: url})
	stranger, err := peerTLS([][ed25519.SeedSize]byte{{2}})
	if err != nil {
		t.Fatal(err)
	}
	refused(Config{URL: url, TLS: stranger})
	refused(Config{URL: strings.Replace(url, "u:p", "u:wrong", 1), TLS: secure})
	good.want("a", "1")
	if strings.Contains(log.String(), "wrong") {
		t.Errorf("the log tells a password:\n%s", log.String())
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestPeers: three servers are one cluster; what one put the others have, one dies
// and comes back, and who has not the secret is no peer.
func TestPeers(t *testing.T) {
	t.Parallel()
	ports := []int{freePort(t), freePort(t), freePort(t)}
	var peers []string
	for _, port := range ports {
		peers = append(peers, fmt.Sprintf("127.0.0.1:%d", port))
	}
	old, young := [ed25519.SeedSize]byte{1}, [ed25519.SeedSize]byte{2}
	start := func(i int, dir string, secrets ...[ed25519.SeedSize]byte) *running {
		t.Helper()
		s, err := NewServer(ServerConfig{Dir: dir, Name: fmt.Sprint("peer-", i), Listen: peers[i], Peers: peers, Secrets: secrets})
		if err != nil {
			t.Fatal(err)
		}
		return run(t, Config{Server: s, Expiry: time.Hour})
	}
	// In the middle of a rotation.
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	a, b, c := start(0, dirs[0], old, young), start(1, dirs[1], old, young), start(2, dirs[2], young, old)
	a.put("from.a", "1")
	b.put("from.b", "2")
	c.put("from.c", "3")
	for _, s := range []*running{a, b, c} {
		s.want("from.a", "1")
		s.want("from.b", "2")
		s.want("from.c", "3")
	}
	within(t, time.Minute, "three replicas", func() error {
		bucket, err := a.ready()
		if err != nil {
			return err
		}
		status, err := bucket.Status(t.Context())
		if err == nil && status.Config().Replicas != 3 {
			err = fmt.Errorf("%d replicas", status.Config().Replicas)
		}
		return err
	})
	c.end()
	// The port that a cluster's server has for clients lets nobody in.
	client := a.config.Server.running.Load().Addr().String()
	for _, url := range []string{"nats://" + client, "nats://tetracast:guessed@" + client} {
		if conn, err := nats.Connect(url); !errors.Is(err, nats.ErrAuthorization) {
			conn.Close()
			t.Errorf("%s let us in: %v", url, err)
		}
	}
	a.put("without.c", "4")
	b.want("without.c", "4")
	c = start(2, dirs[2], young, old)
	c.want("without.c", "4")
	c.want("from.c", "3")

	// Two of the three stay; the stranger takes the place of the third.
	c.end()
	stranger := start(2, t.TempDir(), [ed25519.SeedSize]byte{3})
	naked := freePort(t)
	s, err := NewServer(ServerConfig{Dir: t.TempDir(), Name: "naked", Listen: fmt.Sprintf("127.0.0.1:%d", naked), Peers: peers[:2]})
	if err != nil {
		t.Fatal(err)
	}
	plain := run(t, Config{Server: s})
	for _, other := range []*running{stranger, plain} {
		within(t, 30*time.Second, "the start of a server", func() error {
			if other.config.Server.running.Load() == nil {
				return errors.New("it does not run yet")
			}
			return nil
		})
	}
	time.Sleep(2 * time.Second) // they try each second
	for _, other := range []*running{stranger, plain} {
		if n := other.config.Server.running.Load().NumRoutes(); n != 0 {
			t.Errorf("who has not the secret has %d routes", n)
		}
		if got, err := other.Get(t.Context(), "from.a"); err == nil {
			t.Errorf("who has not the secret reads %q", got)
		}
	}
	a.want("from.a", "1")
}

func TestConfigErrors(t *testing.T) {
	folder := t.TempDir()
	notCredentials := filepath.Join(folder, "not.creds")
	if err := os.WriteFile(notCredentials, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	bad := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %q", err, want)
		}
	}
	store := func(config Config, want string) {
		t.Helper()
		_, err := New(config)
		bad(err, want)
	}
	store(Config{}, "want a URL or a server")
	store(Config{URL: "http://h"}, `"http://h"`)
	store(Config{URL: "nats://h,nats://"}, `"nats://"`)
	store(Config{URL: "nats://h", CredentialsFile: filepath.Join(folder, "none")}, "no such file")
	store(Config{URL: "nats://h", CredentialsFile: notCredentials}, "holds no credentials")
	store(Config{URL: "nats://h", Expiry: -1}, "negative")
	peers := func(config ServerConfig, want string) {
		t.Helper()
		_, err := NewServer(config)
		bad(err, want)
	}
	good := []string{"127.0.0.1:7517"}
	peers(ServerConfig{}, "folder")
	peers(ServerConfig{Dir: folder, Name: "n", Peers: good}, "address to listen on")
	peers(ServerConfig{Dir: folder, Name: "n", Listen: "127.0.0.1:0", Peers: good}, `"127.0.0.1:0"`)
	peers(ServerConfig{Dir: folder, Name: "n", Listen: "127.0.0.1:7517", Peers: []string{"h"}}, `"h"`)
	peers(ServerConfig{Dir: folder, Name: "n", Listen: taken.Addr().String(), Peers: good}, "address already in use")
	_, err = NewServer(ServerConfig{Dir: folder, Name: "n", Listen: "0.0.0.0:7517", Peers: good})
	if !errors.Is(err, ErrOpenToAll) {
		t.Errorf("a port that is open to all: %v", err)
	}
}

// TestServerFails: a folder that cannot be used ends Run with the reason.
func TestServerFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Server: alone(t, file)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Run with a file as the folder: %v", err)
	}
}

// TestLimitedUser: what docs/metadata-store.md says that a user needs is enough.
func TestLimitedUser(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/metadata-store.md")
	if err != nil {
		t.Fatal(err)
	}
	may := &server.SubjectPermission{}
	for _, subject := range []string{"$KV.tetracast_metadata.>", "$JS.API.STREAM.INFO.KV_tetracast_metadata",
		"$JS.API.DIRECT.GET.KV_tetracast_metadata.>", "$JS.API.CONSUMER.*.KV_tetracast_metadata.>"} {
		if !strings.Contains(string(page), "`"+subject+"`") {
			t.Errorf("the page does not name %s", subject)
		}
		may.Allow = append(may.Allow, subject)
	}
	port := freePort(t)
	elsewhere(t, server.Options{Host: "127.0.0.1", Port: port, StoreDir: t.TempDir(), Users: []*server.User{
		{Username: "admin", Password: "p"},
		{Username: "collect", Password: "p", Permissions: &server.Permissions{Publish: may, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}}}},
	}})
	url := func(user string) string { return fmt.Sprintf("nats://%s:p@127.0.0.1:%d", user, port) }
	limited := run(t, Config{URL: url("collect")})
	time.Sleep(100 * time.Millisecond)
	if err := limited.Put(t.Context(), "a", nil); !errors.Is(err, ErrAway) {
		t.Errorf("without a bucket: %v", err)
	}
	admin := run(t, Config{URL: url("admin"), Expiry: time.Hour})
	admin.put("a", "1")
	limited.want("a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan string, 1000), make(chan error, 1)
	go func() {
		ended <- limited.Watch(ctx, func(key string, value []byte) { seen <- key })
	}()
	within(t, 30*time.Second, "watching", func() error {
		limited.put("b", "2")
		select {
		case <-seen:
			return nil
		case <-time.After(10 * time.Millisecond):
			return errors.New("nothing seen")
		}
	})
	cancel()
	<-ended
}
