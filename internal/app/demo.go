package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"tetracast/datagram"
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
// gRPC on a unix socket, the exporter, UDP on loopback, the collector; once as
// one JSON event a datagram, and once in frames. It is an error if the accounts
// do not close.
func Demo(ctx context.Context, c DemoConfig, streams Streams) error {
	shown := &glimpse{all: c.All, next: compact.New(sink.NewLines(streams.Out), compact.Options{Color: isTerminal(streams.Out)})}
	fmt.Fprintf(streams.Err, "Playing real events of a recorded Tetragon: gRPC on a unix socket, then UDP on loopback.\n\n")
	plain, err := playDemo(ctx, c, exporter.Destination{Format: "json"}, shown, streams)
	if shown.hidden > 0 {
		fmt.Fprintf(streams.Err, "\n... and %d more events, which --all shows.\n", shown.hidden)
	}
	_, _ = streams.Err.Write(append([]byte{'\n'}, plain.text...))
	if err != nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(streams.Err, "\nThe same once more in frames of at most %d bytes, compressed:\n\n", datagram.DefaultFrameDatagram)
	c.Rate, c.Loop = 0, false
	frames, err := playDemo(ctx, c, exporter.Destination{Format: "frame", MaxDatagram: datagram.DefaultFrameDatagram, Compression: datagram.CompressionS2},
		sink.NewLines(io.Discard), streams)
	_, _ = streams.Err.Write(frames.text)
	if err != nil || ctx.Err() != nil {
		return err
	}
	p, f := plain.sent.Streams[0], frames.sent.Streams[0]
	if f.Bytes > 0 {
		fmt.Fprintf(streams.Err, "Frames took %d bytes instead of %d (1/%.1f), and %d datagrams instead of %d; and none of the %d events was too long.\nThe dictionary knows these recordings; tetracast bench frame says what it does for others.\n",
			f.Bytes, p.Bytes, float64(p.Bytes)/float64(f.Bytes), f.Datagrams, p.Datagrams, frames.sent.Seen)
	}
	return nil
}

// played is the outcome of one round of the demo.
type played struct {
	sent ledger.Exporter
	text []byte // the accounts of both sides
}

// playDemo plays the recording once to a collector of its own.
func playDemo(ctx context.Context, c DemoConfig, to exporter.Destination, shown sink.Sink, streams Streams) (played, error) {
	folder, err := os.MkdirTemp("", "tetracast-demo-")
	if err != nil {
		return played{}, fmt.Errorf("app: making a folder for the socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")

	server, err := replay.New(replay.Config{EventsPerSecond: c.Rate, Loop: c.Loop})
	if err != nil {
		return played{}, err
	}
	listener, err := replay.Listen(address)
	if err != nil {
		return played{}, err
	}
	in, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Sink: shown, NewTranscoder: newTranscoder})
	if err != nil {
		return played{}, err
	}
	to.Address = in.Addr().String()
	out, err := exporter.NewUDPExporter(exporter.Config{
		Destinations: []exporter.Destination{to},
		Logger:       slog.New(slog.NewTextHandler(streams.Err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return played{}, err
	}
	defer func() { _ = out.Close() }()
	subscription, err := source.New(source.Config{
		ServerAddress: address, ServerAddressFrom: "the demo",
		Connected: func(t source.Tetragon) { out.SetTetragon(exporter.Tetragon{Version: t.Version}) },
	})
	if err != nil {
		return played{}, err
	}

	var running sync.WaitGroup
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = server.Serve(stopping, listener) })
	var collectErr error
	running.Go(func() { collectErr = in.Run(stopping) })
	exportErr := pump(ctx, subscription, giveEvents(ctx, out), out, func(context.Context) {})
	settleTime(in, out)
	stop()
	running.Wait()
	if errors.Is(collectErr, context.Canceled) {
		collectErr = nil
	}

	sent, received := exportAccount(out, lostBefore(subscription, nil)), in.Account()
	_ = received.Close() // the verdict is in the account
	text := received.AppendText(sent.AppendText(nil))
	err = errors.Join(sent.Check(), received.Check(), ledger.Settle(&sent, &received))
	if err == nil {
		text = fmt.Appendf(text, "Both close: seen %d, of which %d were shortened to fit a datagram; sent %d, received %d.\n",
			sent.Seen, sent.Streams[0].Truncated, sent.Streams[0].Sent, received.Received)
	}
	return played{sent: sent, text: text}, errors.Join(err, exportErr, collectErr)
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
