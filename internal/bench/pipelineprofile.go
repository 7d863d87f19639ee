package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profile is a CPU profile that is to be taken of a process.
type profile struct {
	path    string
	address string // that the process is to serve profiles on
}

// newProfile names a profile after what is profiled, and looks for a port.
func newProfile(folder, name string) (*profile, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("bench: looking for a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	file := strings.NewReplacer(" ", "-", ",", "", "/", "-per-").Replace(name) + ".pprof"
	return &profile{filepath.Join(folder, file), listener.Addr().String()}, nil
}

// take takes the profile of the window after the process began to send and warmed up.
// Nil takes none.
func (p *profile) take(ctx context.Context, sends <-chan struct{}, warmUp, window time.Duration) <-chan error {
	done := make(chan error, 1)
	if p == nil {
		done <- nil
		return done
	}
	go func() {
		select {
		case <-sends:
		case <-ctx.Done():
			done <- ctx.Err()
			return
		case <-time.After(20 * time.Second):
			done <- nil // measure tells
			return
		}
		if err := sleep(ctx, warmUp); err != nil {
			done <- err
			return
		}
		done <- p.fetch(ctx, window)
	}()
	return done
}

func (p *profile) fetch(ctx context.Context, window time.Duration) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.address, max(1, int(window.Seconds())))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("bench: taking a profile: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	if err == nil {
		err = os.WriteFile(p.path, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("bench: taking a profile: %w", err)
	}
	return nil
}
