package source_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tetracast/internal/corpus"
	"tetracast/internal/replay"
	"tetracast/internal/source"
)

// serve plays the sample at an address until it is stopped.
func serve(t testing.TB, address string, config replay.Config) (server *replay.Server, stop func()) {
	t.Helper()
	server, err := replay.New(config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := replay.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ctx, listener) })
	stop = func() { cancel(); serving.Wait() }
	t.Cleanup(stop)
	return server, stop
}

func sample(t testing.TB) (messages [][]byte) {
	t.Helper()
	recording, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	err = recording.Run(context.Background(), func(batch [][]byte) {
		for _, m := range batch {
			messages = append(messages, bytes.Clone(m))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// taker collects messages and tells when so many have come.
type taker struct {
	mu       sync.Mutex
	messages [][]byte
	want     int
	reached  chan struct{}
}

func newTaker(want int) *taker { return &taker{want: want, reached: make(chan struct{})} }

func (k *taker) take(batch [][]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range batch {
		k.messages = append(k.messages, bytes.Clone(m))
		if len(k.messages) == k.want {
			close(k.reached)
		}
	}
}

func (k *taker) wait(t testing.TB) {
	t.Helper()
	select {
	case <-k.reached:
	case <-time.After(30 * time.Second):
		k.mu.Lock()
		defer k.mu.Unlock()
		t.Fatalf("%d of %d messages came", len(k.messages), k.want)
	}
}

func wantSample(t testing.TB, got, want [][]byte) {
	t.Helper()
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%d messages came, and they are not the %d of the recording in order", len(got), len(want))
	}
}

// TestWholeStream: the bytes that were recorded come, in order, and nothing is
// called that could change Tetragon.
func TestWholeStream(t *testing.T) {
	for _, client := range bothClients {
		t.Run(string(client), func(t *testing.T) { wholeStream(t, client) })
	}
}

func wholeStream(t *testing.T, client source.GRPCClient) {
	address := "unix://" + filepath.Join(t.TempDir(), "t.sock")
	server, _ := serve(t, address, replay.Config{})
	var got source.Tetragon
	s, err := source.New(source.Config{ServerAddress: address, AutoFilters: true, GRPCClient: client, Connected: func(found source.Tetragon) { got = found }})
	if err != nil {
		t.Fatal(err)
	}
	k := newTaker(corpus.SampleEvents)
	if err := s.Run(context.Background(), k.take); err != nil {
		t.Fatal(err)
	}
	wantSample(t, k.messages, sample(t))
	if got.Version != "v1.7.0" || got.Config["cluster-name"] != "demo" || got.Address != address || got.Client != client {
		t.Errorf("learnt %+v", got)
	}
	calls := server.Calls()
	slices.Sort(calls)
	const service = "/tetragon.FineGuidanceSensors/"
	if want := []string{service + "GetEvents", service + "GetInfo", service + "GetVersion"}; !slices.Equal(calls, want) {
		t.Errorf("called %v, want %v", calls, want)
	}
}

// TestNoOtherCalls scans the package for calls that the design forbids: only
// those that read are allowed.
func TestNoOtherCalls(t *testing.T) {
	call := regexp.MustCompile(`(?:SensorsClient\(\w+(?:\.\w+)*\)\.|FineGuidanceSensors_)(\w+)`)
	allowed := []string{"GetVersion", "GetInfo", "GetHealth", "ListTracingPolicies", "GetEvents", "GetEvents_FullMethodName"}
	path := regexp.MustCompile(`"/?(?:tetragon\.)?FineGuidanceSensors/?`) // a call by its path
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	framed, err := filepath.Glob("framer/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range slices.Concat(files, framed) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllSubmatch(text, -1) {
			found++
			if !slices.Contains(allowed, string(m[1])) {
				t.Errorf("%s calls %s", name, m[1])
			}
		}
		if m := path.Find(text); m != nil {
			t.Errorf("%s spells a path, %s: this test does not know which", name, m)
		}
	}
	if found < 4 || len(framed) < 3 {
		t.Errorf("found %d calls: the scan sees nothing", found)
	}
}

// TestUpgradeAndRollback: 1.6 on TCP without GetInfo, then 1.7 on a socket with
// an info file, then 1.6 again with the socket and the file left behind. Every
// event comes once, in order.
func TestUpgradeAndRollback(t *testing.T) {
	folder := t.TempDir()
	socket, info := filepath.Join(folder, "tetragon.sock"), filepath.Join(folder, "tetragon-info.json")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := free.Addr().String()
	_ = free.Close()
	var mu sync.Mutex
	var met []string
	var log bytes.Buffer
	s, err := source.New(source.Config{
		Places:      source.Places{InfoFile: info, Sockets: []string{socket}, TCP: tcp},
		AutoFilters: true, Reconnect: true, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Connected: func(found source.Tetragon) {
			mu.Lock()
			defer mu.Unlock()
			met = append(met, found.Version+" "+found.Address)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	events := sample(t)
	k := newTaker(3 * len(events))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, k.take) }()
	count := func() int {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.messages)
	}
	// Each server ends after its one client has everything.
	phase := func(n int, address, version string) (stop func()) {
		_, stop = serve(t, address, replay.Config{Version: version})
		for deadline := time.Now().Add(40 * time.Second); count() < n*len(events); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("phase %d: %d messages came", n, count())
			}
		}
		return stop
	}
	phase(1, tcp, "v1.6.0")()
	if err := os.WriteFile(info, []byte(`{"server_address":"unix://`+socket+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	phase(2, "unix://"+socket, "v1.7.0")()
	// What a killed 1.7 leaves behind: the info file and a socket without a
	// listener.
	left, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = left.Close()
	phase(3, tcp, "v1.6.0")
	cancel()
	<-done
	wantSample(t, k.messages, slices.Concat(events, events, events))
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"v1.6.0 " + tcp, "v1.7.0 unix://" + socket, "v1.6.0 " + tcp}; !slices.Equal(met[:min(3, len(met))], want) {
		t.Errorf("met %v, want %v", met, want)
	}
	if n := strings.Count(log.String(), "cannot be read: all events will come"); n != 1 {
		t.Errorf("%d warnings that 1.6 does not tell its filters", n)
	}
}

// TestBreaks: streams that break in the middle are made again, without an event
// lost or repeated, and each break has its kind.
func TestBreaks(t *testing.T) {
	for _, client := range bothClients {
		t.Run(string(client), func(t *testing.T) { breaks(t, client) })
	}
}

func breaks(t *testing.T, client source.GRPCClient) {
	address := "unix://" + filepath.Join(t.TempDir(), "t.sock")
	serve(t, address, replay.Config{Faults: []replay.Fault{
		{After: 50, Break: status.Error(codes.Internal, "invalid UTF-8")},
		{After: 50, Break: status.Error(codes.Unavailable, "going away")},
		{After: 50, Stall: 100 * time.Millisecond},
	}})
	s, err := source.New(source.Config{ServerAddress: address, Reconnect: true, GRPCClient: client})
	if err != nil {
		t.Fatal(err)
	}
	events := sample(t)
	k := newTaker(len(events))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, k.take) }()
	k.wait(t)
	cancel()
	<-done
	wantSample(t, k.messages, events)
	if stats := s.Stats(); stats.Internal != 1 || stats.Breaks < 2 || stats.BlindTime < 50*time.Millisecond {
		t.Errorf("stats %+v", stats)
	}
}

// TestTooLarge: a message over the limit breaks the stream, and is counted.
func TestTooLarge(t *testing.T) {
	address := "unix://" + filepath.Join(t.TempDir(), "t.sock")
	serve(t, address, replay.Config{})
	for _, client := range bothClients {
		s, err := source.New(source.Config{ServerAddress: address, MaxReceiveBytes: 100_000, GRPCClient: client})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run(context.Background(), func([][]byte) {})
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s, without reconnecting: %v", client, err)
		}
	}
}
