package collector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"tetracast/ledger"
)

// foreign returns a datagram of another sender.
func foreign(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/foreign/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEventsInForeignMessages: what another sender made of an event's line is that
// event, byte for byte.
func TestEventsInForeignMessages(t *testing.T) {
	quoted, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	escaped := strings.ReplaceAll(string(quoted), `\"`, `\u0022`)
	octets := foreign(t, "octet-count.txt")
	inFile := octets[strings.IndexByte(octets, '{') : strings.LastIndexByte(octets, '}')+1]
	syslog := "<13>1 2026-03-15T00:06:31Z a tet - - - " + event
	tests := []struct{ name, datagram, want string }{
		{"byte order mark", foreign(t, "bomonly.json"), inFile},
		{"octet count", octets, inFile},
		{"two messages in one datagram", foreign(t, "two-syslog.txt"), inFile + "\n" + inFile},
		{"two messages with their lengths", fmt.Sprintf("%d %s%d %s", len(syslog), syslog, len(syslog), syslog), event + "\n" + event},
		{"docker, gelf", foreign(t, "dockergelf.json"), inFile},
		{"vector", `{"host":"h","message":` + string(quoted) + `,"source_type":"file","timestamp":"2026-01-01T00:00:00Z"}`, event},
		{"logstash", `{"@timestamp":"2026-01-01T00:00:00Z","@version":"1","message":` + string(quoted) + `,"host":{"name":"h"}}`, event},
		{"filebeat", `{"@timestamp":"2026-01-01T00:00:00Z","@metadata":{"beat":"filebeat"},"log":{"offset":1},"message":` + string(quoted) + `}`, event},
		{"fluentd", `{"message":` + string(quoted) + `,"tag":"tetragon"}`, event},
		{"fluent bit", `{"date":1.5,"log":` + strings.TrimSuffix(string(quoted), `"`) + `\n","stream":"stdout"}`, event},
		{"journald", `{"__CURSOR":"s=1","PRIORITY":"6","MESSAGE":` + string(quoted) + `,"_PID":"7"}`, event},
		{"escaped", `{"message":` + escaped + `}`, event},
		{"in syslog", "<13>1 2026-03-15T00:06:31Z a vector - - - " + `{"message":` + string(quoted) + `}`, event},
		{"behind text", "<13>Mar 15 00:06:31 h tetragon: {level} " + event, event},
		{"behind a header without a priority", "2026-03-15T00:06:31Z h tetragon[7]: " + event, event},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := new(memory)
				_, socket, end := start(t, Config{Sink: out})
				socket.send(agentA, test.datagram)
				a := end()
				want := strings.SplitAfter(test.want+"\n", "\n")
				want = want[:len(want)-1]
				if got := out.got(); strings.Join(got, "") != strings.Join(want, "") || a.Received != uint64(len(want)) || a.Undecodable.Total() != 0 {
					t.Errorf("received %d, undecodable %s\n%s\nwant\n%s", a.Received, a.Undecodable.String(), strings.Join(got, ""), strings.Join(want, ""))
				}
			})
		})
	}
}

// TestNoEvents: what looks like one at its beginning only, and text of any kind, is
// counted, and passed on whole where that was asked for.
func TestNoEvents(t *testing.T) {
	texts := map[string]string{ // by the fault that they count as; passed on as text
		"brace":                     foreign(t, "brace.txt"),
		"cef":                       foreign(t, "cef.txt"),
		"fortigate":                 foreign(t, "fortigate.txt"),
		"no priority":               foreign(t, "nopri.txt"),
		"json in RFC 5424":          `<134>1 2026-03-15T00:06:31Z host app 7 id [x@1 a="b"] {"a":1}`,
		"half an object in syslog":  `<13>Mar 15 00:06:31 h app: {"a":`,
		"braces that are no object": `{b} hello`,
		"latin-1":                   "<13>Mar 15 00:06:31 h app: gr\xfc\xdfe {",
		"text and an object":        `prefix {"a":1}`,
	}
	for name, d := range texts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, other := range []string{OtherDrop, OtherPass} {
					out := new(memory)
					_, socket, end := start(t, Config{Sink: out, Other: other})
					socket.send(agentA, d)
					a := end()
					if other == OtherDrop {
						if a.Undecodable.Total() != 1 || len(out.got()) != 0 {
							t.Errorf("undecodable %s, lines %q", a.Undecodable.String(), out.got())
						}
						continue
					}
					var line struct {
						Other struct{ Message, Source string } `json:"tetracast_other"`
					}
					if len(out.got()) != 1 || json.Unmarshal([]byte(out.got()[0]), &line) != nil || a.PassedOn != 1 || a.Undecodable.Total() != 0 {
						t.Fatalf("passed on %d, undecodable %s: %q", a.PassedOn, a.Undecodable.String(), out.got())
					}
					want := strings.TrimRight(string(bytes.ToValidUTF8([]byte(d), []byte("\uFFFD"))), "\n")
					if line.Other.Message != want || line.Other.Source != agentA.String() {
						t.Errorf("passed on %q, want %q", line.Other.Message, want)
					}
				}
			})
		})
	}
	objects := []string{
		foreign(t, "slog.jsonl"),
		`{"time":"2026-07-01T10:57:21Z","level":"info","msg":"BPF events statistics: 20 received"}`, // as Tetragon's own log
		`{"process_exec":{"process":{"binary":"a"}}}`, `{"node_name":"n","cpu":1}`, `{"test":"passed","time":""}`, `{}`,
		`{"message":"{\"a\":1}"}`,
	}
	for _, d := range objects {
		synctest.Test(t, func(t *testing.T) {
			for _, other := range []string{OtherDrop, OtherPass} {
				out := new(memory)
				_, socket, end := start(t, Config{Sink: out, Other: other})
				socket.send(agentA, d)
				a := end()
				if other == OtherDrop && (a.Undecodable[ledger.FaultNotEvent] != 1 || len(out.got()) != 0) ||
					other == OtherPass && (a.PassedOn != 1 || strings.TrimSpace(strings.Join(out.got(), "")) != strings.TrimSpace(d)) {
					t.Errorf("%s, %s: passed on %d, undecodable %s: %q", d, other, a.PassedOn, a.Undecodable.String(), out.got())
				}
			}
		})
	}
}

// TestNotEvenText: what is no text is not passed on as one.
func TestNotEvenText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out, Other: OtherPass})
		socket.send(agentA, "\x00\x01\x02", "ab\x03", event[:20])
		if a := end(); a.Undecodable.Total() != 3 || len(out.got()) != 0 {
			t.Errorf("undecodable %s: %q", a.Undecodable.String(), out.got())
		}
	})
}

// TestAnEventWithoutTimeOfAnAgent: from an address that has said which agent it is, what
// has a kind is an event: an embedder may send events that have neither time nor node.
func TestAnEventWithoutTimeOfAnAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bare := `{"process_exec":{"process":{"binary":"a"}}}`
		_, socket, end := start(t, Config{Sink: new(memory)})
		socket.send(agentA, agentInit("node-1", 7, "2026-01-01T00:00:00Z"), bare)
		socket.send(agentB, bare)
		if a := end(); a.Received != 1 || a.Undecodable[ledger.FaultNotEvent] != 1 {
			t.Errorf("received %d, undecodable %s", a.Received, a.Undecodable.String())
		}
	})
}

// TestManyMessagesInOneDatagram: however many there seem to be, what is written of them
// is bounded.
func TestManyMessagesInOneDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(memory)
		_, socket, end := start(t, Config{Sink: out, Other: OtherPass})
		d := strings.Repeat("<1>\n", 65507/4)
		socket.send(agentA, d)
		end()
		written := 0
		for _, line := range out.got() {
			written += len(line)
		}
		if written > 3*len(d) {
			t.Errorf("%d lines of %d bytes of a datagram of %d", len(out.got()), written, len(d))
		}
	})
}
