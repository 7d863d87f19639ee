package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"tetracast/internal/replay"
)

// StartRow is a time from the start of a process, which the fork is part of.
type StartRow struct {
	Name     string  `json:"name"`
	MedianMS float64 `json:"median_ms"`
	SpreadMS float64 `json:"spread_ms"` // between the quartiles
	LeastMS  float64 `json:"least_ms"`  // which a busy machine disturbs least
	Runs     int     `json:"runs"`      // 0: not measured
	Note     string  `json:"note"`
}

// Flags of export: the file that outlives it, and Tetragon's, by which the former
// is known to hold still.
const (
	cacheFileFlag = "metadata-cache-file"
	infoFileFlag  = "info-file"
)

// measureStart times the real exporter from the start of its process to its first
// agent_init on the wire, with a Tetragon that answers at once.
func measureStart(ctx context.Context, options MetadataOptions) (rows []StartRow, err error) {
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: making a folder for the socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	info := filepath.Join(folder, "tetragon-info.json")
	server, err := replay.New(replay.Config{Loop: true, EventsPerSecond: 10, InfoFile: info})
	if err != nil {
		return nil, err
	}
	listener, err := replay.Listen(address)
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- server.Serve(serving, listener) }()
	defer func() {
		stop()
		if serveErr := <-served; serveErr != nil && !errors.Is(serveErr, context.Canceled) {
			err = errors.Join(err, serveErr)
		}
	}()

	has := func(flag string) bool { return options.ExportHas != nil && options.ExportHas(flag) }
	start := func(cacheFile string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			var args []string
			if has(infoFileFlag) {
				args = append(args, "--"+infoFileFlag, info)
			}
			if has(cacheFileFlag) {
				args = append(args, "--"+cacheFileFlag+"="+cacheFile)
			}
			return timeStart(ctx, options.Program, address, args...)
		}
	}
	cold, warm := start(""), start(filepath.Join(folder, "metadata.cache"))
	floor := func() (time.Duration, error) {
		begin := time.Now()
		out, err := exec.CommandContext(ctx, options.Program, "version").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("bench: running version: %w: %.300s", err, out)
		}
		return time.Since(begin), err
	}
	starts := []struct {
		name, note string
		run        func() (time.Duration, error)
		took       []float64 // ms
	}{
		{name: "floor", note: "a tetracast that does nothing: `tetracast version`, from its start to its end", run: floor},
		{name: "cold", note: "finds Tetragon, asks its version, reads the facts", run: cold},
		{name: "warm", note: "with --" + cacheFileFlag + " of an exporter before it", run: warm},
	}
	if !has(cacheFileFlag) {
		starts[2].run, starts[2].note = nil, "not built: export has no --"+cacheFileFlag
	}
	for i := range options.Rounds + 1 {
		for s := range starts {
			start := &starts[s]
			if start.run == nil {
				continue
			}
			took, err := start.run()
			if err != nil {
				return nil, errors.Join(ctx.Err(), err)
			}
			if i > 0 { // the first one brings the program into memory, and fills the file
				start.took = append(start.took, float64(took)/1e6)
			}
		}
	}
	for _, s := range starts {
		row := StartRow{Name: s.name, Note: s.note, Runs: len(s.took)}
		if row.Runs > 0 {
			row.MedianMS, row.SpreadMS = quantile(s.took, 0.5), quantile(s.took, 0.75)-quantile(s.took, 0.25)
			row.LeastMS = slices.Min(s.took)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// timeStart runs an export until its agent_init has come.
func timeStart(ctx context.Context, program, server string, args ...string) (took time.Duration, err error) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, fmt.Errorf("bench: opening a socket: %w", err)
	}
	defer func() { _ = sink.Close() }()
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, program, append([]string{"export", "--server-address", server,
		"--udp-destination", sink.LocalAddr().String(), "--tetragon-metrics-address="}, args...)...)
	cmd.Stderr = &log
	_ = sink.SetReadDeadline(time.Now().Add(20 * time.Second))
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("bench: starting export: %w", err)
	}
	datagram := make([]byte, 1<<16)
	n, err := sink.Read(datagram)
	took = time.Since(begin)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	waitErr := cmd.Wait()
	if err = errors.Join(err, waitErr); err != nil {
		return 0, fmt.Errorf("bench: export until its first datagram: %w: %s", err, log.Bytes())
	}
	if !bytes.Contains(datagram[:n], []byte(`"event":"agent_init"`)) {
		return 0, fmt.Errorf("bench: the first datagram is no agent_init: %.100q", datagram[:n])
	}
	return took, nil
}
