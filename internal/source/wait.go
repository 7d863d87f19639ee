package source

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// traceInterval is how often, while nothing is subscribed to, what a Tetragon that begins
// leaves on this host is looked at: a few stat calls.
const traceInterval = 100 * time.Millisecond

// longestWait is the most that passes between two attempts.
func (c *Config) longestWait() time.Duration {
	for _, place := range c.candidates() {
		if place.err == nil && !onThisHost(place.address) {
			return maxWait
		}
	}
	return maxWaitLocal
}

// onThisHost says whether an address is a unix socket or on the loopback.
func onThisHost(address string) bool {
	network, target := split(address)
	if network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// probe returns the error of connecting to a unix socket, which is tried every second: all that a gRPC client does beside costs a hundred times as much.
func (c *Config) probe(ctx context.Context, address string) error {
	network, target := split(address)
	// Over TCP a connection that nobody told of would be one more that Tetragon sends on.
	if c.Dial != nil || network != "unix" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, target)
	if err != nil {
		return err
	}
	return conn.Close()
}

// wait returns nil when it is time for another attempt: after a pause, when there is a
// session to follow, or when Tetragon's info file or a socket is another than before.
func (s *Subscription) wait(ctx context.Context, pause time.Duration) error {
	before := s.config.traces()
	end := time.NewTimer(pause)
	defer end.Stop()
	look := time.NewTicker(traceInterval)
	defer look.Stop()
	if len(before) == 0 || pause < traceInterval {
		look.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.follow:
			return nil
		case <-end.C:
			return nil
		case <-look.C:
			if !slices.Equal(before, s.config.traces()) {
				return nil
			}
		}
	}
}

// trace is what can be seen of a file without opening it; zero: it is not there.
type trace struct {
	inode, device uint64
	changed       int64 // nanoseconds since 1970
}

// traces looks at the info file and the sockets at which Tetragon may be.
func (c *Config) traces() (seen []trace) {
	paths := []string{}
	if c.ServerAddress == "" {
		p := c.Places.withDefaults()
		paths = append(append(paths, p.InfoFile), p.Sockets...)
	} else if path, ok := strings.CutPrefix(c.ServerAddress, "unix://"); ok {
		paths = append(paths, path)
	}
	for _, path := range paths {
		seen = append(seen, traceOf(path))
	}
	return seen
}

func traceOf(path string) trace {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return trace{}
	}
	return trace{stat.Ino, stat.Dev, stat.Ctim.Nano()}
}
