package rival

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"golang.org/x/sys/unix"
)

// Config says what a rival does.
type Config struct {
	Kind        string // one of Kinds
	Server      string // unix:///path of a Tetragon
	Destination string // host:port, an IP address
	Account     string // file for the count of events
}

// Kinds are the rivals by name.
var Kinds = []string{"floor", "relay", "typed"}

// maxMessageBytes is the largest message that a rival takes.
const maxMessageBytes = 64 << 20

// Run does the work until the stream or ctx ends.
func Run(ctx context.Context, c Config) error {
	var seen atomic.Uint64
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	defer signal.Stop(asked)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-asked:
				beside := c.Account + ".new"
				if os.WriteFile(beside, fmt.Appendf(nil, "{\"seen\":%d}\n", seen.Load()), 0o600) == nil {
					_ = os.Rename(beside, c.Account)
				}
			}
		}
	}()
	var err error
	switch c.Kind {
	case "typed":
		err = typed(ctx, c, &seen)
	case "relay":
		err = relay(ctx, c, &seen)
	case "floor":
		err = floor(ctx, c, &seen)
	default:
		return fmt.Errorf("rival: %q, want one of %s", c.Kind, strings.Join(slices.Clone(Kinds), ", "))
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func typed(ctx context.Context, c Config, seen *atomic.Uint64) error {
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	out, err := net.Dial("udp", c.Destination)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	stream, err := tetragon.NewFineGuidanceSensorsClient(conn).GetEvents(ctx, &tetragon.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(event)
		if err != nil {
			return err
		}
		_, _ = out.Write(append(text, '\n')) // as everybody does
		seen.Add(1)
	}
}

func relay(ctx context.Context, c Config, seen *atomic.Uint64) error {
	stream, err := subscribe(ctx, c.Server)
	if err != nil {
		return err
	}
	defer stream.close()
	out, err := net.Dial("udp", c.Destination)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	raw, err := out.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	return stream.read(func(batch [][]byte) error {
		err := raw.Control(func(fd uintptr) {
			for _, message := range batch {
				_, _ = unix.Write(int(fd), message) // some are longer than a datagram
			}
		})
		seen.Add(uint64(len(batch)))
		return err
	})
}

var errEnd = errors.New("rival: the stream ended")
