package exporter

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/udp"
	"tetracast/ledger"
)

// workOff takes all that the queue has, and forgets it.
func workOff(q *queue) {
	for !q.empty() {
		t := q.pop()
		for _, _, ok := t.next(); ok; _, _, ok = t.next() {
		}
		q.release(&t)
	}
}

// drain takes all that the queue has, and returns the events in the order in which
// a worker gets them.
func drain(q *queue) (events [][]byte) {
	for !q.empty() {
		t := q.pop()
		for event, _, ok := t.next(); ok; event, _, ok = t.next() {
			events = append(events, bytes.Clone(event))
		}
		q.release(&t)
	}
	return events
}

// TestQueueKeepsOrder: over both lanes events come out as they went in, whatever
// their sizes, while others go in.
func TestQueueKeepsOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	q := queue{maxBytes: 64 << 20}
	event := func(i int) []byte {
		return append(fmt.Appendf(nil, "%d:", i), bytes.Repeat([]byte{byte(i)}, i*7919%20000)...)
	}
	pushed, popped := 0, 0
	for pushed < 3000 {
		for range random.IntN(200) {
			q.push(event(pushed), formWire, lane(random.IntN(int(lanes))))
			pushed++
		}
		if q.empty() {
			continue
		}
		hand := q.pop()
		for range random.IntN(300) { // perhaps not all: what is not taken comes again
			e, _, ok := hand.next()
			if !ok {
				break
			}
			if !bytes.Equal(e, event(popped)) {
				t.Fatalf("event %d came out changed or out of order", popped)
			}
			popped++
		}
		q.release(&hand)
	}
	for _, e := range drain(&q) {
		if !bytes.Equal(e, event(popped)) {
			t.Fatalf("event %d came out changed or out of order", popped)
		}
		popped++
	}
	if popped != pushed || q.bytes != 0 || q.lanes[0].bytes != 0 || q.lanes[1].bytes != 0 || q.dropped != [lanes]uint64{} {
		t.Errorf("%d of %d came out; left: %d bytes, %+v", popped, pushed, q.bytes, q.lanes)
	}
	if q.spares > spareChunks {
		t.Errorf("%d spare chunks are kept, at most %d may be", q.spares, spareChunks)
	}
}

// TestQueueMakesRoom: exec and exit make room first, oldest first; they never take
// the reserved quarter; and the bound holds while the worker has some in hand.
func TestQueueMakesRoom(t *testing.T) {
	const size = 100 // of an event with its item
	event := func(i int) []byte { return fmt.Appendf(nil, "%0*d", size-itemBytes, i) }
	q := queue{maxBytes: 40 * size}
	push := func(l lane, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			q.push(event(i), formWire, l)
			if q.bytes > q.maxBytes || q.lanes[processLane].bytes > q.maxBytes*3/4 {
				t.Fatalf("%d bytes, of execs %d, the bound is %d", q.bytes, q.lanes[processLane].bytes, q.maxBytes)
			}
		}
	}
	want := func(dropped [lanes]uint64, ranges ...int) {
		t.Helper()
		var wanted []string
		for i := 0; i < len(ranges); i += 2 {
			for k := ranges[i]; k < ranges[i+1]; k++ {
				wanted = append(wanted, string(event(k)))
			}
		}
		var got []string
		for _, e := range drain(&q) {
			got = append(got, string(e))
		}
		if fmt.Sprint(got) != fmt.Sprint(wanted) || q.dropped != dropped || q.bytes != 0 {
			t.Errorf("dropped %v, want %v; got %d events, want %d: %s", q.dropped, dropped, len(got), len(wanted), got)
		}
		q.dropped = [lanes]uint64{}
	}
	push(processLane, 0, 50)
	want([lanes]uint64{20, 0}, 20, 50)
	push(processLane, 0, 30)
	push(policyLane, 100, 120) // ten use the reserve, ten push execs out
	want([lanes]uint64{10, 0}, 10, 30, 100, 120)
	push(processLane, 0, 30)
	push(policyLane, 100, 150) // all execs, then its own oldest
	want([lanes]uint64{30, 10}, 110, 150)
	push(policyLane, 100, 140)
	push(processLane, 0, 5) // nothing of policies makes room for an exec
	want([lanes]uint64{5, 0}, 100, 140)
	push(processLane, 0, 30)
	hand := q.pop() // what the worker has in hand makes no room
	push(policyLane, 100, 112)
	push(processLane, 30, 31)
	q.release(&hand)
	want([lanes]uint64{1, 2}, 0, 30, 102, 112)
	q.push(make([]byte, 40*size), formWire, policyLane) // longer than the queue
	want([lanes]uint64{0, 1})
}

func TestQueueEventLongerThanAChunk(t *testing.T) {
	q := queue{maxBytes: 1 << 20}
	long := bytes.Repeat([]byte("x"), 5*chunkBytes)
	for _, e := range [][]byte{[]byte("a"), long, []byte("b")} {
		q.push(e, formLine, policyLane)
	}
	var got []int
	for _, e := range drain(&q) {
		got = append(got, len(e))
	}
	if fmt.Sprint(got) != fmt.Sprint([]int{1, len(long), 1}) || q.dropped[policyLane] != 0 {
		t.Errorf("lengths %v, dropped %v", got, q.dropped)
	}
}

// TestQueueGiants: the memory of a long event serves the next one, and is given back
// when none comes any more.
func TestQueueGiants(t *testing.T) {
	q := queue{maxBytes: 64 << 20}
	giant := make([]byte, 5*chunkBytes)
	cycle := func() {
		q.push(giant, formWire, policyLane)
		q.push(giant[:600], formWire, policyLane)
		workOff(&q)
	}
	cycle()
	if n := testing.AllocsPerRun(100, cycle); n != 0 {
		t.Errorf("a giant through a warm queue costs %v allocations, want 0", n)
	}
	for range 20 { // short ones do not keep the room from a long one
		q.push(giant[:chunkBytes+1], formWire, policyLane)
	}
	q.clear()
	for range 20 {
		cycle()
	}
	if n := testing.AllocsPerRun(100, cycle); n != 0 {
		t.Errorf("a giant among short ones costs %v allocations, want 0", n)
	}
	for range giantIdle + 1 {
		q.push(giant[:chunkBytes-1], formWire, policyLane)
	}
	if q.giants != nil || q.giant != 0 {
		t.Error("the memory is kept for ever")
	}
	q.clear()
	q.push(make([]byte, giantBytes+1), formWire, policyLane)
	if q.clear(); q.giants != nil {
		t.Errorf("%d bytes are kept", q.giant)
	}
}

func TestQueueAllocates(t *testing.T) {
	q := queue{maxBytes: 1 << 20}
	event := make([]byte, 600)
	cycle := func() {
		for i := range 200 {
			q.push(event, formWire, lane(i&1))
		}
		workOff(&q)
	}
	cycle()
	if n := testing.AllocsPerRun(100, cycle); n != 0 {
		t.Errorf("200 events through a warm queue cost %v allocations, want 0", n)
	}
}

// BenchmarkQueue is the way of an event through the queue: in one lane, in both by
// turns, and as the floor the copy alone.
func BenchmarkQueue(b *testing.B) {
	event := make([]byte, 600)
	f := func(name string, laneOf func(i int) lane) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			q := queue{maxBytes: 64 << 20}
			for b.Loop() {
				for i := range 200 {
					q.push(event, formWire, laneOf(i))
				}
				workOff(&q)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/event")
		})
	}
	f("one-lane", func(int) lane { return policyLane })
	f("two-lanes", func(i int) lane { return lane(i & 1) })
	b.Run("floor-copy", func(b *testing.B) {
		room := make([]byte, 0, 200*len(event))
		for b.Loop() {
			room = room[:0]
			for range 200 {
				room = append(room, event...)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/event")
	})
}

// execWire and killWire are an exec, and a policy's kill, that say which they are.
func execWire(t testing.TB, i int) []byte {
	return marshal(t, &tetragon.GetEventsResponse{NodeName: fmt.Sprintf("exec-%d", i), Event: &tetragon.GetEventsResponse_ProcessExec{
		ProcessExec: &tetragon.ProcessExec{Process: &tetragon.Process{Binary: "/bin/true"}}}})
}

func killWire(t testing.TB, i int) []byte {
	return marshal(t, &tetragon.GetEventsResponse{NodeName: fmt.Sprintf("kill-%d", i), Event: &tetragon.GetEventsResponse_ProcessKprobe{
		ProcessKprobe: &tetragon.ProcessKprobe{FunctionName: "security_file_open", Action: tetragon.KprobeAction_KPROBE_ACTION_SIGKILL}}})
}

func marshal(t testing.TB, event *tetragon.GetEventsResponse) []byte {
	t.Helper()
	wire, err := proto.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// TestStorm: ten times as many execs as the destination takes, and among them 1,000
// kills by a policy. Every kill arrives, in order; what was shed are execs, counted
// as such.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kills, execsAKill, perSecond = 1000, 100, 1000
		var socket fakeSocket
		began := time.Now()
		socket.fail = func(int) error { // called with the socket's lock
			if time.Duration(len(socket.taken))*time.Second/perSecond > time.Since(began) {
				return udp.ErrWouldBlock
			}
			return nil
		}
		e := newTestExporter(t, Config{QueueBytes: 256 << 10, DrainTimeout: time.Minute}, &socket)
		stop := start(t, e)
		execs := 0
		for i := range kills {
			for range execsAKill / 10 {
				var batch [][]byte
				for range 10 {
					batch = append(batch, execWire(t, execs))
					execs++
				}
				_ = e.SendBatch(batch)
				time.Sleep(time.Second / perSecond) // ten times as fast as they are taken
			}
			_ = e.SendWire(killWire(t, i))
		}
		stop()
		account := check(t, e)
		lines, _ := socket.events()
		var gotKills, last int
		for _, l := range lines {
			var n int
			if i := bytes.Index([]byte(l), []byte(`"node_name":"kill-`)); i >= 0 {
				if _, err := fmt.Sscanf(l[i:], `"node_name":"kill-%d"`, &n); err != nil || n != gotKills {
					t.Fatalf("kill %d came where %d was to come: %v", n, gotKills, err)
				}
				gotKills++
				continue
			}
			i := bytes.Index([]byte(l), []byte(`"node_name":"exec-`))
			if _, err := fmt.Sscanf(l[max(i, 0):], `"node_name":"exec-%d"`, &n); err != nil || n < last {
				t.Fatalf("exec %d came after %d: %v, %s", n, last, err, l)
			}
			last = n
		}
		shed := account.Dropped[ledger.QueueFullProcess]
		if gotKills != kills || account.Dropped[ledger.QueueFullPolicy] != 0 {
			t.Errorf("%d of %d kills arrived, %d are counted as shed", gotKills, kills, account.Dropped[ledger.QueueFullPolicy])
		}
		if shed < uint64(execs)/2 || account.Seen != uint64(kills+execs) || account.Streams[0].Sent != account.Seen-shed {
			t.Errorf("of %d execs %d were shed: %+v", execs, shed, account)
		}
	})
}
