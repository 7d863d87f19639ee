package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
)

// walk tries all places in their order and subscribes at the first where
// GetVersion answers.
func (s *Subscription) walk(ctx context.Context, want *asked) (session, Tetragon, error) {
	var reasons []string
	for _, place := range s.config.candidates() {
		session, tetragon, err := s.try(ctx, place, want)
		if err == nil {
			return session, tetragon, nil
		}
		if ctx.Err() != nil {
			return nil, Tetragon{}, ctx.Err()
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", place.address, err))
	}
	return nil, Tetragon{}, fmt.Errorf("%w: %s", ErrNotFound, strings.Join(reasons, "; "))
}

// Find subscribes once, as Subscription.Run does at first, ends the subscription and
// returns where it was and with what. The error is that of the attempt.
func Find(ctx context.Context, config Config) (Tetragon, error) {
	s, err := New(config)
	if err != nil {
		return Tetragon{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session, found, err := s.open(ctx, s.asked.Load())
	if err == nil {
		session.close()
	}
	return found, err
}

// try subscribes at one place.
func (s *Subscription) try(ctx context.Context, place candidate, want *asked) (_ session, _ Tetragon, err error) {
	if place.err != nil {
		return nil, Tetragon{}, place.err
	}
	if err := s.config.probe(ctx, place.address); err != nil {
		return nil, Tetragon{}, explain(place.address, err)
	}
	conn, err := s.config.connect(place.address)
	if err != nil {
		return nil, Tetragon{}, err
	}
	defer func() {
		if err != nil {
			conn.close()
		}
	}()
	tetragon := Tetragon{Address: place.address, Why: place.why}
	if tetragon.Version, err = conn.version(ctx); err != nil {
		return nil, Tetragon{}, explain(place.address, err)
	}
	info, err := conn.info(ctx)
	if err != nil {
		return nil, Tetragon{}, fmt.Errorf("asking GetInfo: %w", err)
	}
	if info != nil {
		tetragon.BuildCommit, tetragon.BuildDate = info.GetBuild().GetCommit(), info.GetBuild().GetTime()
		tetragon.Config = configOf(info)
	}
	tetragon.Filters, tetragon.FiltersOrigin, tetragon.FiltersUnknown = s.filtersFor(want, tetragon.Config)
	if s.framed(place.address) {
		tetragon.Client = ClientFramer
		session, err := s.openFramer(ctx, &tetragon)
		if err == nil {
			conn.close() // what it was for is done
			return session, tetragon, nil
		}
		if !s.fallBack(ctx, tetragon, err) {
			return nil, Tetragon{}, fmt.Errorf("asking GetEvents: %w", err)
		}
	}
	tetragon.Client = ClientGRPCGo
	stream, err := conn.events(ctx, s.request(&tetragon, conn.dialing.over()))
	if err != nil {
		return nil, Tetragon{}, fmt.Errorf("asking GetEvents: %w", err)
	}
	return &grpcSession{conn: conn, stream: stream, batch: make([][]byte, 1)}, tetragon, nil
}

// filtersFor decides which filters a subscription asks for, and says where they
// come from; unknown: Tetragon's own were wanted and could not be read.
func (s *Subscription) filtersFor(want *asked, conf map[string]string) (f Filters, origin string, unknown bool) {
	switch {
	case !want.filters.empty():
		return want.filters, "given", false
	case !want.auto:
		return Filters{}, "none, as asked", false
	}
	var err error
	from := "GetInfo"
	switch {
	case conf != nil:
	case s.config.TetragonConfigDir != "":
		from = s.config.TetragonConfigDir
		conf, err = readTetragonConfig(from, s.config.DecodeYAML)
	default:
		err = errors.New("Tetragon before 1.7 does not tell them, and --tetragon-config-dir is not given")
	}
	if err == nil {
		f, err = filtersFromConfig(conf)
	}
	switch {
	case err == nil && f.empty():
		return f, "none, Tetragon's own export has none, says " + from, false
	case err == nil:
		return f, "Tetragon's own export filters, from " + from, false
	}
	if !s.warned.Swap(true) {
		s.log.Warn("The filters of Tetragon's own export cannot be read: all events will come", "error", err)
	}
	return Filters{}, "none, Tetragon's own cannot be read", true
}

// grpcSession is the session of grpc-go. Its batches are of one message.
type grpcSession struct {
	conn    *connection
	stream  grpc.ClientStream
	message rawMessage
	batch   [][]byte
}

func (s *grpcSession) next() ([][]byte, error) {
	s.message.release()
	if err := s.stream.RecvMsg(&s.message); err != nil {
		return nil, err
	}
	s.batch[0] = s.message.bytes
	return s.batch, nil
}

func (s *grpcSession) close() {
	s.message.release()
	s.conn.close()
}
