package replay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	// GetInfo's configuration is a list of Any; these types have to be known.
	_ "google.golang.org/protobuf/types/known/structpb"

	"tetracast/internal/corpus"
	"tetracast/internal/source"
)

// Config says what is served and how. The zero value serves the built-in
// sample to one client, as fast as it reads.
type Config struct {
	// Recording is the path of a recording; empty: the built-in sample.
	Recording string
	// EventsPerSecond paces the events. Zero: as fast as the client reads.
	EventsPerSecond int
	// Loop starts again at the end of the recording, and serves any number of
	// clients. Without it one client is served to the end, and Serve returns.
	Loop bool
	// Version is what GetVersion answers. Empty: that of the recorded Tetragon.
	// Before v1.7 there is no GetInfo.
	Version string
	// Conf overrides what GetInfo tells of Tetragon's flags, by name.
	Conf map[string]string
	// Metrics serves the counters of Tetragon's own losses, under the names of its
	// version, until Serve returns. Nil: none are served.
	Metrics net.Listener
	// Losses is how much each look finds them grown by, by stage.
	Losses map[string]uint64
	// InfoFile is written as Tetragon writes tetragon-info.json. Empty: it is not.
	InfoFile string
	// Faults happen to the streams in turn: the first to the first stream, and
	// so on; streams after the last have none.
	Faults []Fault
	// NotUTF8Every has every so many-th event's control group have a name that is not
	// UTF-8: unless a request leaves its fields out, the stream ends there as gRPC ends it,
	// and the event is lost. Zero: none has.
	NotUTF8Every int
	// Feedback makes an event of each write to a client over TCP, as Tetragon with a policy
	// on tcp_sendmsg does, and of each that [Server.Inject] gets. It goes on when the
	// recording has ended.
	Feedback bool
	// Beside is the unix socket that Tetragon serves beside TCP since v1.8, in plain text,
	// until Serve returns. Nil: there is none.
	Beside net.Listener
	// TLS is used on TCP; nil: plain text.
	TLS credentials.TransportCredentials
	// Logger gets the log. Nil discards it.
	Logger *slog.Logger
}

// Fault is what goes wrong with a stream. A broken stream's successor goes on
// behind the last message that was sent.
type Fault struct {
	// After is the number of messages that are sent before.
	After int
	// Stall is how long nothing comes then.
	Stall time.Duration
	// Break ends the stream with this status; nil: it goes on.
	Break error
}

// Server is a Tetragon that has already seen everything.
type Server struct {
	tetragon.UnimplementedFineGuidanceSensorsServer

	config   Config
	version  *tetragon.GetVersionResponse
	info     *tetragon.GetInfoResponse
	health   *tetragon.GetHealthStatusResponse
	policies *tetragon.ListTracingPoliciesResponse

	request  atomic.Pointer[tetragon.GetEventsRequest]
	streams  atomic.Int64
	sent     atomic.Int64 // messages, over all streams
	position atomic.Int64 // of the recording: sent, and lost with a stream
	feedback feedback
	finished chan struct{} // closed when the one client was served to the end
	once     sync.Once
	damage   error // of the recording, set before finished is closed
	calls    callLog
}

// New checks the configuration and opens the recording once, to see that it is
// one.
func New(config Config) (*Server, error) {
	s := &Server{
		config:   config,
		version:  new(tetragon.GetVersionResponse),
		info:     new(tetragon.GetInfoResponse),
		health:   new(tetragon.GetHealthStatusResponse),
		policies: new(tetragon.ListTracingPoliciesResponse),
		finished: make(chan struct{}),
	}
	if config.EventsPerSecond < 0 {
		return nil, fmt.Errorf("replay: %d events a second, want 0 or more", config.EventsPerSecond)
	}
	if s.config.Logger == nil {
		s.config.Logger = slog.New(slog.DiscardHandler)
	}
	for _, answer := range []struct {
		text []byte
		into proto.Message
	}{{corpus.Version, s.version}, {corpus.Info, s.info}, {corpus.Health, s.health}, {corpus.TracingPolicies, s.policies}} {
		if err := protojson.Unmarshal(answer.text, answer.into); err != nil {
			return nil, fmt.Errorf("replay: reading a recorded answer: %w", err)
		}
	}
	if config.Version != "" {
		s.version.Version, s.info.Version = config.Version, config.Version
	}
	for key, value := range config.Conf {
		if err := s.setConf(key, value); err != nil {
			return nil, err
		}
	}
	recording, err := s.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = recording.Close() }()
	if _, err := recording.Next(); err != nil {
		if err == io.EOF {
			err = fmt.Errorf("the recording is empty: %w", source.ErrNoRecording)
		}
		return nil, fmt.Errorf("replay: %s: %w", config.Recording, err)
	}
	return s, nil
}

// setConf makes GetInfo tell that a flag has this value.
func (s *Server) setConf(key, value string) error {
	packed, err := anypb.New(wrapperspb.String(value))
	if err != nil {
		return fmt.Errorf("replay: flag %s: %w", key, err)
	}
	s.info.Conf = slices.DeleteFunc(s.info.Conf, func(e *tetragon.GetInfoResponse_ConfVal) bool { return e.GetKey() == key })
	s.info.Conf = append(s.info.Conf, &tetragon.GetInfoResponse_ConfVal{Key: key, Value: packed})
	return nil
}

func (s *Server) open() (*source.Recording, error) {
	if s.config.Recording == "" {
		return source.NewRecording(bytes.NewReader(corpus.Sample()))
	}
	return source.OpenRecording(s.config.Recording)
}

// Listen opens unix:///path or host:port. A socket file that is left there is
// replaced if nobody answers on it.
func Listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix://")
	if !isUnix {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("replay: listening on %s: %w", address, err)
		}
		return listener, nil
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("replay: listening on %s: somebody answers there", address)
		}
		_ = os.Remove(path)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("replay: listening on %s: %w", address, err)
	}
	return listener, nil
}

// Serve serves on the listener, which it closes, until ctx ends or, without
// Loop, one client was served to the end.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if s.config.Feedback {
		listener = &feedbackListener{listener, &s.feedback}
	}
	if s.config.Beside != nil {
		plain, served := s.server(nil), make(chan struct{})
		go func() {
			defer close(served)
			_ = plain.Serve(s.config.Beside) // its end is told by Stop
		}()
		defer func() { plain.Stop(); <-served }()
	}
	server := s.server(s.config.TLS)
	if s.config.InfoFile != "" {
		metricsAddress := ""
		if s.config.Metrics != nil {
			metricsAddress = s.config.Metrics.Addr().String()
		}
		address := listener.Addr()
		if s.config.Beside != nil {
			address = s.config.Beside.Addr()
		}
		if err := s.writeInfo(address, metricsAddress); err != nil {
			_ = listener.Close()
			return err
		}
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	if s.config.Metrics != nil {
		serving, stop := context.WithCancel(ctx)
		defer stop()
		beside.Go(func() {
			if err := s.serveMetrics(serving, s.config.Metrics); err != nil {
				s.config.Logger.Error("Metrics are not served any more", "cause", err)
			}
		})
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var err error
	select {
	case err = <-served:
		return fmt.Errorf("replay: serving: %w", err)
	case <-ctx.Done():
		err = ctx.Err()
		server.Stop()
	case <-s.finished:
		// Let the client read the end of its stream, but do not wait for it for
		// ever.
		timer := time.AfterFunc(time.Second, server.Stop)
		server.GracefulStop()
		timer.Stop()
	}
	<-served
	return err
}

// server makes a gRPC server of s.
func (s *Server) server(transport credentials.TransportCredentials) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnaryInterceptor(s.calls.unary),
		grpc.StreamInterceptor(s.calls.stream),
	}
	if transport != nil {
		options = append(options, grpc.Creds(transport))
	}
	server := grpc.NewServer(options...)
	tetragon.RegisterFineGuidanceSensorsServer(server, s)
	return server
}

// Damage returns, after Serve, what was wrong with the recording: the client
// got all that came before it.
func (s *Server) Damage() error {
	select {
	case <-s.finished:
		return s.damage
	default:
		return nil
	}
}

// Sent returns the number of messages sent so far, over all streams.
func (s *Server) Sent() int64 { return s.sent.Load() }

// Request returns the last request for events, or nil.
func (s *Server) Request() *tetragon.GetEventsRequest { return s.request.Load() }

// Calls returns the full names of the methods that clients called, each once.
func (s *Server) Calls() []string { return s.calls.names() }

// GetVersion answers with the version that is played.
func (s *Server) GetVersion(context.Context, *tetragon.GetVersionRequest) (*tetragon.GetVersionResponse, error) {
	return s.version, nil
}

// GetInfo answers as the recorded Tetragon did, or not at all before v1.7.
func (s *Server) GetInfo(context.Context, *tetragon.GetInfoRequest) (*tetragon.GetInfoResponse, error) {
	if before(s.version.Version, 7) {
		return nil, status.Error(codes.Unimplemented, "unknown method GetInfo for service tetragon.FineGuidanceSensors")
	}
	return s.info, nil
}

// GetHealth answers as the recorded Tetragon did.
func (s *Server) GetHealth(context.Context, *tetragon.GetHealthStatusRequest) (*tetragon.GetHealthStatusResponse, error) {
	return s.health, nil
}

// ListTracingPolicies answers as the recorded Tetragon did.
func (s *Server) ListTracingPolicies(context.Context, *tetragon.ListTracingPoliciesRequest) (*tetragon.ListTracingPoliciesResponse, error) {
	return s.policies, nil
}

// before says whether a version is older than 1.minor; an unknown one is not.
func before(version string, minor int) bool {
	var gotMajor, gotMinor int
	if n, _ := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &gotMajor, &gotMinor); n < 2 {
		return false
	}
	return gotMajor < 1 || gotMajor == 1 && gotMinor < minor
}

// GetEvents plays the recording.
func (s *Server) GetEvents(request *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	s.request.Store(request)
	var fault Fault
	if n := int(s.streams.Add(1)) - 1; n < len(s.config.Faults) {
		fault = s.config.Faults[n]
	} else {
		fault.After = -1
	}
	s.config.Logger.Info("A client subscribed")
	var events <-chan felt
	if s.config.Feedback {
		joined, leave := s.feedback.join()
		defer leave()
		events = joined
	}
	pace := newPacer(s.config.EventsPerSecond)
	skip := s.position.Load() // what earlier streams sent, unless everybody gets everything
	if s.config.Loop {
		skip = 0
	}
	for sent := 0; ; skip = 0 {
		recording, err := s.open()
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		err = s.play(stream, request, recording, pace, &sent, skip, &fault)
		_ = recording.Close()
		if err == io.EOF && s.config.Loop {
			continue
		}
		if err == io.EOF && s.config.Feedback {
			return playFelt(stream, request, events, &s.sent)
		}
		if err == io.EOF {
			s.once.Do(func() { close(s.finished) })
			return nil
		}
		return err
	}
}

// play sends the recording once, without its first skip messages.
func (s *Server) play(stream grpc.ServerStream, request *tetragon.GetEventsRequest, recording *source.Recording, pace *pacer, sent *int, skip int64, fault *Fault) error {
	for i := int64(0); ; i++ {
		message, err := recording.Next()
		if err == io.EOF {
			return io.EOF
		}
		if err != nil {
			s.once.Do(func() { s.damage = err; close(s.finished) })
			return status.Error(codes.DataLoss, err.Error())
		}
		if i < skip {
			continue
		}
		if *sent == fault.After {
			if err := misbehave(stream.Context(), fault); err != nil {
				return err
			}
		}
		if err := pace.wait(stream.Context()); err != nil {
			return status.FromContextError(err).Err()
		}
		if n := s.config.NotUTF8Every; n > 0 && (i+1)%int64(n) == 0 && !leavesOutContainers(request) {
			s.position.Add(1)
			return status.Error(codes.Internal, "grpc: error while marshaling: string field contains invalid UTF-8")
		}
		// grpc keeps the bytes until they are written, the recording does not.
		if err := stream.SendMsg(wireMessage(bytes.Clone(message))); err != nil {
			return err
		}
		*sent++
		s.sent.Add(1)
		s.position.Add(1)
	}
}

// leavesOutContainers says whether a request asks for events without the fields that hold
// a control group's name.
func leavesOutContainers(request *tetragon.GetEventsRequest) bool {
	for _, f := range request.GetFieldFilters() {
		paths := f.GetFields().GetPaths()
		if f.GetAction() == tetragon.FieldFilterAction_EXCLUDE && len(f.GetEventSet()) == 0 &&
			slices.Contains(paths, "process.docker") && slices.Contains(paths, "parent.docker") && slices.Contains(paths, "ancestors.docker") {
			return true
		}
	}
	return false
}

// misbehave does once what the fault says.
func misbehave(ctx context.Context, fault *Fault) error {
	once := *fault
	fault.After = -1
	select {
	case <-time.After(once.Stall):
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	return once.Break
}

// wireMessage is a message in its marshalled form.
type wireMessage []byte

// codec is protobuf's, but sends a wireMessage as it is.
type codec struct{}

// Name is the name of the codec that clients ask for.
func (codec) Name() string { return "proto" }

// Marshal marshals an answer.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case wireMessage:
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	case proto.Message:
		wire, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(wire)}, err
	}
	return nil, fmt.Errorf("replay: marshalling a %T", v)
}

// Unmarshal unmarshals a request.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("replay: unmarshalling into a %T", v)
	}
	return proto.Unmarshal(data.Materialize(), m)
}
