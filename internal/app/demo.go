package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/replay"
	"tetracast/internal/sink"
	"tetracast/internal/sink/compact"
	"tetracast/internal/source"
	"tetracast/ledger"
)

// DemoConfig is the configuration of the demo command.
type DemoConfig struct {
	Rate int  // events a second
	Loop bool // until stopped
	All  bool // show every event
}

// AddFlags declares the command's flags.
func (c *DemoConfig) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&c.Rate, "rate", 200, "events a second; 0: as fast as they can be read")
	flags.BoolVar(&c.Loop, "loop", false, "play the recording again and again, until stopped")
	flags.BoolVar(&c.All, "all", false, "show every event; else the first ones of each kind and policy")
}

// Demo plays the built-in recording through the whole path on this machine:
// gRPC on a unix socket, the exporter, UDP on loopback, the collector. It is an
// error if the two accounts do not close.
func Demo(ctx context.Context, c DemoConfig, streams Streams) error {
	folder, err := os.MkdirTemp("", "tetracast-demo-")
	if err != nil {
		return fmt.Errorf("app: making a folder for the socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")

	server, err := replay.New(replay.Config{EventsPerSecond: c.Rate, Loop: c.Loop})
	if err != nil {
		return err
	}
	listener, err := replay.Listen(address)
	if err != nil {
		return err
	}
	shown := &glimpse{all: c.All, next: compact.New(sink.NewLines(streams.Out), compact.Options{Color: isTerminal(streams.Out)})}
	in, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Sink: shown})
	if err != nil {
		return err
	}
	out, err := exporter.NewUDPExporter(exporter.Config{
		Destinations: []exporter.Destination{{Address: in.Addr().String()}},
		Logger:       slog.New(slog.NewTextHandler(streams.Err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	subscription, err := source.New(source.Config{
		ServerAddress: address, ServerAddressFrom: "the demo",
		Connected: func(t source.Tetragon) { out.SetTetragon(exporter.Tetragon{Version: t.Version}) },
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(streams.Err, "Playing real events of a recorded Tetragon: gRPC on %s, then UDP to %s.\n\n", address, in.Addr())

	var running sync.WaitGroup
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = server.Serve(stopping, listener) })
	var collectErr error
	running.Go(func() { collectErr = in.Run(stopping) })
	exportErr := pump(ctx, subscription, out, func(context.Context) {})
	settleTime(in, out)
	stop()
	running.Wait()
	if errors.Is(collectErr, context.Canceled) {
		collectErr = nil
	}

	sent, received := exportAccount(out, subscription), in.Account()
	_ = received.Close() // the verdict is in the account
	if shown.hidden > 0 {
		fmt.Fprintf(streams.Err, "\n... and %d more events, which --all shows.\n", shown.hidden)
	}
	text := received.AppendText(sent.AppendText([]byte{'\n'}))
	err = errors.Join(sent.Check(), received.Check(), ledger.Settle(&sent, &received))
	if err == nil {
		text = fmt.Appendf(text, "Both close: seen %d, of which %d fit no datagram; sent %d, received %d.\n",
			sent.Seen, sent.Streams[0].Dropped[ledger.Oversize], sent.Streams[0].Sent, received.Received)
	}
	_, _ = streams.Err.Write(text)
	return errors.Join(err, exportErr, collectErr)
}

// settleTime gives the collector time to take from its socket what was sent.
func settleTime(in *collector.Collector, out *exporter.UDPExporter) {
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		sent, received := out.Account(), in.Account()
		if received.Received >= sent.Streams[0].Sent {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// glimpse shows the first events of each kind and policy, and counts the rest.
type glimpse struct {
	next   sink.Sink
	all    bool
	seen   map[string]int
	batch  sink.Batch
	hidden int
}

// each is how many events of one kind and policy are shown.
const each = 2

// Write shows some of the lines. All of them count as taken.
func (g *glimpse) Write(b *sink.Batch) (lines int, err error) {
	if g.all {
		return g.next.Write(b)
	}
	if g.seen == nil {
		g.seen = map[string]int{}
	}
	g.batch.Reset()
	for i := range b.Len() {
		line := bytes.TrimSuffix(b.Line(i), []byte{'\n'})
		key := sort(line)
		if g.seen[key]++; g.seen[key] > each {
			g.hidden++
			continue
		}
		g.batch.Add(line)
	}
	if g.batch.Len() > 0 {
		if _, err := g.next.Write(&g.batch); err != nil {
			return 0, err
		}
	}
	return b.Len(), nil
}

// Close closes the sink below.
func (g *glimpse) Close() error { return g.next.Close() }

// sort returns the kind of an event and its policy, which the exec and exit
// kinds have none of.
func sort(line []byte) string {
	kind, _, _ := bytes.Cut(line, []byte{':'})
	_, rest, _ := bytes.Cut(line, []byte(`"policy_name":"`))
	policy, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(kind) + string(policy)
}
