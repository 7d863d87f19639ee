package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"tetracast/internal/corpus"
	"tetracast/ledger"
)

// asRival makes this test binary be what everybody writes first: a typed
// client, protojson, and a Write for each event. Its value is the server's
// address and the destination.
const asRival = "TETRACAST_TEST_AS_RIVAL"

func rival(arguments string) error {
	server, destination, _ := strings.Cut(arguments, " ")
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	out, err := net.Dial("udp", destination)
	if err != nil {
		return err
	}
	stream, err := tetragon.NewFineGuidanceSensorsClient(conn).GetEvents(context.Background(), &tetragon.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(event)
		if err != nil {
			return err
		}
		_, _ = out.Write(append(text, '\n')) // as everybody does
	}
}

// BenchmarkExport plays a recording to export and to its rival, as processes,
// and reports the CPU time that each of them used for an event, user and
// system, and what collect used for each event it received.
//
//	go test ./cmd/tetracast -run xxx -bench Export -benchtime 5x
func BenchmarkExport(b *testing.B) {
	recording := ""
	if path, ok := corpus.Path("events.binpb.zst"); ok {
		recording = path
	}
	var ours, theirs, collecting time.Duration
	var events, received uint64
	for b.Loop() {
		// Interleaved, so that the machine's moods meet both.
		usage, account, collect := exportOnce(b, recording)
		ours, events = ours+usage, events+account.Seen
		collecting, received = collecting+cpu(collect.process), received+readJSON[ledger.Collector](b, collect.account).Received
		theirs += rivalOnce(b, recording)
	}
	b.ReportMetric(0, "ns/op")
	perEvent := func(d time.Duration, events uint64) float64 { return float64(d.Nanoseconds()) / float64(events) }
	b.ReportMetric(perEvent(ours, events), "export-cpu-ns/event")
	b.ReportMetric(perEvent(theirs, events), "rival-cpu-ns/event")
	b.ReportMetric(float64(theirs)/float64(ours), "rival/export")
	b.ReportMetric(perEvent(collecting, received), "collect-cpu-ns/event")
	b.ReportMetric(float64(received)/float64(events), "received/seen")
}

func exportOnce(b *testing.B, recording string) (usage time.Duration, account ledger.Exporter, collect collecting) {
	folder := b.TempDir()
	address, path := serveProcess(b, folder, recording), filepath.Join(folder, "export.json")
	collect = startCollect(b)
	export := run(b, "export", "--server-address", address, "--udp-destination", collect.address, "--reconnect=false", "--account", path)
	export.wait(time.Minute)
	time.Sleep(200 * time.Millisecond)
	_ = collect.cmd.Process.Signal(syscall.SIGTERM)
	collect.wait(10 * time.Second)
	return cpu(export), readJSON[ledger.Exporter](b, path), collect
}

func rivalOnce(b *testing.B, recording string) time.Duration {
	address := serveProcess(b, b.TempDir(), recording)
	collect := startCollect(b)
	b.Setenv(asRival, fmt.Sprint(address, " ", collect.address))
	p := run(b, "rival")
	_ = os.Unsetenv(asRival)
	if code := p.wait(time.Minute); code != 0 {
		b.Fatalf("the rival exited with %d", code)
	}
	_ = collect.cmd.Process.Signal(syscall.SIGTERM)
	collect.wait(10 * time.Second)
	return cpu(p)
}

func serveProcess(b *testing.B, folder, recording string) (address string) {
	address = "unix://" + filepath.Join(folder, "tetragon.sock")
	args := []string{"replay", "--server-address", address}
	if recording != "" {
		args = append(args, "--recording", recording)
	}
	run(b, args...).waitLog("Serving")
	return address
}

// cpu returns the time that a process that has ended used, user and system.
func cpu(p *process) time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}
