package exporter

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/tetragon/api/v1/tetragon"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tetracast/metadata"
)

// A UDPExporter is the server side of a GetEvents stream: a build of Tetragon
// hands it to its event server as one more client.
var _ tetragon.FineGuidanceSensors_GetEventsServer = (*UDPExporter)(nil)

// MetadataResponse wraps an agent_init in the message that a client of
// Tetragon's own GetEvents would get: the exec of a process whose binary is
// tetragon_metadata and whose argument is agent_init.
func MetadataResponse(event *metadata.MetadataEvent) *tetragon.GetEventsResponse {
	return &tetragon.GetEventsResponse{
		NodeName: event.Hostname,
		Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{
			Process: &tetragon.Process{
				Pid:       wrapperspb.UInt32(uint32(event.PID)),
				Binary:    "tetragon_metadata",
				Arguments: metadata.EventAgentInit,
			},
		}},
	}
}

// SetHeader does nothing: UDP has no headers. It is part of the interface of a
// GetEvents stream, as are the five methods below.
func (e *UDPExporter) SetHeader(grpcmetadata.MD) error { return nil }

// SendHeader does nothing.
func (e *UDPExporter) SendHeader(grpcmetadata.MD) error { return nil }

// SetTrailer does nothing.
func (e *UDPExporter) SetTrailer(grpcmetadata.MD) {}

// Context returns a context that ends when Run has ended or Close was called,
// upon which an event server takes the exporter from its list.
func (e *UDPExporter) Context() context.Context { return e.serving }

// SendMsg sends m, which must be a *tetragon.GetEventsResponse.
func (e *UDPExporter) SendMsg(m any) error {
	event, ok := m.(*tetragon.GetEventsResponse)
	if !ok {
		return fmt.Errorf("exporter: sending a %T, want a *tetragon.GetEventsResponse", m)
	}
	return e.Send(event)
}

// RecvMsg fails: the client of a server stream has nothing more to say.
func (e *UDPExporter) RecvMsg(any) error {
	return errors.New("exporter: receiving from a destination: UDP has no way back")
}
