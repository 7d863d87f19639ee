package exporter

import (
	"testing"
	"testing/synctest"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
)

// TestTenMinutesBesideBadDestinations: one destination is dead for ten minutes and
// one takes ten datagrams a second. The good one gets every event at once, and
// each account closes alone. Whether a queue drops the oldest or the newest is as
// asked for.
func TestTenMinutesBesideBadDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each, minutes = 20 * time.Millisecond, 10
		var good fakeSocket
		dead := fakeSocket{fail: func(int) error { return udp.ErrUnreachable }}
		var next time.Time
		slow := fakeSocket{fail: func(int) error {
			if time.Now().Before(next) {
				return udp.ErrWouldBlock
			}
			next = time.Now().Add(100 * time.Millisecond)
			return nil
		}}
		e := newTestExporter(t, Config{Destinations: []Destination{
			{Address: "127.0.0.1:1", Format: "json"},
			{Address: "127.0.0.1:2", Format: "syslog", QueueBytes: 256 << 10},
			{Address: "127.0.0.1:3", Format: "gelf", QueueBytes: 64 << 10, DropOldest: true},
		}}, &good, &dead, &slow)
		stop := start(t, e)
		events := 0
		for end := time.Now().Add(minutes * time.Minute); time.Now().Before(end); events++ {
			_ = e.SendWire(wire(events))
			time.Sleep(each)
			if events%1000 != 999 {
				continue
			}
			if lines, _ := good.events(); len(lines) != events+1 {
				t.Fatalf("after %d events the good destination had %d", events+1, len(lines))
			}
		}
		stop()
		account := check(t, e)
		lines, _ := good.events()
		wantLines(t, lines, 0, events)
		for i, s := range account.Streams {
			if s.Sent+s.Dropped.Total() != uint64(events) || s.Queued != 0 {
				t.Errorf("stream %d of %d events: sent %d, dropped %s", i, events, s.Sent, s.Dropped.String())
			}
		}
		if d := account.Streams[1].Dropped; account.Streams[1].Sent != 0 || d[ledger.DestinationFull] == 0 || d[ledger.Shutdown] == 0 {
			t.Errorf("the dead one: %+v", account.Streams[1])
		}
		// The slow one drops what waited longest: what it took last is young.
		if s := account.Streams[2]; s.Sent < minutes*60*9 || s.Dropped[ledger.DestinationFull] == 0 {
			t.Errorf("the slow one: %+v", s)
		}
		last, _, err := datagram.NewGELFReader(datagram.GELFLimits{}).Read(slow.taken[len(slow.taken)-1], literalPort(3), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if age := uint64(events) - last.Mark.Number; age > 500 {
			t.Errorf("the last datagram that the slow one took was %d events old", age)
		}
	})
}
