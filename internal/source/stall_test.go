package source_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"tetracast/internal/source"
)

// line is the end of a pipe whose writes do not wait, as a socket's.
type line struct {
	net.Conn
	queue  chan []byte
	closed chan struct{}
}

func newLine(conn net.Conn) *line {
	l := &line{conn, make(chan []byte, 1000), make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-l.queue:
				_, _ = conn.Write(p)
			case <-l.closed:
				return
			}
		}
	}()
	return l
}

func (l *line) Write(p []byte) (int, error) {
	select {
	case <-l.closed:
		return 0, net.ErrClosed
	default:
	}
	l.queue <- bytes.Clone(p)
	return len(p), nil
}

func (l *line) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return l.Conn.Close()
}

// TestStallFallsBack: a stream that stands still while the server is well is
// given up for grpc-go; a quiet one, or a server that answers nobody, is not.
func TestStallFallsBack(t *testing.T) {
	silent := func(p *peer) { send(p); p.await(func(http2.Frame) bool { return false }) }
	deaf := func(p *peer) { p.deaf = true; silent(p) }
	never := func(p *peer) { p.await(func(http2.Frame) bool { return false }) }
	f := func(name string, lasts time.Duration, fallbacks, messages int, log string, scripts ...script) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			next := inTurn(scripts)
			var serving sync.WaitGroup
			defer serving.Wait()
			var logged bytes.Buffer
			s, err := source.New(source.Config{ServerAddress: "unix:///virtual", Reconnect: true, Guard: true, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
				Dial: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					server := newLine(theirs)
					serving.Go(func() {
						newPeer(server).serve(greet, next)
						time.Sleep(time.Millisecond) // for what is on the way
						_ = server.Close()
					})
					return newLine(ours), nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			defer cancel()
			n := 0
			_ = s.Run(ctx, func(batch [][]byte) { n += len(batch) })
			if stats := s.Stats(); int(stats.Fallbacks) != fallbacks || n != messages || !strings.Contains(logged.String(), log) {
				t.Errorf("%s: %d messages, want %d; stats %+v, want %d fallbacks; log:\n%s", name, n, messages, stats, fallbacks, &logged)
			}
		})
	}
	all := len(texts)
	f("a ping unanswered, by a server that answers others", 50*time.Second, 1, 2*all, "did not answer a ping", deaf, silent)
	f("nothing, while others see events", 70*time.Second, 1, 2*all, "another client saw an event", silent, silent, silent)
	f("nothing for anybody", 3*time.Hour, 0, all, "", silent, never)
	f("nothing for anybody, for a time", 80*time.Second, 0, all+1, "", func(p *peer) {
		send(p)
		p.await(func(f http2.Frame) bool { return f.Header().Type == http2.FramePing }) // after 35 s
		time.Sleep(30 * time.Second)
		p.data(message([]byte("x")))
		never(p)
	}, func(p *peer) {
		time.Sleep(5*time.Second - time.Millisecond)
		send(p)
		never(p)
	}, never)
}
