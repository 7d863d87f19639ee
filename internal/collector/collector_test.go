package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/internal/sink"
	"tetracast/ledger"
)

const (
	event     = `{"process_exec":{"process":{"pid":1}},"time":"2026-01-01T00:00:00Z"}`
	eventLine = event + "\n"
)

func agentInit(hostname string, pid int, timestamp string) string {
	return fmt.Sprintf(`{"@timestamp":%q,"event":"agent_init","hostname":%q,"pid":%d}`, timestamp, hostname, pid)
}

// start runs a collector on a fake socket. The returned function ends it and
// returns its final account, which has been checked.
func start(t *testing.T, config Config) (*Collector, *fakeSocket, func() ledger.Collector) {
	t.Helper()
	config, err := config.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	socket := newFakeSocket()
	c := newCollector(config, socket)
	c.loadState()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return c, socket, func() ledger.Collector {
		t.Helper()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if !socket.closed.Load() {
			t.Error("Run left the socket open")
		}
		return checked(t, c)
	}
}

// checked returns the account after holding it to its equations.
func checked(t testing.TB, c *Collector) ledger.Collector {
	t.Helper()
	account := c.Account()
	if err := account.Check(); err != nil {
		t.Error(err)
	}
	return account
}

func TestEventsReachTheSinkInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		c, socket, end := start(t, Config{Sink: out})
		var want []string
		for i := range 1000 {
			line := fmt.Sprintf(`{"process_exit":{"status":%d},"time":"2026-01-01T00:00:00Z"}`, i)
			socket.send(agentA, line+"\n")
			want = append(want, line+"\n")
		}
		synctest.Wait()
		if a := checked(t, c); a.Received != 1000 || a.Queued != 1000 || a.Delivered != 0 {
			t.Errorf("before the flush interval: received %d, queued %d, delivered %d", a.Received, a.Queued, a.Delivered)
		}
		time.Sleep(DefaultFlushInterval)
		synctest.Wait()
		if a := checked(t, c); a.Delivered != 1000 || a.Queued != 0 {
			t.Errorf("after it: delivered %d, queued %d", a.Delivered, a.Queued)
		}
		if out.writes != 1 {
			t.Errorf("%d writes, want one for all that came within the interval", out.writes)
		}
		a := end()
		if !slices.Equal(out.got(), want) {
			t.Errorf("%d lines, not the %d sent in their order", len(out.got()), len(want))
		}
		if !out.closed || a.Datagrams != 1000 || a.Closes != nil {
			t.Errorf("sink closed %v, datagrams %d, closes %v (want unknown: json says no goodbye)", out.closed, a.Datagrams, a.Closes)
		}
	})
}

func TestAFullBlockIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out, FlushInterval: time.Hour})
		line := `{"process_exec":{"process":{"arguments":"` + strings.Repeat("x", 1000) + `"}},"time":"2026-01-01T00:00:00Z"}`
		for range blockBytes/len(line) + 10 {
			socket.send(agentA, line)
		}
		synctest.Wait()
		if n := len(out.got()); n != blockBytes/(len(line)+1) {
			t.Errorf("%d lines were written before the interval, want the one full block of %d", n, blockBytes/(len(line)+1))
		}
		end()
	})
}

func TestStopTakesWhatSocketAndQueueHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out, FlushInterval: time.Hour})
		socket.send(agentA, event)
		synctest.Wait()
		socket.send(agentA, event, event) // not yet received when the end comes
		if a := end(); a.Delivered != 3 || a.Queued != 0 || len(out.got()) != 3 {
			t.Errorf("delivered %d, queued %d, lines %d; want all 3 delivered", a.Delivered, a.Queued, len(out.got()))
		}
	})
}

func TestStopWithABlockedSinkKeepsItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		out := &memory{write: func(b *sink.Batch) (int, error) { <-release; return b.Len(), nil }}
		_, socket, end := start(t, Config{Sink: out})
		socket.send(agentA, event)
		time.Sleep(time.Second) // the sink has it now
		socket.send(agentA, event, event)
		synctest.Wait()
		before := time.Now()
		a := end()
		if took := time.Since(before); took != DefaultDrainTimeout {
			t.Errorf("the end took %v, want %v", took, DefaultDrainTimeout)
		}
		if a.Dropped[ledger.Shutdown] != 3 || a.Delivered != 0 || a.Queued != 0 || out.closed {
			t.Errorf("account %+v, sink closed %v; want 3 events dropped by the shutdown", a, out.closed)
		}
		close(release)
	})
}

func TestStopUnderAFloodLeavesTheSinkItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out})
		socket.mu.Lock()
		socket.endless = []packet{{Payload: []byte(event), Source: agentA}}
		socket.mu.Unlock()
		socket.send(agentA, event)
		time.Sleep(time.Second)
		before := time.Now()
		a := end()
		if took := time.Since(before); took > DefaultDrainTimeout/2 {
			t.Errorf("the end took %v, want less than half of %v", took, DefaultDrainTimeout)
		}
		if a.Delivered != a.Received || a.Received == 0 {
			t.Errorf("delivered %d of %d", a.Delivered, a.Received)
		}
	})
}

func TestASlowSinkFillsTheQueueAndReadingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		out := &memory{write: func(b *sink.Batch) (int, error) { <-release; return b.Len(), nil }}
		c, socket, end := start(t, Config{Sink: out, QueueBytes: 10 * len(eventLine)})
		for range 100 {
			socket.send(agentA, event)
		}
		time.Sleep(time.Second)
		if a := checked(t, c); a.Received != 100 || a.Queued != 10 || a.Dropped[ledger.SinkFull] != 90 {
			t.Errorf("received %d, queued %d, dropped %s; want 100, 10 and 90 for sink_full", a.Received, a.Queued, a.Dropped.String())
		}
		// A record that found no room is written at its next repeat.
		record := agentInit("node-1", 7, "2026-01-01T00:00:00Z")
		socket.send(agentA, record)
		synctest.Wait()
		close(release)
		time.Sleep(time.Second)
		socket.send(agentA, record, event)
		a := end()
		if a.Delivered != 11 || a.Received != 101 || !slices.Contains(out.got(), record+"\n") {
			t.Errorf("delivered %d of %d; record written: %v", a.Delivered, a.Received, slices.Contains(out.got(), record+"\n"))
		}
	})
}

func TestAFailingSinkIsCountedAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		full.Store(true)
		out := &memory{write: func(b *sink.Batch) (int, error) {
			if full.Load() {
				return 1, syscall.ENOSPC // the first line found room
			}
			return b.Len(), nil
		}}
		log := new(logCounter)
		_, socket, end := start(t, Config{Sink: out, Log: slog.New(log)})
		record := agentInit("node-1", 7, "2026-01-01T00:00:00Z")
		socket.send(agentA, event, record, event, event)
		time.Sleep(time.Second)
		for range 20 {
			socket.send(agentA, event, event)
			time.Sleep(time.Second)
		}
		full.Store(false)
		socket.send(agentA, event, record)
		time.Sleep(time.Second)
		a := end()
		if a.Delivered != 1+20+1 || a.Dropped[ledger.SinkFailed] != 2+20 {
			t.Errorf("delivered %d, dropped %s; want 22 and 22 for sink_failed", a.Delivered, a.Dropped.String())
		}
		if got := out.got(); got[len(got)-1] != record+"\n" {
			t.Errorf("the record that was lost is not written at its repeat: last line %q", got[len(got)-1])
		}
		if got := log.lines(); !slices.Equal(got, []string{"The sink fails", "The sink works again"}) {
			t.Errorf("log lines %q", got)
		}
	})
}

func TestARecordIsWrittenOnceAndARestartCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out})
		first := agentInit("node-1", 7, "2026-01-01T00:00:00Z")
		second := agentInit("node-1", 8, "2026-01-01T00:05:00Z")
		other := agentInit("node-2", 7, "2026-01-01T00:00:00Z")
		restarted := netip.AddrPortFrom(agentA.Addr(), 40001)
		socket.send(agentA, first, event, first, first)
		socket.send(agentB, other, event, event)
		socket.send(restarted, second, event, second) // a new process has a new port
		socket.send(agentA, first)                    // a late repeat is no restart
		socket.send(netip.MustParseAddrPort("[2001:db8::1]:5"), event)
		a := end()
		want := []string{first, event, other, event, event, second, event, event}
		if got := out.got(); strings.Join(got, "") != strings.Join(want, "\n")+"\n" {
			t.Errorf("lines\n%s", strings.Join(got, ""))
		}
		stream := func(address string, received uint64) ledger.AgentStream {
			return ledger.AgentStream{Stream: address, Received: received, Ended: ledger.EndedUnknown}
		}
		wantAgents := []ledger.Agent{
			{Streams: []ledger.AgentStream{stream("[2001:db8::1]:5", 1)}},
			{Hostname: "node-1", Restarts: 1, Streams: []ledger.AgentStream{stream("192.0.2.1:40000", 1), stream("192.0.2.1:40001", 1)}},
			{Hostname: "node-2", Streams: []ledger.AgentStream{stream("192.0.2.2:40000", 2)}},
		}
		for i := range a.Agents {
			for k := range a.Agents[i].Streams {
				a.Agents[i].Streams[k].Heard = nil // a time
			}
		}
		if got, want := fmt.Sprintf("%+v", a.Agents), fmt.Sprintf("%+v", wantAgents); got != want {
			t.Errorf("agents\n%s, want\n%s", got, want)
		}
		if a.Received != 5 || a.Delivered != 5 {
			t.Errorf("received %d, delivered %d; agent_init and agent_stats are no events", a.Received, a.Delivered)
		}
	})
}

// TestStreamsAreBoundedAndTheirEventsKept: however many addresses somebody invents, with
// records and events, those of agents that have proven themselves stay, and all events
// are in the account.
func TestStreamsAreBoundedAndTheirEventsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, strangers = 64, 16
		c, socket, end := start(t, Config{Sink: new(memory), MaxAddresses: limit, MaxNewStreams: strangers})
		honest := func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1)
		}
		for i := range limit / 2 {
			socket.send(honest(i), agentInit(fmt.Sprintf("honest-%d", i), 1, "2026-01-01T00:00:00Z"))
			for range probationFrames {
				socket.send(honest(i), event)
			}
		}
		const invented = 40 * limit
		for i := range invented {
			source := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
			host := fmt.Sprintf("node-%d", i)
			socket.send(source, agentInit(host, 1, "2026-01-01T00:00:00Z"), event, agentInit(host, 2, "2026-01-02T00:00:00Z"))
		}
		for i := range limit / 2 {
			socket.send(honest(i), event)
		}
		a := end()
		if n, m := c.agents.sources.recent.Len(), c.agents.strangers.recent.Len(); n != limit/2 || m != strangers || len(c.agents.hosts) != n+m {
			t.Errorf("%d addresses known, %d of strangers, %d hosts", n, m, len(c.agents.hosts))
		}
		for i := range limit / 2 {
			if got := agentOf(a, fmt.Sprintf("honest-%d", i)); len(got.Streams) != 1 || got.Streams[0].Received != probationFrames+1 {
				t.Errorf("an honest one was pushed out: %+v", got)
			}
		}
		last := a.Agents[len(a.Agents)-1]
		if want := uint64(invented - strangers); last.Hostname != evictedName || last.Streams[0].Received != want || last.Restarts != want {
			t.Errorf("evicted: %+v, want %d events and restarts", last, want)
		}
		if n := len(c.agents.byBytes); n > limit/2+strangers {
			t.Errorf("%d records known", n)
		}
	})
}

func TestJunkIsCountedByFaultAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := new(logCounter), new(memory)
		c, socket, end := start(t, Config{Sink: out, Log: slog.New(log)})
		for range 1000 {
			socket.send(agentB, "", "\x00\x01", event[:20], `{"a":1}`)
			socket.mu.Lock()
			socket.held = append(socket.held, packet{Payload: []byte(event), Source: agentB, Truncated: true})
			socket.mu.Unlock()
			socket.send(agentA, event)
			synctest.Wait()
		}
		if n := c.agents.sources.recent.Len() + c.agents.strangers.recent.Len(); n != 1 {
			t.Errorf("junk made state: %d streams, want 1", n)
		}
		a := end()
		want := ledger.Faults{ledger.FaultEmpty: 1000, ledger.FaultNotJSON: 1000, ledger.FaultCutOff: 1000, ledger.FaultNotEvent: 1000, ledger.FaultTruncated: 1000}
		if a.Undecodable != want || a.Received != 1000 || a.Datagrams != 6000 || len(out.got()) != 1000 {
			t.Errorf("undecodable %s, received %d of %d datagrams, lines %d", a.Undecodable.String(), a.Received, a.Datagrams, len(out.got()))
		}
		if got := log.lines(); len(got) != 1 {
			t.Errorf("log lines %q, want one", got)
		}
	})
}

func TestJunkIsLoggedAgainAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logCounter)
		_, socket, end := start(t, Config{Sink: new(memory), Log: slog.New(log)})
		for range 180 {
			socket.send(agentA, "junk")
			time.Sleep(time.Second)
		}
		end()
		if n := len(log.lines()); n != 3 {
			t.Errorf("%d log lines in 3 minutes of junk, want 3", n)
		}
	})
}

func TestExitIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config, err := Config{Sink: new(memory), ExitIdle: 3 * time.Second}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		socket := newFakeSocket()
		c := newCollector(config, socket)
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		time.Sleep(time.Hour) // it waits for the first datagram
		begin := time.Now()
		for range 4 {
			socket.send(agentA, event)
			time.Sleep(2 * time.Second)
		}
		// The last one came at 6 s.
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < 9*time.Second || took > 9*time.Second+10*time.Millisecond {
			t.Errorf("ended after %v, want 9s", took)
		}
		if a := checked(t, c); a.Delivered != 4 {
			t.Errorf("delivered %d, want 4", a.Delivered)
		}
	})
}

func TestASocketThatFailsEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		config, err := Config{Sink: out}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		socket := newFakeSocket()
		c := newCollector(config, socket)
		socket.send(agentA, event)
		socket.fail(syscall.EBADF)
		if err := c.Run(t.Context()); !errors.Is(err, syscall.EBADF) {
			t.Errorf("Run: %v, want EBADF", err)
		}
		if a := checked(t, c); a.Delivered != 1 || !out.closed {
			t.Errorf("delivered %d, sink closed %v; what was received is still written", a.Delivered, out.closed)
		}
	})
}

func TestConfigRefused(t *testing.T) {
	f := func(config Config, want string) {
		t.Helper()
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	f(Config{Listen: "127.0.0.1:0"}, "no sink")
	f(Config{Listen: "127.0.0.1:0", Sink: new(memory), Format: "xml"}, `"xml", want one of auto, frame, gelf, json, ndjson, syslog`)
	f(Config{Listen: "127.0.0.1:0", Sink: new(memory), QueueBytes: -1}, "negative")
	f(Config{Listen: "127.0.0.1", Sink: new(memory)}, "127.0.0.1")
	f(Config{Listen: "127.0.0.1:http-not-a-port", Sink: new(memory)}, "http-not-a-port")
}

// TestReceivingAllocates covers all that happens to an event before the sink.
func TestReceivingAllocates(t *testing.T) {
	config, err := Config{Sink: new(memory)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector(config, newFakeSocket())
	var packets []packet
	for i := range 64 {
		packets = append(packets, packet{Payload: []byte(event), Source: netip.AddrPortFrom(agentA.Addr(), uint16(i/4))})
	}
	packets = append(packets, packet{Payload: []byte("junk"), Source: agentB}, packet{Payload: []byte(agentInit("n", 1, "")), Source: agentA})
	round := func() {
		c.intakes[0].take(packets)
		for b := c.queue.take(); b != nil; b = c.queue.take() {
			c.settle(b, b.Len())
		}
	}
	round()
	if n := testing.AllocsPerRun(1000, round); n != 0 {
		t.Errorf("64 events cost %v allocations, want 0", n)
	}
	checked(t, c)
}

// logCounter keeps the messages that were logged.
type logCounter struct {
	memory
}

func (l *logCounter) Enabled(context.Context, slog.Level) bool { return true }
func (l *logCounter) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logCounter) WithGroup(string) slog.Handler            { return l }
func (l *logCounter) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.memory.lines = append(l.memory.lines, r.Message)
	return nil
}
func (l *logCounter) lines() []string { return l.got() }
