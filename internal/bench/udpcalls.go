package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cilium/tetragon/api/v1/tetragon"

	"tetracast/exporter"
)

// systemCalls counts the system calls that send, of events through the exporter:
// one by one when idle, and under load one by one or many at a time, as a source
// reads them. No two events that follow each other have one size: there is
// nothing to segment.
func systemCalls(ctx context.Context, w io.Writer) error {
	batch := make([][]byte, 64)
	for i := range batch {
		event, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: strings.Repeat("n", 300+10*i)})
		if err != nil {
			return err
		}
		batch[i] = event
	}
	fmt.Fprintln(w, "system calls an event, one event a datagram; goals: 1 when idle, at most 1/16 = 0.0625 under load")
	for _, load := range []struct {
		name   string
		events int
		pause  time.Duration
		batch  int
	}{
		{"idle, one each 200 us", 2000, 200 * time.Microsecond, 1},
		{"load, one by one", 48_000, 0, 1},
		{"load, 64 at a time", 64_000, 0, 64},
	} {
		calls, sent, err := callsOf(ctx, batch, load.events, load.batch, load.pause)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %-21s  %5d calls, %5d events: %.4f\n", load.name, calls, sent, float64(calls)/float64(sent))
	}
	fmt.Fprintln(w)
	return nil
}

// callsOf exports so many events, some of list at a time, to a socket that nobody
// reads.
func callsOf(ctx context.Context, list [][]byte, events, batch int, pause time.Duration) (calls, sent uint64, err error) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = sink.Close() }()
	out, err := exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{{Address: sink.LocalAddr().String()}}})
	if err != nil {
		return 0, 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- out.Run(running) }()
	if err := out.SendMetadataEvent(); err != nil { // not one of the calls that count
		stop()
		return 0, 0, errors.Join(err, <-ended, out.Close())
	}
	before := out.Stats().Sockets[0].Calls
	for done := 0; done < events && ctx.Err() == nil && err == nil; done += batch {
		if pause > 0 {
			time.Sleep(pause)
		}
		at := done % len(list)
		err = out.SendBatch(list[at : at+batch])
	}
	stop() // and Run sends what is queued
	err = errors.Join(err, <-ended, ctx.Err())
	calls, sent = out.Stats().Sockets[0].Calls-before, out.Account().Streams[0].Sent
	return calls, sent, errors.Join(err, out.Close())
}
