package exporter

import (
	"testing"

	"tetracast/ledger"
)

// TestNothingInIt: a message and a line in which there is no event are dropped at
// intake, for no receiver takes them for one; what has little in it is sent.
func TestNothingInIt(t *testing.T) {
	var socket fakeSocket
	e := newTestExporter(t, Config{}, &socket)
	for _, err := range []error{
		e.SendWire(nil),
		e.SendBatch([][]byte{wire(0), {}, wire(1)}),
		e.SendJSON([]byte("{}\n")),
		e.SendJSON([]byte(`{"time":"2026-07-01T10:57:21Z","level":"INFO","msg":"of another program"}`)),
		e.SendJSON([]byte(`{"node_name":"node-2"}`)),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	lines, _ := socket.events()
	wantLines(t, lines, 0, 3)
	if a := check(t, e); a.Seen != 7 || a.Dropped[ledger.Invalid] != 4 {
		t.Errorf("account %+v", a)
	}
}
