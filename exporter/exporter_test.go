package exporter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
)

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		beChild()
		return
	}
	if what := os.Getenv(asCounted); what != "" {
		if err := beCounted(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// TestInline: with nothing queued the caller's own goroutine sends, agent_init
// first, and Run is not needed.
func TestInline(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{}, &socket)
	if err := e.SendBatch(wires(0, 200)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(socket.taken[0], []byte(`"event":"agent_init"`)) {
		t.Errorf("the first datagram is %q, want agent_init", socket.taken[0])
	}
	lines, inits := socket.events()
	wantLines(t, lines, 0, 200)
	account := check(t, e)
	if s := account.Streams[0]; account.Seen != 200 || s.Sent != 200 || s.Datagrams != 201 || inits != 1 {
		t.Errorf("account %+v, %d agent_init", account, inits)
	}
}

// TestQuickRow: single events that come fast are queued after a few, and sent
// in batches by Run's goroutine; at rest their reader sends them again.
func TestQuickRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes unless we sleep
		var socket fakeSocket
		e := newTestExporter(t, Config{}, &socket)
		for i := range 100 {
			_ = e.SendWire(wire(i))
		}
		inline, _ := socket.events()
		if queued := check(t, e).Streams[0].Queued; len(inline) > quickTakes+1 || queued != uint64(100-len(inline)) {
			t.Errorf("%d events were sent by their reader, %d are queued", len(inline), queued)
		}
		stop := start(t, e)
		synctest.Wait()
		for i := range 100 {
			time.Sleep(time.Millisecond)
			_ = e.SendWire(wire(100 + i))
			if got, _ := socket.events(); len(got) != 101+i {
				t.Fatalf("event %d was not sent by its reader", 100+i)
			}
		}
		stop()
		got, _ := socket.events()
		wantLines(t, got, 0, 200)
		check(t, e)
	})
}

// TestFullDestination: a destination that takes nothing stops nobody; what does
// not fit the queue is counted; when it takes datagrams again the rest arrives,
// in order.
func TestFullDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := fakeSocket{fail: func(int) error { return udp.ErrWouldBlock }}
		e := newTestExporter(t, Config{QueueBytes: 10_000}, &socket)
		stop := start(t, e)
		const all = 1000
		for i := 0; i < all; i += 10 {
			_ = e.SendBatch(wires(i, i+10))
			check(t, e)
		}
		synctest.Wait()
		account := check(t, e)
		full := account.Dropped[ledger.QueueFullPolicy]
		if full == 0 || full+account.Streams[0].Queued != all {
			t.Errorf("queue full for %d, queued %d of %d", full, account.Streams[0].Queued, all)
		}
		socket.setFail(nil)
		time.Sleep(time.Second) // virtual
		stop()
		lines, inits := socket.events()
		// The first batch had left the queue; of the others the oldest made room.
		wantLines(t, lines[:10], 0, 10)
		wantLines(t, lines[10:], 10+int(full), all)
		if account := check(t, e); account.Streams[0].Sent != all-full || account.Streams[0].Queued != 0 || inits != 1 {
			t.Errorf("account %+v, %d agent_init", account, inits)
		}
	})
}

// TestErrorsOfTheSocket: each class of error has its reason, costs one datagram
// at most, and ends nothing.
func TestErrorsOfTheSocket(t *testing.T) {
	f := func(err error, reason ledger.Reason) {
		t.Helper()
		socket := fakeSocket{fail: func(n int) error {
			if n == 5 {
				return fmt.Errorf("sending: %w", err)
			}
			return nil
		}}
		e := newTestExporter(t, Config{}, &socket)
		_ = e.SendBatch(wires(0, 20))
		account := check(t, e)
		if s := account.Streams[0]; s.Dropped[reason] != 1 || s.Dropped.Total() != 1 || s.Sent != 19 {
			t.Errorf("%v: sent %d, dropped %v", err, s.Sent, &s.Dropped)
		}
	}
	f(udp.ErrNotPermitted, ledger.NotPermitted)
	f(udp.ErrTooLarge, ledger.TooLarge)
	f(errors.New("something new"), ledger.SendFailed)
}

// TestNetworkAway: while the network is away events wait, and none is lost when
// it comes back before the queue is full.
func TestNetworkAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		socket := fakeSocket{fail: func(int) error { return udp.ErrUnreachable }}
		e := newTestExporter(t, Config{Logger: testLogger(&log)}, &socket)
		stop := start(t, e)
		for i := range 300 {
			_ = e.SendWire(wire(i))
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(log.String(), "takes no datagrams"); n != 1 {
			t.Errorf("%d log lines for one outage:\n%s", n, log.String())
		}
		socket.mu.Lock()
		tries := socket.calls
		socket.fail = nil
		socket.mu.Unlock()
		if tries > 40 { // 0.1, 0.2, 0.4 ... then every 5 s for 30 s
			t.Errorf("%d attempts in 30 s without a network", tries)
		}
		for i := range 100 {
			time.Sleep(100 * time.Millisecond)
			_ = e.SendWire(wire(300 + i))
		}
		stop()
		lines, _ := socket.events()
		wantLines(t, lines, 0, 400)
		check(t, e)
		if !strings.Contains(log.String(), "takes datagrams again") {
			t.Errorf("the end of the outage is not in the log:\n%s", log.String())
		}
	})
}

// TestOneOfTwoDestinationsIsFull: the other loses nothing and waits for nobody.
func TestOneOfTwoDestinationsIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good fakeSocket
		full := fakeSocket{fail: func(int) error { return udp.ErrNoBuffers }}
		e := newTestExporter(t, Config{}, &good, &full)
		stop := start(t, e)
		long := make([]byte, 60_000)
		for i := range long {
			long[i] = 'x'
		}
		big, _ := proto.Marshal(&tetragon.GetEventsResponse{NodeName: string(long)})
		const all = 200
		for range all {
			_ = e.SendWire(big)
			synctest.Wait()
		}
		if lines, _ := good.events(); len(lines) != all {
			t.Errorf("the good destination got %d of %d events", len(lines), all)
		}
		stop()
		account := check(t, e)
		lost := account.Streams[1].Dropped
		if lost[ledger.DestinationFull] == 0 || lost[ledger.Shutdown] == 0 || lost.Total() != all || account.Streams[0].Dropped.Total() != 0 {
			t.Errorf("dropped by the good one: %v, by the full one: %v", &account.Streams[0].Dropped, &lost)
		}
	})
}

// TestTooLong: an event that fits no datagram is sent in a form that does, by
// whichever door it came.
func TestTooLong(t *testing.T) {
	for _, format := range []string{"json", "ndjson", "syslog"} {
		var socket fakeSocket
		e := newTestExporter(t, Config{Destinations: []Destination{{Address: "127.0.0.1", Format: format, MaxDatagram: 4000}}}, &socket)
		long := &tetragon.GetEventsResponse{NodeName: "node", Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{
			Process: &tetragon.Process{ExecId: "id", Binary: "/bin/sh", Arguments: strings.Repeat("x", 65507)}}}}
		stop := start(t, e)
		_ = e.SendWire(wire(0))
		_ = e.Send(long)
		_ = e.SendJSON([]byte(protojson.MarshalOptions{UseProtoNames: true}.Format(long)))
		_ = e.SendWire(wire(1))
		stop()
		shortened := 0
		for _, d := range socket.taken {
			if len(d) > 4000 {
				t.Errorf("%s: a datagram of %d bytes, want at most 4000", format, len(d))
			}
			shortened += bytes.Count(d, []byte(`"tetracast_truncated":`))
		}
		s := check(t, e).Streams[0]
		if shortened != 2 || s.Truncated != 2 || s.Dropped.Total() != 0 || s.Sent != 4 {
			t.Errorf("%s: %d came shortened; stream %+v", format, shortened, s)
		}
	}
}

// TestTooLongForChunks: a message that would need more than 128 chunks of GELF is
// sent in a form that needs fewer.
func TestTooLongForChunks(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{Destinations: []Destination{{Address: "127.0.0.1", Format: "gelf", MaxDatagram: 256}}}, &socket)
	stop := start(t, e)
	_ = e.Send(&tetragon.GetEventsResponse{NodeName: "node", Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{
		Process: &tetragon.Process{ExecId: "id", Binary: "/bin/sh", Arguments: strings.Repeat("x", 65507)}}}})
	stop()
	reader := datagram.NewGELFReader(datagram.GELFLimits{})
	var event []byte
	for _, d := range socket.taken {
		if len(d) > 256 {
			t.Errorf("a chunk of %d bytes", len(d))
		}
		if p, whole, err := reader.Read(d, literalPort(1), time.Now()); err != nil {
			t.Fatal(err)
		} else if whole && p.Kind == datagram.KindEvent {
			event = bytes.Clone(p.JSON)
		}
	}
	if s := check(t, e).Streams[0]; s.Truncated != 1 || s.Sent != 1 || s.Dropped.Total() != 0 || !bytes.Contains(event, []byte(`"_tetracast_truncated`)) {
		t.Errorf("stream %+v, event %.300s", s, event)
	}
}

// TestSequenceOfRecords: with a sequence agent_init too says whose it is, also on
// the straight way.
func TestSequenceOfRecords(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{Tetragon: &Tetragon{Version: "v1.7.0"}, Destinations: []Destination{{Address: "127.0.0.1", JSONSequence: true}}}, &socket)
	for range 3 {
		_ = e.SendMetadataEvent() // without Run, which would join those that come close together
	}
	stream := check(t, e).Streams[0].Stream
	for _, d := range socket.taken {
		if !bytes.HasSuffix(d, []byte(`,"tetracast":{"stream":"`+stream+"\"}}\n")) {
			t.Errorf("got %s", d)
		}
	}
	if len(socket.taken) < 3 {
		t.Errorf("%d datagrams", len(socket.taken))
	}
}

// TestOversize: where not even the shortest form fits, the event is lost and
// counted.
func TestOversize(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{Destinations: []Destination{{Address: "127.0.0.1", MaxDatagram: 40}}}, &socket)
	long, _ := proto.Marshal(&tetragon.GetEventsResponse{NodeName: "node", Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{
		Process: &tetragon.Process{ExecId: strings.Repeat("x", 100)}}}})
	stop := start(t, e)
	_ = e.SendBatch([][]byte{wire(0), long, wire(1)})
	stop()
	lines, _ := socket.events()
	wantLines(t, lines, 0, 2)
	if s := check(t, e).Streams[0]; s.Dropped[ledger.Oversize] != 1 || s.Sent != 2 {
		t.Errorf("stream %+v", s)
	}
}

// TestDoors: the three ways in, and what is refused at each.
func TestDoors(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{}, &socket)
	invalid := &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{
		Process: &tetragon.Process{Docker: "docker-\xff\xfe", Pid: wrapperspb.UInt32(7)}}}}
	for _, err := range []error{
		e.Send(&tetragon.GetEventsResponse{NodeName: "node-0"}),
		e.SendMsg(&tetragon.GetEventsResponse{NodeName: "node-1"}),
		e.SendWire(wire(2)),
		e.SendJSON([]byte(`{"node_name":"node-3"}`)),
		e.SendJSON([]byte("{\"node_name\":\n\"node-4\"}\n")),
		e.Send(invalid),
		e.SendJSON([]byte(`{"node_name":`)),
		e.SendWire([]byte{0xff}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	lines, _ := socket.events()
	wantLines(t, lines[:5], 0, 5)
	if want := `{"process_exec":{"process":{"pid":7,"docker":"docker-` + "\uFFFD" + `"}}}` + "\n"; lines[5] != want {
		t.Errorf("repaired: %q, want %q", lines[5], want)
	}
	account := check(t, e)
	if account.Seen != 8 || account.Dropped[ledger.Invalid] != 1 || account.Streams[0].Dropped[ledger.Untranscodable] != 1 || len(lines) != 6 {
		t.Errorf("account %+v", account)
	}
	if s := e.Stats(); s.Repaired != 1 {
		t.Errorf("stats %+v", s)
	}
	if !proto.Equal(invalid, proto.CloneOf(invalid)) || invalid.GetProcessExec().Process.Docker != "docker-\xff\xfe" {
		t.Error("Send changed its argument")
	}
}

// TestStop: what is queued when the end comes is sent while there is time, and
// the rest is counted.
func TestStop(t *testing.T) {
	f := func(wait error, want func(sent, shutdown uint64) bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			socket := fakeSocket{fail: func(int) error { return udp.ErrUnreachable }}
			e := newTestExporter(t, Config{}, &socket)
			stop := start(t, e)
			_ = e.SendBatch(wires(0, 500))
			synctest.Wait()
			socket.setFail(func(int) error { return wait })
			begin := time.Now()
			stop()
			if took := time.Since(begin); took > DefaultDrainTimeout {
				t.Errorf("stopping took %v", took)
			}
			account := check(t, e)
			s := account.Streams[0]
			if !want(s.Sent, account.Dropped[ledger.Shutdown]+s.Dropped[ledger.Shutdown]) || s.Queued != 0 {
				t.Errorf("at the end: sent %d, queued %d, dropped %v and %v", s.Sent, s.Queued, &account.Dropped, &s.Dropped)
			}
			if err := e.SendWire(wire(0)); !errors.Is(err, ErrClosed) {
				t.Errorf("sending after the end: %v", err)
			}
			if e.Context().Err() == nil {
				t.Error("the context goes on after the end")
			}
			check(t, e)
		})
	}
	f(nil, func(sent, shutdown uint64) bool { return sent == 500 && shutdown == 0 })
	f(udp.ErrUnreachable, func(sent, shutdown uint64) bool { return sent == 0 && shutdown == 500 })
}

// TestManySenders: whatever the interleaving, each event arrives once and the
// account closes at every moment.
func TestManySenders(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{}, &socket)
	stop := start(t, e)
	const senders, each = 8, 500
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for i := range each {
				_ = e.SendWire(wire(i))
				if i%50 == 0 {
					check(t, e)
					_ = e.SendMetadataEvent()
				}
			}
		})
	}
	wg.Wait()
	stop()
	lines, inits := socket.events()
	if len(lines) != senders*each || inits == 0 {
		t.Errorf("%d events and %d agent_init arrived", len(lines), inits)
	}
	if a := check(t, e); a.Streams[0].Sent != senders*each {
		t.Errorf("account %+v", a)
	}
}

func TestCloseWithoutRun(t *testing.T) {
	socket := fakeSocket{fail: func(int) error { return udp.ErrWouldBlock }}
	e := newTestExporter(t, Config{}, &socket)
	_ = e.SendBatch(wires(0, 10))
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	a := check(t, e)
	if a.Dropped[ledger.Shutdown]+a.Streams[0].Dropped[ledger.Shutdown] != 10 {
		t.Errorf("account %+v", a)
	}
}

func TestConfigFaults(t *testing.T) {
	f := func(d Destination, want string) {
		t.Helper()
		_, err := NewUDPExporter(Config{Destinations: []Destination{d}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want it to name %q", d, err, want)
		}
	}
	f(Destination{}, "host:port")
	f(Destination{Address: "host:port:more"}, "host:port:more")
	f(Destination{Address: "host:99999"}, "1 to 65535")
	f(Destination{Address: "host", Format: "xml"}, `"xml"`)
	f(Destination{Address: "host", MaxDatagram: 70000}, "65507")
	if _, err := NewUDPExporter(Config{}); err == nil {
		t.Error("no destination was accepted")
	}
}

func TestParseDestination(t *testing.T) {
	f := func(in, base, want string) {
		t.Helper()
		b := Destination{}
		if base != "" {
			b.Preset = base
		}
		d, err := ParseDestination(in, b)
		got := fmt.Sprintf("%s %s %d", d.Format, d.Address, d.MaxDatagram)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q with preset %q: got %q, want %q", in, base, got, want)
		}
	}
	f("collector", "", "json collector:7514 65507")
	f("collector:9000", "", "json collector:9000 65507")
	f("json://10.0.0.1", "", "json 10.0.0.1:7514 65507")
	f("frame://10.0.0.1", "", "frame 10.0.0.1:7514 1232")
	f("::1", "", "json [::1]:7514 65507")
	f("[::1]:9000", "", "json [::1]:9000 65507")
	f("json://[fd00::1]", "", "json [fd00::1]:7514 65507")
	f("rsyslog://log", "", "syslog log:514 8096")
	f("log", "graylog", "gelf log:12201 1232")
	f("log:99?max-datagram=2000&drop-oldest=true", "graylog", "gelf log:99 2000")
	f("json://log", "graylog", "json log:12201 1232")
	f("log?preset=fluentd", "graylog", "json log:5160 4096")
	f("log?gelf-fields=some", "graylog", `option gelf-fields: datagram: GELF fields "some", want flat or one`)
	f("log?colour=red", "", `unknown option "colour", want one of compression, destination-queue-bytes,`)
	f("log?max-datagram=x", "", "option max-datagram: ")
	never := func(text string, want int) {
		t.Helper()
		if d, err := ParseDestination(text, Destination{NoFragments: true}); err != nil || d.MaxDatagram != want {
			t.Errorf("%q without fragments: datagrams of %d, %v, want %d", text, d.MaxDatagram, err, want)
		}
	}
	never("rsyslog://log", 1232)
	never("json://log?max-datagram=9000", 1232)
	never("json://log?max-datagram=600", 600)
	never("json://127.0.0.1", 65507)
	if d, err := ParseDestination("frame://log", Destination{RouteMTU: true}); err != nil || d.MaxDatagram != 65507 {
		t.Errorf("frames as long as the route takes: %d, %v", d.MaxDatagram, err)
	}
	f("splunk://log", "", `unknown format "splunk"`)
	f("log", "splunk", `unknown preset "splunk", want one of filebeat,`)
}

func TestInlineAllocates(t *testing.T) {
	e := newTestExporter(t, Config{}, &fakeSocket{})
	e.worker.streams[0].conn = discard{}
	batch := wires(0, 64)
	_ = e.SendBatch(batch)
	if n := testing.AllocsPerRun(100, func() { _ = e.SendBatch(batch) }); n != 0 {
		t.Errorf("64 events cost %v allocations, want 0", n)
	}
}
