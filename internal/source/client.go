package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	// GetInfo's configuration is a list of Any; these types have to be known.
	_ "google.golang.org/protobuf/types/known/structpb"
)

// answerTimeout bounds the wait for GetVersion and GetInfo at one place.
const answerTimeout = 5 * time.Second

// split takes an address apart.
func split(address string) (network, target string) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return "unix", path
	}
	return "tcp", address
}

// dial opens a connection as the configuration says.
func (c *Config) dial(ctx context.Context, network, target string) (net.Conn, error) {
	dial := new(net.Dialer).DialContext
	if c.Dial != nil {
		dial = c.Dial
	}
	conn, err := dial(ctx, network, target)
	if err != nil {
		return nil, err
	}
	return c.opened(conn), nil
}

// connection is a place where Tetragon answered.
type connection struct {
	grpc    *grpc.ClientConn
	dialing dialed
}

// connect opens a connection to one place. Nothing is sent before the first
// call.
func (c *Config) connect(address string) (*connection, error) {
	network, target := split(address)
	transport := insecure.NewCredentials()
	if c.TLS != nil && network != "unix" {
		config, err := c.TLS()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	conn := new(connection)
	// passthrough: the name is resolved by the dialer, anew at each attempt.
	client, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(c.MaxReceiveBytes)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			raw, err := c.dial(ctx, network, target)
			conn.dialing.set(raw, err)
			return raw, err
		}))
	if err != nil {
		return nil, fmt.Errorf("source: address %q: %w", address, err)
	}
	conn.grpc = client
	return conn, nil
}

// close ends the connection. Its only error says that it was closed before.
func (c *connection) close() { _ = c.grpc.Close() }

// version asks GetVersion. It fails at once where nobody listens.
func (c *connection) version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := tetragon.NewFineGuidanceSensorsClient(c.grpc).GetVersion(ctx, &tetragon.GetVersionRequest{})
	if err != nil {
		// grpc flattens the dialer's error into text; the dialer kept it.
		if dialErr := c.dialing.failure(); dialErr != nil {
			return "", dialErr
		}
		return "", err
	}
	return answer.GetVersion(), nil
}

// info asks GetInfo, which Tetragon has since 1.7; nil before.
func (c *connection) info(ctx context.Context) (*tetragon.GetInfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := tetragon.NewFineGuidanceSensorsClient(c.grpc).GetInfo(ctx, &tetragon.GetInfoRequest{})
	if status.Code(err) == codes.Unimplemented {
		return nil, nil
	}
	return answer, err
}

// configOf flattens the configuration that GetInfo tells; values that are no
// text become protobuf's text form.
func configOf(info *tetragon.GetInfoResponse) map[string]string {
	conf := map[string]string{}
	for _, entry := range info.GetConf() {
		value, err := entry.GetValue().UnmarshalNew()
		if err != nil {
			continue // a type of a newer Tetragon
		}
		if text, ok := value.(*wrapperspb.StringValue); ok {
			conf[entry.GetKey()] = text.GetValue()
		} else {
			conf[entry.GetKey()] = fmt.Sprint(value)
		}
	}
	return conf
}

// events opens the subscription.
func (c *connection) events(ctx context.Context, request *tetragon.GetEventsRequest) (grpc.ClientStream, error) {
	stream, err := c.grpc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		tetragon.FineGuidanceSensors_GetEvents_FullMethodName, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(request); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

// rawMessage is a message as it came off the wire. It holds grpc's buffers
// until release.
type rawMessage struct {
	buffers mem.BufferSlice
	whole   mem.Buffer // the buffers joined, if there was more than one
	bytes   []byte
}

func (m *rawMessage) release() {
	if m.whole != nil {
		m.whole.Free()
		m.whole = nil
	}
	m.buffers.Free()
	m.buffers, m.bytes = nil, nil
}

// rawCodec hands message bytes on without decoding them. A message that came in
// one buffer is not copied.
type rawCodec struct{}

// Name is proto: the bytes are what a server of that codec sends.
func (rawCodec) Name() string { return "proto" }

// Marshal marshals the request.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("source: marshalling a %T", v)
	}
	wire, err := proto.Marshal(message)
	return mem.BufferSlice{mem.SliceBuffer(wire)}, err
}

// Unmarshal keeps a reference to the buffers.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(*rawMessage)
	if !ok {
		return fmt.Errorf("source: unmarshalling into a %T", v)
	}
	data.Ref()
	message.buffers = data
	switch len(data) {
	case 0:
		message.bytes = nil
	case 1:
		message.bytes = data[0].ReadOnlyData()
	default:
		message.whole = data.MaterializeToBuffer(mem.DefaultBufferPool())
		message.bytes = message.whole.ReadOnlyData()
	}
	return nil
}

// dialed keeps what became of the last dialling: an error, or the ends of a connection
// over TCP.
type dialed struct {
	mu   sync.Mutex
	err  error
	ends ends
}

func (d *dialed) set(conn net.Conn, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err = err; err == nil {
		d.ends = endsOf(conn)
	}
}

func (d *dialed) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *dialed) over() ends {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ends
}
