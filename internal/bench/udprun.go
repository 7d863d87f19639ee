package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cilium/tetragon/api/v1/tetragon"

	"tetracast/exporter"
	"tetracast/internal/udp"
)

// latency measures, for single events at a modest rate, the time from the event
// being handed in to its datagram being in the kernel, which are the two ends of
// one call, to a destination that is there and to one whose port is closed.
func latency(ctx context.Context, w io.Writer) error {
	event, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: strings.Repeat("n", 500)})
	if err != nil {
		return err
	}
	open, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { _ = open.Close() }()
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	closedAddress := closed.LocalAddr().String()
	_ = closed.Close()
	fmt.Fprintln(w, "event in to datagram out, wall time, one event each 200 us; goals: p99 under 6 ms, with a dead destination p99.9 under 10 ms")
	for _, d := range []struct{ name, address string }{
		{"receiver", open.LocalAddr().String()}, {"closed port", closedAddress}, {"no such name", "collector.invalid:7514"},
	} {
		out, err := exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{{Address: d.address}}, StatsInterval: -1})
		if err != nil {
			return err
		}
		running, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = out.Run(running) }()
		var times []time.Duration
		for range 10_000 {
			time.Sleep(200 * time.Microsecond)
			begin := time.Now()
			if err := out.SendWire(event); err != nil {
				break
			}
			times = append(times, time.Since(begin))
		}
		stop()
		<-ended
		if err := out.Close(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(w, "  %-13s p50 %v  p99 %v  p99.9 %v\n", d.name, quantile(times, 0.5), quantile(times, 0.99), quantile(times, 0.999))
	}
	fmt.Fprintln(w)
	return nil
}

// lossRun sends datagrams at a rate to a draining listener, once with an
// effective receive buffer of 8 MiB and once with the default of Linux, and
// holds what arrived and what the kernel says it dropped against what was sent.
func lossRun(ctx context.Context, w io.Writer, options UDPOptions) error {
	fmt.Fprintf(w, "%d datagrams of 1000 bytes at %d a second on loopback; goal: 0 lost with 8 MiB, each accounted for with both\n",
		options.Datagrams, options.Rate)
	for _, buffer := range []int{4 << 20, 106496} { // asked for; the kernel doubles
		stealBefore, waitBefore := steal(), waited()
		sent, received, dropped, took, err := lossOnce(ctx, options, buffer)
		if err != nil {
			return err
		}
		verdict := "each accounted for"
		if sent != received+dropped {
			verdict = fmt.Sprintf("%d NOT ACCOUNTED FOR", sent-received-dropped)
		}
		fmt.Fprintf(w, "  buffer %4d KiB: sent %d in %v, received %d, dropped by the socket %d: %s; the machine was stolen %d ms, this process waited %d ms for a processor\n",
			2*buffer>>10, sent, took.Round(time.Millisecond), received, dropped, verdict, steal()-stealBefore, (waited() - waitBefore).Milliseconds())
		if sent != received+dropped {
			return errors.New("bench: datagrams are missing that nobody counted")
		}
	}
	return nil
}

func lossOnce(ctx context.Context, options UDPOptions, buffer int) (sent, received, dropped int64, took time.Duration, err error) {
	l, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: buffer, GRO: udp.Off})
	if err != nil {
		return 0, 0, 0, 0, err
	}
	defer func() { _ = l.Close() }()
	// Paced, a sender that was held up does not catch up in one burst that no
	// buffer takes.
	conn, err := udp.Dial(l.LocalAddr(), udp.Options{GSO: udp.Off, SendBufferBytes: 1 << 20, DatagramsPerSecond: options.Rate})
	if err != nil {
		return 0, 0, 0, 0, err
	}
	defer func() { _ = conn.Close() }()
	var count atomic.Int64
	ended := make(chan error, 1)
	go func() {
		for {
			batch, err := l.Receive()
			count.Add(int64(len(batch)))
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					err = nil
				}
				ended <- err
				return
			}
		}
	}()
	datagrams := make([][]byte, 32)
	for i := range datagrams {
		datagrams[i] = make([]byte, 1000)
	}
	begin := time.Now()
	for sent < int64(options.Datagrams) && ctx.Err() == nil {
		n := min(int64(len(datagrams)), int64(options.Datagrams)-sent)
		taken, err := conn.Send(datagrams[:n])
		sent += int64(taken)
		var paced *udp.SendError
		switch {
		case errors.Is(err, udp.ErrPaced) && errors.As(err, &paced):
			time.Sleep(paced.After)
		case err != nil && !errors.Is(err, udp.ErrWouldBlock):
			return 0, 0, 0, 0, err
		}
	}
	took = time.Since(begin)
	_ = l.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	err = errors.Join(<-ended, ctx.Err())
	return sent, count.Load(), int64(l.Dropped()), took, err
}

// steal returns the milliseconds that the hypervisor gave to others, from
// /proc/stat, in which a tick is 10 ms.
func steal() (ms int64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if fields := strings.Fields(line); len(fields) > 8 {
		ticks, _ := strconv.ParseInt(fields[8], 10, 64)
		ms = ticks * 10
	}
	return ms
}

// waited returns how long the threads of this process were ready to run and had
// no processor, from /proc/self/task/TID/schedstat (sched-stats.rst in the
// kernel's documentation).
func waited() (sum time.Duration) {
	paths, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, path := range paths {
		text, _ := os.ReadFile(path) // of a thread that has just ended: nothing
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			ns, _ := strconv.ParseInt(fields[1], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}
