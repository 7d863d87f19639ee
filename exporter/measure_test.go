package exporter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tetracast/internal/udp"
)

// timedWire is an event of that time.
func timedWire(t *testing.T, at time.Time) []byte {
	t.Helper()
	wire, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: "node-1", Time: timestamppb.New(at)})
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// TestMeasure: samples are few, and the time on the wire is that of the event that was
// sampled, through the queue and a destination that takes nothing for a while.
func TestMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well, ill fakeSocket
		var wire [2][]time.Duration
		transcoded := 0
		e := newTestExporter(t, Config{
			MetadataInterval: -1,
			Destinations:     []Destination{{Address: "127.0.0.1:40000"}, {Address: "127.0.0.1:40001", Format: "ndjson"}},
			Measure: &Measure{
				Wire: func(address, format string, d time.Duration) {
					i := strings.IndexByte("01", address[len(address)-1])
					if want := []string{"json", "ndjson"}[i]; format != want {
						t.Errorf("format %s, want %s", format, want)
					}
					wire[i] = append(wire[i], d)
				},
				Transcode: func(time.Duration) { transcoded++ },
			},
		}, &well, &ill)
		stop := start(t, e)
		send := func(age time.Duration) {
			t.Helper()
			if err := e.SendWire(timedWire(t, time.Now().Add(-age))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(sampleInterval / 5)
		}
		for range 20 {
			send(10 * time.Millisecond)
		}
		if n := len(wire[0]); n != 4 || transcoded != 4 {
			t.Errorf("%d and %d samples of 20 events in four intervals", n, transcoded)
		}
		for i := range wire {
			for _, d := range wire[i] {
				if d < 10*time.Millisecond || d > 10*time.Millisecond+DefaultFlushInterval {
					t.Errorf("destination %d: %v on the wire, want 10ms", i, d)
				}
			}
		}
		ill.setFail(func(int) error { return &udp.SendError{Class: udp.ErrUnreachable} })
		wire = [2][]time.Duration{}
		time.Sleep(time.Second)
		for range 20 {
			send(0)
		}
		if s := e.Stats(); len(wire[0]) == 0 || len(wire[1]) > 0 || !s.Streams[0].Up || s.Streams[1].Up || s.Streams[1].QueueBytes == 0 || s.Streams[1].Errors[3] == 0 {
			t.Errorf("samples %v, %+v", wire, s.Streams)
		}
		ill.setFail(nil)
		time.Sleep(2 * maxAwayWait)
		send(-time.Hour) // a clock that is ahead
		if len(wire[1]) == 0 || wire[1][0] < time.Second {
			t.Errorf("what waited: %v", wire[1])
		}
		if last := wire[0][len(wire[0])-1]; last != 0 {
			t.Errorf("an event from the future: %v", last)
		}
		stop()
		s, a := e.Stats(), e.Account()
		for i := range s.Streams {
			var sum uint64
			for _, n := range s.Streams[i].Sizes {
				sum += n
			}
			if sum != a.Streams[i].Datagrams || s.Streams[i].QueueBytes != 0 || s.Streams[i].OverMTU != 0 {
				t.Errorf("%d datagrams, %+v", a.Streams[i].Datagrams, s.Streams[i])
			}
		}
	})
}

// TestLaneAge: the age of a lane is that of what waits in it, and of nothing it is none.
func TestLaneAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away fakeSocket
		away.setFail(func(int) error { return &udp.SendError{Class: udp.ErrUnreachable} })
		e := newTestExporter(t, Config{}, &away)
		stop := start(t, e)
		lanes := func() [lanes]LaneStats { return e.Stats().Lanes }
		if l := lanes(); l[processLane] != (LaneStats{}) || l[policyLane] != (LaneStats{}) {
			t.Errorf("%+v", l)
		}
		for range 3 { // the first ones are tried, and wait for the destination
			if err := e.SendWire(wire(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		l := lanes()
		waiting := l[processLane].Bytes + l[policyLane].Bytes
		if age := max(l[processLane].Age, l[policyLane].Age); waiting == 0 || age < time.Second || age > 3*time.Second {
			t.Errorf("%+v", l)
		}
		away.setFail(nil)
		time.Sleep(2 * maxAwayWait)
		if l := lanes(); l[processLane] != (LaneStats{}) || l[policyLane] != (LaneStats{}) {
			t.Errorf("when all was sent: %+v", l)
		}
		stop()
	})
}

// TestSizes: each size is counted under the first bound that it does not exceed.
func TestSizes(t *testing.T) {
	for i, bound := range SizeBounds {
		if sizeClass(bound) != i || i > 0 && sizeClass(SizeBounds[i-1]+1) != i {
			t.Errorf("%d bytes: class %d, want %d", bound, sizeClass(bound), i)
		}
	}
	if SizeBounds[wholeClass] != 1232 {
		t.Errorf("the largest size that no path cuts is %d", SizeBounds[wholeClass])
	}
}
