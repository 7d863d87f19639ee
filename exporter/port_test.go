package exporter

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnotherPort (S10): trouble leads to another source port at once, then after waits
// that double; the last change comes five seconds or more after the last trouble. Each
// time the stream says again who it is. Calm begins anew.
func TestAnotherPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := newTestExporter(t, Config{Logger: testLogger(&log), Destinations: []Destination{{Address: "127.0.0.1:40000"}}, StatsInterval: time.Hour})
		socket := &deaf{}
		_ = e.worker.streams[0].conn.Close()
		e.worker.streams[0].conn = socket
		stop := start(t, e)
		begin := time.Now()
		send := func(for_ time.Duration) {
			for end := time.Now().Add(for_); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				_ = e.SendWire(wire(1))
			}
		}
		// changed returns when the port changed since the last call, in seconds.
		changed := func() (at []int) {
			synctest.Wait()
			for _, when := range socket.rotated {
				at = append(at, int(when.Sub(begin)/time.Second))
			}
			socket.rotated, begin = nil, time.Now()
			return at
		}
		want := func(what string, got []int, want ...int) {
			t.Helper()
			if len(got) != len(want) {
				t.Errorf("%s: the port changed after %v s, want %v", what, got, want)
				return
			}
			for i := range got {
				if got[i] < want[i] || got[i] > want[i]+1 {
					t.Errorf("%s: the port changed after %v s, want %v", what, got, want)
				}
			}
		}
		send(10 * time.Second)
		want("without trouble", changed())
		socket.closed = true
		send(40 * time.Second)
		want("while nobody listens", changed(), 0, 5, 15, 35)
		socket.closed = false
		send(5 * time.Minute)
		want("when somebody listens", changed(), 35) // one more, 40 s after the last
		socket.closed = true
		send(time.Second)
		socket.closed = false
		send(30 * time.Second)
		want("a short trouble later", changed(), 0, 5, 15)
		stop()
		lines, told := socket.events()
		if told < 8*2 || len(lines) != int(check(t, e).Streams[0].Sent) {
			t.Errorf("%d agent_init and agent_stats for 8 ports; %d lines", told, len(lines))
		}
		if n := strings.Count(log.String(), "Another source port"); n != 8 {
			t.Errorf("%d lines in the log for 8 other ports:\n%s", n, log.String())
		}
	})
}
