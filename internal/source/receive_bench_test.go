package source_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tetracast/internal/corpus"
	"tetracast/internal/replay"
	"tetracast/internal/source"
)

// serveAs asks a test binary to serve a recording: socket, recording, and events a
// second.
const serveAs = "TETRACAST_TEST_SERVE"

// TestServeForBenchmark is the server process of BenchmarkReceive.
func TestServeForBenchmark(t *testing.T) {
	var socket, recording string
	var rate int
	if n, _ := fmt.Sscan(os.Getenv(serveAs), &socket, &recording, &rate); n != 3 {
		t.Skip("not asked to serve")
	}
	server, err := replay.New(replay.Config{Recording: recording, Loop: true, EventsPerSecond: rate})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := replay.Listen("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		cancel()
	}()
	_ = server.Serve(ctx, listener)
}

// serveElsewhere serves a recording in another process.
func serveElsewhere(b *testing.B, recording string, rate int) (socket string) {
	b.Helper()
	socket = filepath.Join(b.TempDir(), "t.sock")
	server := exec.Command(os.Args[0], "-test.run=^TestServeForBenchmark$")
	server.Env = append(os.Environ(), serveAs+"="+socket+" "+recording+" "+strconv.Itoa(rate))
	stdin, err := server.StdinPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = server.Wait()
	})
	for range 1000 {
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("the server did not come")
	return ""
}

// cut writes the recorded events from first to last to a file.
func cut(b *testing.B, first, last int) string {
	b.Helper()
	where, ok := corpus.Path("events.binpb.zst")
	if !ok {
		b.Skip("SKIPPED: the large recordings are not there")
	}
	all, err := source.OpenRecording(where)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = all.Close() }()
	var out []byte
	for i := 0; i <= last; i++ {
		message, err := all.Next()
		if err != nil {
			b.Fatal(err)
		}
		if i >= first {
			out = append(binary.AppendUvarint(out, uint64(len(message))), message...)
		}
	}
	path := filepath.Join(b.TempDir(), "r.binpb")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// receiver receives from a socket and says how many came, until ctx ends.
type receiver struct {
	name string
	run  func(ctx context.Context, socket string, came func(n int)) error
}

var receivers = []receiver{
	{"floor", receiveFloor},
	{"framer", subscribeWith(source.ClientFramer)},
	{"net-framer", receiveNetFramer},
	{"grpc-go-raw", subscribeWith(source.ClientGRPCGo)},
	{"grpc-go-typed", receiveTyped},
}

func subscribeWith(client source.GRPCClient) func(context.Context, string, func(int)) error {
	return func(ctx context.Context, socket string, came func(int)) error {
		s, err := source.New(source.Config{ServerAddress: "unix://" + socket, GRPCClient: client})
		if err != nil {
			return err
		}
		return s.Run(ctx, func(batch [][]byte) { came(len(batch)) })
	}
}

func receiveTyped(ctx context.Context, socket string, came func(int)) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := tetragon.NewFineGuidanceSensorsClient(conn).GetEvents(ctx, &tetragon.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		came(1)
	}
}

// ask makes the call by hand, with windows that do not end.
func ask(ctx context.Context, socket string) (net.Conn, *http2.Framer, func(), error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, bufio.NewReaderSize(conn, 128<<10))
	framer.SetReuseFrames()
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = framer.WriteWindowUpdate(0, 1<<31-1-65535)
	var block writer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", tetragon.FineGuidanceSensors_GetEvents_FullMethodName},
		{":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
	_ = framer.WriteData(1, true, make([]byte, 5))
	return conn, framer, func() { stop(); _ = conn.Close() }, nil
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// receiveFloor reads the same bytes off the same socket, counts frames that end a
// message, and understands nothing.
func receiveFloor(ctx context.Context, socket string, came func(int)) error {
	conn, framer, done, err := ask(ctx, socket)
	if err != nil {
		return err
	}
	defer done()
	buf := make([]byte, 128<<10)
	have, credit := 0, 0
	for {
		n, err := conn.Read(buf[have:])
		if err != nil {
			return err
		}
		if credit += n; credit >= 1<<30 {
			_ = framer.WriteWindowUpdate(0, uint32(credit))
			_ = framer.WriteWindowUpdate(1, uint32(credit))
			credit = 0
		}
		have += n
		events, at := 0, 0
		for have-at >= 9 {
			length := int(buf[at])<<16 | int(buf[at+1])<<8 | int(buf[at+2])
			if at+9+length > have {
				break
			}
			if buf[at+3] == byte(http2.FrameData) && length < 16384 {
				events++ // a full frame is not the last of its message
			}
			at += 9 + length
		}
		have = copy(buf, buf[at:have])
		came(events)
	}
}

// receiveNetFramer is what Framer makes of it when it reads the DATA too.
func receiveNetFramer(ctx context.Context, socket string, came func(int)) error {
	_, framer, done, err := ask(ctx, socket)
	if err != nil {
		return err
	}
	defer done()
	var message []byte
	credit := 0
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		data, ok := frame.(*http2.DataFrame)
		if !ok {
			continue
		}
		if credit += len(data.Data()); credit >= 1<<30 {
			_ = framer.WriteWindowUpdate(0, uint32(credit))
			_ = framer.WriteWindowUpdate(1, uint32(credit))
			credit = 0
		}
		payload := data.Data()
		if len(message) > 0 || 5+int(binary.BigEndian.Uint32(payload[1:])) > len(payload) {
			message = append(message, payload...)
			if 5+int(binary.BigEndian.Uint32(message[1:])) > len(message) {
				continue
			}
			message = message[:0]
		}
		came(1)
	}
}

// BenchmarkReceive: what it costs the client's process, all its threads, user and
// system, to have an event, from a server in another process over a unix socket.
func BenchmarkReceive(b *testing.B) {
	for _, recording := range []struct {
		name        string
		first, last int
	}{{"a", 0, 15809}, {"b", 15810, 24641}} {
		b.Run("recording="+recording.name, func(b *testing.B) {
			path := cut(b, recording.first, recording.last)
			for _, rate := range []int{0, 20_000, 1_000} {
				b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
					for _, r := range receivers {
						b.Run(r.name, func(b *testing.B) { receive(b, r, serveElsewhere(b, path, rate), max(1000, min(rate, 20_000))) })
					}
				})
			}
		})
	}
}

// receive lets so many events be an operation.
func receive(b *testing.B, r receiver, socket string, events int) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	reached := make(chan struct{}, 1)
	count := 0
	var receiving sync.WaitGroup
	receiving.Go(func() {
		err := r.run(ctx, socket, func(n int) {
			if count += n; count >= events {
				count -= events
				select {
				case reached <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
		if ctx.Err() == nil {
			b.Errorf("%s: %v", r.name, err)
			cancel()
		}
	})
	wait := func() {
		select {
		case <-reached:
		case <-ctx.Done():
		}
	}
	wait() // warm
	b.ReportAllocs()
	begin, n := cpu(b), 0
	for b.Loop() {
		wait()
		n += events
	}
	b.ReportMetric(float64(cpu(b)-begin)/float64(n), "cpu-ns/event")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	cancel()
	receiving.Wait()
}

// cpu is the time that this process has used, user and system.
func cpu(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
