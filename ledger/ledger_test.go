package ledger

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestReasonTextsAreDistinctAndComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Reasons() {
		text := r.String()
		if text == "" || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("reason %d has the text %q: want lower case words joined by _", r, text)
		}
		if seen[text] {
			t.Errorf("two reasons have the text %q", text)
		}
		seen[text] = true
	}
	for f := range numFaults {
		if f.String() == "" {
			t.Errorf("fault %d has no text", f)
		}
	}
	if got := Reason(200).String(); got != "reason(200)" {
		t.Errorf("unknown reason: %q", got)
	}
}

func TestDropsJSON(t *testing.T) {
	var d Drops
	d[Oversize], d[Shutdown] = 2, 1
	text, err := json.Marshal(d)
	if err != nil || string(text) != `{"oversize":2,"shutdown":1}` {
		t.Fatalf("marshalled %s, %v", text, err)
	}
	var back Drops
	if err := json.Unmarshal(text, &back); err != nil || back != d {
		t.Fatalf("read back %v, %v; want %v", back, err, d)
	}
	if err := json.Unmarshal([]byte(`{"gone_fishing":1}`), &back); err == nil {
		t.Error("an unknown reason was accepted")
	}
	if back != d {
		t.Error("a failed read changed the value")
	}
	if got := d.String(); got != "oversize 2, shutdown 1" {
		t.Errorf("text %q", got)
	}
	if got := new(Drops).String(); got != "none" {
		t.Errorf("text of nothing: %q", got)
	}
}

func TestExporterCloses(t *testing.T) {
	account := Exporter{Seen: 10, Excluded: 1, Streams: []Stream{{Sent: 6, Queued: 1}}}
	account.Dropped[QueueFullProcess] = 1
	account.Streams[0].Dropped[Oversize] = 1
	if err := account.Close(); err != nil || !*account.Closes {
		t.Fatalf("a whole account does not close: %v", err)
	}
	// A figure that moves by one, whichever, breaks it.
	for name, change := range map[string]func(*Exporter){
		"seen":            func(e *Exporter) { e.Seen++ },
		"excluded":        func(e *Exporter) { e.Excluded++ },
		"dropped, intake": func(e *Exporter) { e.Dropped[Invalid]++ },
		"dropped, stream": func(e *Exporter) { e.Streams[0].Dropped[Refused]++ },
		"sent":            func(e *Exporter) { e.Streams[0].Sent++ },
		"queued":          func(e *Exporter) { e.Streams[0].Queued++ },
	} {
		broken := account
		broken.Streams = []Stream{account.Streams[0]}
		change(&broken)
		if err := broken.Close(); err == nil || *broken.Closes {
			t.Errorf("%s is off by one and the account still closes", name)
		}
	}
}

func TestCollectorCloses(t *testing.T) {
	known := func(n uint64) *uint64 { return &n }
	account := func() Collector {
		c := Collector{Received: 5, Delivered: 3, Queued: 1, Agents: []Agent{{Streams: []AgentStream{{
			Received: 5, Announced: known(7), Missing: known(1), RefusedBySender: known(1), Ended: EndedGoodbye}}}}}
		c.Dropped[SinkFull] = 1
		return c
	}
	whole := account()
	if err := whole.Close(); err != nil || whole.Closes == nil || !*whole.Closes {
		t.Fatalf("a whole account does not close: %v", err)
	}
	open := account()
	open.Agents[0].Streams[0].Ended = EndedUnknown
	if err := open.Close(); err != nil || open.Closes != nil {
		t.Errorf("an unknown end: closes %v, error %v; want unknown and none", open.Closes, err)
	}
	for name, change := range map[string]func(*Collector){
		"received":  func(c *Collector) { c.Received++ },
		"delivered": func(c *Collector) { c.Delivered++ },
		"queued":    func(c *Collector) { c.Queued++ },
		"dropped":   func(c *Collector) { c.Dropped[SinkFailed]++ },
		"stream":    func(c *Collector) { c.Agents[0].Streams[0].Received++ },
		"missing":   func(c *Collector) { c.Agents[0].Streams[0].Missing = known(2) },
	} {
		broken := account()
		change(&broken)
		if err := broken.Close(); err == nil || broken.Closes == nil || *broken.Closes {
			t.Errorf("%s is off by one and the account still closes", name)
		}
	}
}

// TestAccountShape keeps the JSON shape that operators' scripts read.
func TestAccountShape(t *testing.T) {
	f := func(account any, want string) {
		t.Helper()
		got, err := json.Marshal(account)
		if err != nil || string(got) != want {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
	f(Exporter{Side: "exporter", Upstream: map[string]*uint64{"ring_buffer": nil}, Streams: []Stream{{Stream: "00000000000000ff", Destination: "h:1"}}},
		`{"side":"exporter","seen":0,"excluded":0,"dropped":{},"subscription_breaks":0,"blind_ms":null,"overlap":0,"upstream":{"ring_buffer":null},"observed":{"sndbuf_errors_netns":null,"icmp_answers":null},"closes":null,`+
			`"streams":[{"stream":"00000000000000ff","destination":"h:1","dropped":{},"sent":0,"queued":0,"datagrams":0,"bytes":0,"truncated":0}]}`)
	f(Collector{Side: "collector", Agents: []Agent{{Hostname: "h", Streams: []AgentStream{{Stream: "s", Ended: EndedUnknown}}}}},
		`{"side":"collector","datagrams":0,"bytes":0,"undecodable_datagrams":{},"observed":{"socket_dropped":0},`+
			`"received":0,"dropped":{},"queued":0,"delivered":0,"closes":null,`+
			`"agents":[{"hostname":"h","restarts":0,"streams":[{"stream":"s","announced":null,"received":0,"duplicate":null,"late":null,"incomplete":null,"missing":null,`+
			`"refused_by_sender":null,"unknown":null,"ended":"unknown","sender":null}],"away":{"times":0,"ms":0}}]}`)
}
