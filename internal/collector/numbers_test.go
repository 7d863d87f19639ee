package collector

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"

	"tetracast/datagram"
	"tetracast/ledger"
)

// numberedForms are the ways to write an event with its number that strangers have, beside
// frames.
var numberedForms = map[string]string{
	"json":   `{"process_exec":{"process":{"pid":1}},"tetracast":{"stream":"00000000000000aa","seq":%d,"dropped":0}}`,
	"syslog": `<13>1 2026-01-01T00:00:00Z node-1 tetragon - - [tetracast@32473 stream="00000000000000aa" seq="%d"] {"process_exec":{"process":{"pid":1}}}`,
	"gelf":   `{"version":"1.1","host":"node-1","short_message":"x","_event":"{\"process_exec\":{\"process\":{\"pid\":1}}}","_event_type":"process_exec","_tetracast_stream":"00000000000000aa","_tetracast_seq":%d}`,
}

// TestNumbersNearTheEnd: numbers near 2^64 and 2^63, which once hung or ended a
// collector, are refused in every format, and the stream goes on.
func TestNumbersNearTheEnd(t *testing.T) {
	impossible := []uint64{math.MaxUint64, 1 << 62, 1<<62 + 1, 1<<63 + 7, 1<<63 + 8, math.MaxUint64 - 9, math.MaxUint64 - 8, math.MaxUint64, 0, ledger.MaxNumber + 1}
	for name, form := range numberedForms {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, socket, end := start(t, Config{Sink: new(memory)})
				socket.send(agentA, fmt.Sprintf(form, 1))
				for _, n := range impossible {
					socket.send(agentB, fmt.Sprintf(form, n))
				}
				socket.send(agentA, fmt.Sprintf(form, 2))
				a := end()
				if s := one(t, a); s.Received != 2 || *s.Announced != 2 || *s.Missing != 0 || a.Undecodable[ledger.FaultHeader]+a.Undecodable[ledger.FaultNotEvent] != uint64(len(impossible)) {
					t.Errorf("received %d, announced %d, missing %d, undecodable %s", s.Received, *s.Announced, *s.Missing, a.Undecodable.String())
				}
			})
		})
	}
}

// TestLeapsInEveryFormat: one number far ahead is not believed alone, in no format; a
// second one makes both count.
func TestLeapsInEveryFormat(t *testing.T) {
	const far = 10 + ledger.JumpNumbers
	for name, form := range numberedForms {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, socket, end := start(t, Config{Sink: new(memory)})
				socket.send(agentA, fmt.Sprintf(form, 1), fmt.Sprintf(form, far), fmt.Sprintf(form, far), fmt.Sprintf(form, 2))
				synctest.Wait()
				if a := checked(t, c); a.Received != 2 || *one(t, a).Announced != 2 || a.Undecodable[ledger.FaultJump] != 2 {
					t.Errorf("received %d, %+v, undecodable %s with one witness", a.Received, one(t, a), a.Undecodable.String())
				}
				socket.send(agentA, fmt.Sprintf(form, far), fmt.Sprintf(form, far+1), fmt.Sprintf(form, far-1))
				if s := one(t, end()); s.Received != 5 || *s.Announced != far+1 {
					t.Errorf("received %d, announced %d", s.Received, *s.Announced)
				}
			})
		})
	}
}

// TestClaimsFarAhead: what an agent_stats announces far ahead is not believed alone
// where anybody could have sent it, and never beyond the numbers.
func TestClaimsFarAhead(t *testing.T) {
	stats := func(last uint64, goodbye string) string {
		return fmt.Sprintf(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","stream":"00000000000000aa","hostname":"node-1",`+
			`"started_at":"2026-01-01T00:00:00Z","seen":5,"last_number":%d%s,"tetracast":{"stream":"00000000000000aa"}}`, last, goodbye)
	}
	synctest.Test(t, func(t *testing.T) {
		c, socket, end := start(t, Config{Sink: new(memory)})
		socket.send(agentA, fmt.Sprintf(numberedForms["json"], 1), stats(5, ""))
		socket.send(agentB, stats(1<<40, `,"goodbye":true`), stats(math.MaxUint64, `,"goodbye":true`))
		synctest.Wait()
		if s := one(t, checked(t, c)); *s.Announced != 5 || s.Ended != ledger.EndedUnknown {
			t.Errorf("announced %d, end %s", *s.Announced, s.Ended)
		}
		socket.send(agentA, stats(200_000, `,"goodbye":true`), stats(200_000, `,"goodbye":true`))
		if s := one(t, end()); *s.Announced != 200_000 || s.Ended != ledger.EndedGoodbye {
			t.Errorf("after a second one: announced %d, end %s", *s.Announced, s.Ended)
		}
	})
}

// TestUnprovenCount: a frame whose content cannot be read is believed no more events
// than its bytes could hold.
func TestUnprovenCount(t *testing.T) {
	a, _ := framed(t, Config{}, func(_ *Collector, s *fakeSocket) {
		f := newFramer(t, datagram.FrameConfig{Stream: 7})
		s.send(agentA, f.next())
		for i, count := range []uint64{1 << 24, 1 << 14, 200} {
			s.send(agentB, string(forgery{stream: 7, datagram: uint64(2 + i), first: 2, count: count, body: []byte{200}}.bytes()))
		}
	})
	if s := one(t, a); s.Received != 1 || *s.Announced != 1 || a.Undecodable[ledger.FaultHeader] != 3 {
		t.Errorf("received %d, announced %d, undecodable %s", s.Received, *s.Announced, a.Undecodable.String())
	}
}
