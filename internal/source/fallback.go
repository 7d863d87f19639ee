package source

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"tetracast/internal/source/framer"
)

// GRPCClient names the client that receives the events. All other calls are
// grpc-go's.
type GRPCClient string

const (
	// ClientAuto is the framer where there is no TLS, and grpc-go for the rest of
	// the process once the framer failed for a reason that may be its own.
	ClientAuto GRPCClient = "auto"
	// ClientFramer is the narrow client of package framer, whatever happens.
	ClientFramer GRPCClient = "framer"
	// ClientGRPCGo is grpc-go with a codec that decodes nothing.
	ClientGRPCGo GRPCClient = "grpc-go"
)

// ErrClient: there is no such client, or it cannot do what is wanted.
var ErrClient = errors.New("source: gRPC client")

// check refuses what cannot be. Empty is auto.
func (g GRPCClient) check(overTLS bool) error {
	switch g {
	case "", ClientAuto, ClientGRPCGo:
		return nil
	case ClientFramer:
		if overTLS {
			return fmt.Errorf("%w: the framer speaks no TLS", ErrClient)
		}
		return nil
	}
	return fmt.Errorf("%w %q, want %s, %s or %s", ErrClient, string(g), ClientAuto, ClientFramer, ClientGRPCGo)
}

// framed says whether the framer is to be tried at an address.
func (s *Subscription) framed(address string) bool {
	network, _ := split(address)
	return s.config.GRPCClient != ClientGRPCGo && !s.fellBack.Load() && (network == "unix" || s.config.TLS == nil)
}

// fallBack decides, when a subscription ended or was not made, whether the
// framer is to blame, and if it may be goes on with grpc-go for the rest of the
// process. A server that answers nobody is no reason to.
func (s *Subscription) fallBack(ctx context.Context, from Tetragon, cause error) bool {
	if from.Client != ClientFramer || s.config.GRPCClient == ClientFramer || ctx.Err() != nil {
		return false
	}
	stalled := errors.Is(cause, framer.ErrStalled) && s.answers(ctx, from.Address)
	if !stalled && !errors.Is(cause, framer.ErrProtocol) {
		return false
	}
	s.fellBack.Store(true)
	s.log.Warn("The framer, one of two gRPC clients, met a fault that may be its own: grpc-go, the other one, receives the events from now on",
		"cause", cause, "address", from.Address, "tetragon_version", from.Version)
	return true
}

// openFramer subscribes with the framer, over a connection of its own, and completes t.
func (s *Subscription) openFramer(ctx context.Context, t *Tetragon) (*framerSession, error) {
	address := t.Address
	network, target := split(address)
	dialing, cancel := context.WithTimeout(ctx, answerTimeout)
	conn, err := s.config.dial(dialing, network, target)
	cancel()
	if err != nil {
		return nil, err
	}
	config := framer.Config{UserAgent: "tetracast", MaxReceiveBytes: s.config.MaxReceiveBytes}
	if network != "unix" {
		config.Authority = target
	}
	request := s.request(t, endsOf(conn))
	ctx, end := context.WithCancelCause(ctx)
	client, err := framer.Open(ctx, conn, request, config)
	if err != nil {
		end(nil)
		return nil, err
	}
	session := &framerSession{client: client, end: end}
	if s.config.Guard {
		session.guarding.Go(func() {
			guard(ctx, client.Batches, func() bool { return s.twin(ctx, address, request) }, end)
		})
	}
	return session, nil
}

// framerSession is the session of the framer.
type framerSession struct {
	client   *framer.Client
	end      context.CancelCauseFunc
	guarding sync.WaitGroup
}

func (s *framerSession) next() ([][]byte, error) { return s.client.Next() }

func (s *framerSession) close() {
	s.client.Close()
	s.end(nil)
	s.guarding.Wait()
}
