package bench

import (
	"bufio"
	"context"
	_ "embed" // for the source in C
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tetracast/internal/udp"
)

//go:embed testdata/udp.c
var udpC []byte

// rivals is the program in C, if there is a compiler to build it.
type rivals struct{ folder, program string }

func buildC(ctx context.Context) (*rivals, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return new(rivals), nil
	}
	folder, err := os.MkdirTemp("", "tetracast-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	r := &rivals{folder: folder, program: filepath.Join(folder, "udp")}
	source := filepath.Join(folder, "udp.c")
	if err := os.WriteFile(source, udpC, 0o600); err != nil {
		r.remove()
		return nil, fmt.Errorf("bench: %w", err)
	}
	if out, err := exec.CommandContext(ctx, compiler, "-O2", "-o", r.program, source).CombinedOutput(); err != nil {
		r.remove()
		return nil, fmt.Errorf("bench: compiling the rivals in C: %w: %s", err, out)
	}
	return r, nil
}

func (r *rivals) there() bool { return r.program != "" }

func (r *rivals) remove() {
	if r.folder != "" {
		_ = os.RemoveAll(r.folder)
	}
}

// sender is a round of sending by the program.
func (r *rivals) sender(ctx context.Context, size, segments, port int) func() (int, time.Duration, error) {
	return func() (int, time.Duration, error) {
		out, err := exec.CommandContext(ctx, r.program, "send", strconv.Itoa(size), strconv.Itoa(segments), "1", strconv.Itoa(port)).Output()
		if err != nil {
			return 0, 0, err
		}
		perDatagram, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		return perRound, time.Duration(perDatagram * perRound), err
	}
}

// receiver starts the program as a receiver that drains its socket when told.
func (r *rivals) receiver(ctx context.Context, name string, datagrams [][]byte) (*contender, func(), error) {
	cmd := exec.CommandContext(ctx, r.program, "recv")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	out := bufio.NewReader(pipe)
	stop := func() { _ = in.Close(); _ = cmd.Wait() }
	var port uint16
	if _, err := fmt.Fscanln(out, &port); err != nil {
		stop()
		return nil, nil, err
	}
	filler, err := newFiller(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), udp.Off)
	if err != nil {
		stop()
		return nil, nil, err
	}
	round := func() (n int, cpu time.Duration, err error) {
		want, err := filler.fill(datagrams)
		if err != nil {
			return 0, 0, err
		}
		var ns float64
		if _, err := io.WriteString(in, "\n"); err != nil {
			return 0, 0, err
		}
		if _, err := fmt.Fscanln(out, &n, &ns); err != nil {
			return 0, 0, err
		}
		if n != want {
			return 0, 0, errors.New("the receive buffer was too small for a round")
		}
		return n, time.Duration(ns), nil
	}
	return &contender{name: name, round: round}, func() { filler.close(); stop() }, nil
}
