package exporter

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/transcode"
)

// NewTranscoder returns a transcoder for GetEventsResponse, the one that an
// exporter uses: what it cannot transcode goes to protojson, and an event of an unknown
// kind keeps its bytes. cacheBytes bounds
// its memory of parts it has seen; 0 and less is none.
func NewTranscoder(cacheBytes int) (*transcode.Transcoder, error) {
	program, err := transcode.Compile((*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor())
	if err != nil {
		return nil, fmt.Errorf("exporter: compiling the transcoder: %w", err)
	}
	return program.NewTranscoder(transcode.Options{CacheBytes: cacheBytes, Fallback: appendProtoJSON, Undecoded: true}), nil
}

// appendProtoJSON is the slow twin of the transcoder.
func appendProtoJSON(dst, wire []byte) ([]byte, error) {
	var event tetragon.GetEventsResponse
	if err := proto.Unmarshal(wire, &event); err != nil {
		return dst, err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&event)
	if err != nil {
		return dst, err
	}
	var compact bytes.Buffer // protojson puts in spaces at random
	if err := json.Compact(&compact, text); err != nil {
		return dst, err
	}
	return append(dst, compact.Bytes()...), nil
}
