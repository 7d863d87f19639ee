package source

import (
	"context"
	"fmt"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"

	"tetracast/internal/source/framer"
)

// A session of the framer that brings nothing for minSilence is looked after;
// each time that it proves to be in order, twice as late. A twin may see an
// event before the framer does, but not by grace.
const (
	minSilence = 30 * time.Second
	maxSilence = 10 * time.Minute
	grace      = 2 * time.Second
)

// guard ends a session with a cause if it is silent while a twin sees events.
//
// Pings tell whether the connection lives, but not whether the stream does: a
// window that is never opened again looks like a quiet host. So the same
// subscription is made once more, over grpc-go, and waits for one event. Either
// both get it, or the framer has a fault. On a host where nothing happens that
// costs nothing; where little happens, Tetragon sends one event twice, more and
// more rarely.
func guard(ctx context.Context, batches func() uint64, twin func() bool, end context.CancelCauseFunc) {
	for silence := minSilence; ; {
		before := batches()
		if !sleep(ctx, silence) {
			return
		}
		if batches() != before {
			continue
		}
		if twin() && batches() == before && sleep(ctx, grace) && batches() == before {
			end(fmt.Errorf("%w: nothing came for %v, while another client saw an event", framer.ErrStalled, silence))
			return
		}
		silence = min(2*silence, maxSilence)
	}
}

// sleep returns false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// twin subscribes over grpc-go and waits for one event, however long it takes.
// False: the subscription could not be made or broke.
func (c *Config) twin(ctx context.Context, address string, request *tetragon.GetEventsRequest) bool {
	conn, err := c.connect(address)
	if err != nil {
		return false
	}
	defer conn.close()
	stream, err := conn.events(ctx, request)
	if err != nil {
		return false
	}
	session := grpcSession{stream: stream, batch: make([][]byte, 1)}
	_, err = session.next()
	session.message.release()
	return err == nil
}

// answers says whether GetVersion is answered, over grpc-go.
func (c *Config) answers(ctx context.Context, address string) bool {
	conn, err := c.connect(address)
	if err != nil {
		return false
	}
	defer conn.close()
	_, err = conn.version(ctx)
	return err == nil
}
