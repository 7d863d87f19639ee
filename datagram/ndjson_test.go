package datagram_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"tetracast/datagram"
)

// unpackNDJSON returns the lines of all datagrams.
func unpackNDJSON(t testing.TB, datagrams [][]byte) (lines []string) {
	t.Helper()
	for _, d := range datagrams {
		for p, err := range datagram.UnpackNDJSON(d) {
			if err != nil {
				t.Fatalf("%q: %v", d, err)
			}
			lines = append(lines, string(p.JSON))
		}
	}
	return lines
}

// TestNDJSON sends the whole sample through, once with lines that lie behind
// each other in memory and once with lines that do not.
func TestNDJSON(t *testing.T) {
	events := upTo(datagram.MaxPayload, sampleEvents())
	var together []byte
	joined := make([]datagram.Event, len(events))
	for _, e := range events {
		together = append(together, e.Line...)
	}
	n := 0
	for i, e := range events {
		joined[i] = datagram.Event{Line: together[n : n+len(e.Line)]}
		n += len(e.Line)
	}
	for _, shared := range []int{0, 1232, 8192} {
		for _, in := range [][]datagram.Event{events, joined} {
			datagrams := pack(t, datagram.NewNDJSON(datagram.JSONConfig{MaxShared: shared}), agentInit, in)
			limit := shared
			if limit == 0 {
				limit = datagram.MaxPayload
			}
			for _, d := range datagrams {
				if len(d) > limit && bytes.Count(d, []byte("\n")) > 1 {
					t.Fatalf("%d events share %d bytes, want at most %d", bytes.Count(d, []byte("\n")), len(d), limit)
				}
				if d[len(d)-1] != '\n' {
					t.Fatalf("a datagram ends in %q, want a newline", d[len(d)-1])
				}
			}
			lines := unpackNDJSON(t, datagrams)
			if len(lines) != len(events)+1 || lines[0] != agentInit {
				t.Fatalf("%d lines, want %d and agent_init first", len(lines), len(events)+1)
			}
			for i, e := range events {
				if lines[i+1] != line(e) {
					t.Fatalf("event %d: got\n%s\nwant\n%s", i, lines[i+1], line(e))
				}
			}
		}
	}
}

// TestNDJSONFills wants a datagram to be full to the byte, and no longer.
func TestNDJSONFills(t *testing.T) {
	f := func(max int, lines []string, want ...int) {
		t.Helper()
		var b datagram.Batch
		p := datagram.NewNDJSON(datagram.JSONConfig{MaxShared: max, MaxDatagram: 100})
		for _, l := range lines {
			if err := p.Pack(&b, &datagram.Event{Line: []byte(l)}); err != nil {
				t.Fatal(err)
			}
		}
		p.Flush(&b)
		if got := strings.Join(lines, ""); got != string(bytes.Join(b.Datagrams, nil)) {
			t.Errorf("sent %q, want %q", b.Datagrams, got)
		}
		if len(b.Events) != len(want) {
			t.Fatalf("%d datagrams, want %d: %q", len(b.Events), len(want), b.Datagrams)
		}
		for i := range want {
			if b.Events[i] != want[i] {
				t.Errorf("datagram %d holds %d events, want %d", i, b.Events[i], want[i])
			}
		}
	}
	f(20, []string{"{\"a\":1234}\n", "{\"b\":56}\n", "{}\n"}, 2, 1)
	f(19, []string{"{\"a\":1234}\n", "{\"b\":56}\n", "{}\n"}, 1, 2)
	f(5, []string{"{\"a\":1234}\n", "{}\n"}, 1, 1)
	f(100, nil)
}

func TestNDJSONOversize(t *testing.T) {
	p := datagram.NewNDJSON(datagram.JSONConfig{MaxShared: 10, MaxDatagram: 12})
	var b datagram.Batch
	if err := p.Pack(&b, &datagram.Event{Line: []byte("{\"a\":12345}\n")}); err != nil {
		t.Errorf("12 bytes with a limit of 12: %v", err)
	}
	if err := p.Pack(&b, &datagram.Event{Line: []byte("{\"a\":123456}\n")}); !errors.Is(err, datagram.ErrOversize) {
		t.Errorf("13 bytes with a limit of 12: got %v, want ErrOversize", err)
	}
	if len(b.Datagrams) != 1 {
		t.Errorf("%d datagrams, want the first alone", len(b.Datagrams))
	}
}

// TestNDJSONKeeps lets an event wait over a Reset after which the memory of its
// line changes.
func TestNDJSONKeeps(t *testing.T) {
	for _, forget := range []bool{false, true} {
		var b datagram.Batch
		p := datagram.NewNDJSON(datagram.JSONConfig{})
		for _, text := range []string{"{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}\n"} {
			memory := []byte(text)
			if err := p.Pack(&b, &datagram.Event{Line: memory}); err != nil {
				t.Fatal(err)
			}
			p.Keep()
			if forget {
				b.Forget()
			} else {
				scratch(&b)
			}
			clear(memory)
		}
		if p.Waiting() != 3 {
			t.Errorf("%d events wait, want 3", p.Waiting())
		}
		p.Flush(&b)
		if got, want := string(b.Datagrams[0]), "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n"; got != want {
			t.Errorf("forget %v: got %q, want %q", forget, got, want)
		}
	}
}

func TestUnpackNDJSON(t *testing.T) {
	f := func(in string, want ...string) {
		t.Helper()
		var got []string
		for p, err := range datagram.UnpackNDJSON([]byte(in)) {
			if err != nil {
				got = append(got, err.Error())
			} else {
				got = append(got, string(p.JSON))
			}
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	const event = `{"process_exec":{},"time":"2026-01-01T00:00:00Z"}`
	f(event, event)
	f(event+"\n", event)
	f(event+"\r\n"+event+"\r\n", event, event)
	f("\n \n"+event+"\n\n"+agentInit, event, agentInit)
	f(event+"\nhello\n"+event, event, datagram.ErrNotJSON.Error(), event)
	f(event+"\n{\"process_ex", event, datagram.ErrCutOff.Error())
	f(`{"a":1}`+"\n"+event, datagram.ErrNotEvent.Error(), event)
	f("", datagram.ErrEmpty.Error())
	f("\r\n \t", datagram.ErrEmpty.Error())
}

func TestNDJSONAllocates(t *testing.T) {
	packAllocates(t, datagram.NewNDJSON(datagram.JSONConfig{MaxShared: 1232}))
	in := []byte("{\"process_exec\":{},\"time\":\"\"}\n{\"process_exit\":{},\"time\":\"\"}\n")
	if n := testing.AllocsPerRun(100, func() {
		for _, err := range datagram.UnpackNDJSON(in) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("unpacking costs %v allocations, want 0", n)
	}
}

// FuzzNDJSON wants what comes out to be what UnpackJSON makes of the lines, and
// to go through the packer unchanged.
func FuzzNDJSON(f *testing.F) {
	f.Add([]byte("{\"process_exec\":{}}\n{\"process_exit\":{\"a\":\"\\n\"}}\r\n\n{\"x"), 30)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		var want []string
		var events []datagram.Event
		for p, err := range datagram.UnpackNDJSON(in) {
			if err == nil && len(p.JSON) < datagram.MaxPayload {
				want = append(want, string(p.JSON))
				events = append(events, datagram.Event{Line: append(bytes.Clone(p.JSON), '\n')})
			}
		}
		got := unpackNDJSON(t, pack(t, datagram.NewNDJSON(datagram.JSONConfig{MaxShared: limit}), "", events))
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("%q: got %q, want %q", in, got, want)
		}
	})
}
