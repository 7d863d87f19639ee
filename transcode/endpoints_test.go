package transcode_test

import (
	"fmt"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/transcode"
)

// TestEndpoints: over all recorded events the ends are those that protobuf decodes.
func TestEndpoints(t *testing.T) {
	found := 0
	for _, wire := range recording(t, "sample.binpb.gz") {
		var event tetragon.GetEventsResponse
		if err := proto.Unmarshal(wire, &event); err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, arg := range append(event.GetProcessKprobe().GetArgs(), event.GetProcessTracepoint().GetArgs()...) {
			if s := arg.GetSockArg(); s != nil {
				want = append(want, fmt.Sprint(s.Saddr, s.Daddr, s.Sport, s.Dport))
			}
			if s := arg.GetSkbArg(); s != nil {
				want = append(want, fmt.Sprint(s.Saddr, s.Daddr, s.Sport, s.Dport))
			}
		}
		kind, member := transcode.KindOf(wire)
		transcode.Endpoints(kind, member, func(source, destination []byte, sourcePort, destinationPort uint32) bool {
			got = append(got, fmt.Sprint(string(source), string(destination), sourcePort, destinationPort))
			return false
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%v, want %v of %v", got, want, &event)
		}
		found += len(got)
	}
	if found == 0 {
		t.Error("no recorded event has a socket")
	}
}

// FuzzEndpoints: no bytes make it fail.
func FuzzEndpoints(f *testing.F) {
	f.Fuzz(func(t *testing.T, wire []byte) {
		kind, member := transcode.KindOf(wire)
		transcode.Endpoints(kind, member, func([]byte, []byte, uint32, uint32) bool { return false })
	})
}
