package framer

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// server is the other end of a pipe, in virtual time.
type server struct {
	*http2.Framer
	conn  net.Conn
	begin time.Time
	pings []time.Duration // when they came
	quiet bool            // does not answer them
}

// virtually opens a call to a server that serves until the connection ends.
func virtually(t *testing.T, ctx context.Context, serve func(*server)) (*server, *Client, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	s := &server{conn: theirs, begin: time.Now()}
	s.Framer = http2.NewFramer(theirs, theirs)
	go serve(s)
	c, err := Open(ctx, ours, new(tetragon.GetEventsRequest), Config{MaxReceiveBytes: 1000})
	return s, c, err
}

// listen takes what the client says, and answers pings.
func (s *server) listen() {
	defer func() { _ = s.conn.Close() }()
	if _, err := s.conn.Read(make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	go func() { _, _ = s.conn.Write(newSession().Bytes()) }()
	for {
		f, err := s.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
			s.pings = append(s.pings, time.Since(s.begin))
			if !s.quiet {
				_ = s.WritePing(true, ping.Data)
			}
		}
	}
}

// TestSilence: a server that has nothing to say and answers pings is left alone,
// for hours, with pings no closer than grpc-go servers allow.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		s, c, err := virtually(t, ctx, (*server).listen)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Next()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("after three hours: %v", err)
		}
		c.Close()
		synctest.Wait()
		if n := len(s.pings); n < 30 || n > 40 {
			t.Errorf("%d pings in three hours", n)
		}
		for i := 1; i < len(s.pings); i++ {
			if gap := s.pings[i] - s.pings[i-1]; gap < 5*time.Minute {
				t.Errorf("pings %v apart", gap)
			}
		}
	})
}

// TestPingsAreTolerated by a grpc-go server as it comes, which nobody can ask to
// be patient.
func TestPingsAreTolerated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		conn := eager(theirs)
		listener := &oneConn{conn: conn, closed: make(chan struct{})}
		quiet := new(quietTetragon)
		server := grpc.NewServer()
		tetragon.RegisterFineGuidanceSensorsServer(server, quiet)
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Hour+time.Minute)
		defer cancel()
		c, err := Open(ctx, ours, new(tetragon.GetEventsRequest), Config{MaxReceiveBytes: 1000})
		events := 0
		for err == nil {
			var batch [][]byte
			batch, err = c.Next()
			events += len(batch)
		}
		if status.Code(err) != codes.DeadlineExceeded || events != 12 {
			t.Errorf("%d events in twelve hours, and %v", events, err)
		}
		if c != nil {
			c.Close()
		}
		server.Stop()
		<-served
		close(conn.queue)
	})
}

// quietTetragon has an event an hour.
type quietTetragon struct {
	tetragon.UnimplementedFineGuidanceSensorsServer
}

func (*quietTetragon) GetEvents(_ *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	for {
		select {
		case <-time.After(time.Hour):
		case <-stream.Context().Done():
			return stream.Context().Err() // it has the client's deadline, and may be first
		}
		if err := stream.Send(new(tetragon.GetEventsResponse)); err != nil {
			return err
		}
	}
}

// buffered is the end of a pipe whose writes do not wait, as a socket's.
type buffered struct {
	net.Conn
	queue chan []byte
}

func eager(conn net.Conn) buffered {
	b := buffered{conn, make(chan []byte, 100)}
	go func() {
		for p := range b.queue {
			_, _ = conn.Write(p)
		}
	}()
	return b
}

func (b buffered) Write(p []byte) (int, error) {
	b.queue <- bytes.Clone(p)
	return len(p), nil
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	close(l.closed)
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestStalls: each way in which a server can be connected and absent ends within
// its time, and not before.
func TestStalls(t *testing.T) {
	f := func(name string, serve func(*server), least, most time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			_, c, err := virtually(t, t.Context(), serve)
			for err == nil {
				_, err = c.Next()
			}
			if took := time.Since(begin); !errors.Is(err, ErrStalled) || status.Code(err) != codes.Unavailable || took < least || took > most {
				t.Errorf("%s: %v after %v, want a stall after %v to %v", name, err, took, least, most)
			}
			if c != nil {
				c.Close()
			}
		})
	}
	f("says nothing", func(s *server) {
		for buf := make([]byte, 1000); ; {
			if _, err := s.conn.Read(buf); err != nil {
				return
			}
		}
	}, handshakeTimeout, handshakeTimeout)
	f("answers no ping", func(s *server) { s.quiet = true; s.listen() }, pingAfter+2*pingWait, pingAfter+handshakeTimeout+2*pingWait)
	f("reads nothing", func(s *server) {}, writeTimeout, writeTimeout)
	f("stops reading", func(s *server) {
		_, _ = s.conn.Read(make([]byte, 10_000))
		_, _ = s.conn.Write(newSession().Bytes())
	}, writeTimeout, writeTimeout)
}

// TestSlowTaker: who takes an hour for a batch comes back to deadlines that have
// passed, and to a connection that is fine.
func TestSlowTaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, err := virtually(t, t.Context(), (*server).listen)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			head := newSession()
			head.Reset()
			_, _ = s.conn.Write(head.answer().messages(100, 1).Bytes())
			for range 5 {
				head.Reset()
				_, _ = s.conn.Write(head.messages(100, 1).Bytes())
			}
			head.Reset()
			_, _ = s.conn.Write(head.end().Bytes())
		}()
		n := 0
		for {
			batch, err := c.Next()
			if err != nil {
				if n != 6 || !errors.Is(err, errEnd) {
					t.Errorf("%d messages, %v", n, err)
				}
				break
			}
			n += len(batch)
			time.Sleep(time.Hour)
		}
		c.Close()
	})
}

// TestCause: a call that is cancelled with a cause ends with it, at once.
func TestCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, c, err := virtually(t, ctx, (*server).listen)
		if err != nil {
			t.Fatal(err)
		}
		begin, cause := time.Now(), errors.New("somebody saw an event")
		time.AfterFunc(7*time.Second, func() { cancel(cause) })
		if _, err := c.Next(); err != cause || time.Since(begin) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		c.Close()
	})
}
