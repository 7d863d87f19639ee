package datagram

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPackJSON(t *testing.T) {
	line := []byte(`{"process_exec":{}}` + "\n")
	f := func(maxDatagram int, want error) {
		t.Helper()
		var b Batch
		err := NewJSON(JSONConfig{MaxDatagram: maxDatagram}).Pack(&b, &Event{Number: 1, Line: line})
		if !errors.Is(err, want) {
			t.Fatalf("limit %d: error %v, want %v", maxDatagram, err, want)
		}
		if err != nil {
			if len(b.Datagrams) != 0 {
				t.Errorf("limit %d: a refused event left a datagram", maxDatagram)
			}
			return
		}
		if &b.Datagrams[0][0] != &line[0] || b.Events[0] != 1 {
			t.Errorf("limit %d: the datagram is not the event's own bytes", maxDatagram)
		}
	}
	f(0, nil)
	f(len(line), nil)
	f(len(line)-1, ErrOversize)
	line = append(bytes.Repeat([]byte{' '}, MaxPayload), '\n')
	f(1<<20, ErrOversize)
}

func TestUnpackJSON(t *testing.T) {
	f := func(in string, kind Kind, want string) {
		t.Helper()
		p, err := UnpackJSON([]byte(in))
		if err != nil || p.Kind != kind || string(p.JSON) != want {
			t.Errorf("%.60q: kind %d, %q, %v; want kind %d, %q", in, p.Kind, p.JSON, err, kind, want)
		}
		if p.Repaired != (strings.TrimSpace(in) != want) {
			t.Errorf("%.60q: repaired %v", in, p.Repaired)
		}
	}
	f(`{"process_exec":{},"time":"2026-01-01T00:00:00Z"}`+"\n", KindEvent, `{"process_exec":{},"time":"2026-01-01T00:00:00Z"}`)
	f(" {\"node_name\":\"n\",\"process_kprobe\":{\"args\":[1,-0.5e+3,true,false,null,\"\\u00e4\\n\"]}}\r\n", KindEvent,
		`{"node_name":"n","process_kprobe":{"args":[1,-0.5e+3,true,false,null,"\u00e4\n"]}}`)
	f(`{"node_name":"from a newer Tetragon","time":"2026-01-01T00:00:00Z"}`, KindEvent, `{"node_name":"from a newer Tetragon","time":"2026-01-01T00:00:00Z"}`)
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_init"}`, KindAgentInit, `{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_init"}`)
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats"}`, KindAgentStats, `{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats"}`)
	f("{\n \"process_exec\":\n{ } ,\n\"time\" : \"\"}", KindEvent, `{"process_exec":{},"time":""}`)
	f("{\"process_exec\":{\"a\":\"\xff\xfe \xed\xa0\x80 \u2028\"},\"node_name\":\"\"}", KindEvent, "{\"process_exec\":{\"a\":\"\uFFFD \uFFFD \u2028\"},\"node_name\":\"\"}")
}

func TestUnpackJSONJunk(t *testing.T) {
	f := func(in string, want error) {
		t.Helper()
		p, err := UnpackJSON([]byte(in))
		if !errors.Is(err, want) || p.JSON != nil && want != ErrNotEvent || p.Kind != 0 {
			t.Errorf("%.60q: %+v, error %v; want %v", in, p, err, want)
		}
	}
	f("", ErrEmpty)
	f("\x00", ErrNotJSON)
	f("   ", ErrNotJSON)
	f("hello", ErrNotJSON)
	f(`["process_exec"]`, ErrNotJSON)
	f(`{"a":01}`, ErrNotJSON)
	f(`{"a":+1}`, ErrNotJSON)
	f(`{"a":1}}`, ErrNotJSON)
	f(`{"a":1} {"b":2}`, ErrNotJSON)
	f(`{"a":[1}`, ErrNotJSON)
	f("{\"a\":\"line\nbreak\"}", ErrNotJSON)
	f(`{"a":"\x"}`, ErrNotJSON)
	f(`{"a":"\u12g4"}`, ErrNotJSON)
	f(`{,}`, ErrNotJSON)
	f(`{"a":1,}`, ErrNotJSON)
	f(`{"a":`+strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth)+`}`, ErrNotJSON)
	f(`{}`, ErrNotEvent)
	f(`{"a":"process_exec"}`, ErrNotEvent)
	f(`{"@timestamp":"x","event":"login"}`, ErrNotEvent)
	f(`{"@timestamp":"x"}`, ErrNotEvent)
	f(`{"process_exec":{"process":{"binary":"a"}}}`, ErrNotEvent) // neither a time nor a node
	f(`{"process_exec":"text","time":"2026-01-01T00:00:00Z"}`, ErrNotEvent)
	f(`{"process_exec":[],"time":"2026-01-01T00:00:00Z"}`, ErrNotEvent)
	f(`{"process_exec":{"time":"inside","node_name":"inside"}}`, ErrNotEvent)
	f(`{"time":"2026-07-01T10:57:21Z","level":"INFO","msg":"hook request to agent succeeded"}`, ErrNotEvent)
	f(`{"time":"2026-07-01T10:57:21Z","node_name":"n","level":"INFO"}`, ErrNotEvent)
	f(`{"time":"2026-07-01T10:57:21Z"}`, ErrNotEvent)
	f(`{"node_name":"n"}`, ErrNotEvent)
	f(`{"test":"passed","time":"2026-07-01T10:57:21Z"}`, ErrNotEvent)
	f(`{"process_name":"sshd","time":"2026-07-01T10:57:21Z"}`, ErrNotEvent)
	whole := `{"process_exec":{"a":[true,null,-1.5e3,"\u00e4\\"],"b":{}}}`
	for i := 1; i < len(whole); i++ {
		f(whole[:i], ErrCutOff)
	}
}

func TestUnpackJSONAllocates(t *testing.T) {
	event := []byte(`{"process_exec":{"process":{"binary":"/usr/bin/ls","arguments":"ä"}},"time":"2026-01-01T00:00:00Z"}` + "\n")
	if n := testing.AllocsPerRun(100, func() { _, _ = UnpackJSON(event) }); n != 0 {
		t.Errorf("an event costs %v allocations, want 0", n)
	}
	junk := []byte(`{"process_exec":`)
	if n := testing.AllocsPerRun(100, func() { _, _ = UnpackJSON(junk) }); n != 0 {
		t.Errorf("junk costs %v allocations, want 0", n)
	}
}

// FuzzUnpackJSON holds the scanner to the standard library's answer.
func FuzzUnpackJSON(f *testing.F) {
	for _, seed := range []string{`{"process_exec":{}}`, "{\"time\":\"\xff\"}\n", `{"a":[1,2,{"b":null}]}`, `{"@timestamp":"x","event":"agent_init"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := UnpackJSON(in)
		isObject := json.Valid(in) && bytes.TrimLeft(in, " \t\r\n")[0] == '{'
		switch {
		case err == nil || errors.Is(err, ErrNotEvent):
			if !isObject {
				t.Fatalf("accepted %q", in)
			}
		case isObject && bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) < maxDepth:
			t.Fatalf("refused %q: %v", in, err)
		}
		if err == nil && (!json.Valid(p.JSON) || !utf8.Valid(p.JSON) || bytes.ContainsAny(p.JSON, "\r\n")) {
			t.Fatalf("%q became %q", in, p.JSON)
		}
	})
}

func BenchmarkUnpackJSON(b *testing.B) {
	event := []byte(`{"process_exec":{"process":{"exec_id":"ZWRnZS1ub2RlLTAxOjEyMzQ1Njc4OTo0Mg==","pid":4242,"binary":"/usr/bin/ls","arguments":"` +
		strings.Repeat("an argument ", 60) + `","caps":["CAP_CHOWN","CAP_SYS_ADMIN"]}},"node_name":"edge-node-01"}` + "\n")
	b.Run("unpack", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(event)))
		for b.Loop() {
			_, _ = UnpackJSON(event)
		}
	})
	b.Run("rival-json.Valid", func(b *testing.B) {
		b.SetBytes(int64(len(event)))
		for b.Loop() {
			json.Valid(event)
		}
	})
	b.Run("floor-copy", func(b *testing.B) {
		dst := make([]byte, len(event))
		b.SetBytes(int64(len(event)))
		for b.Loop() {
			copy(dst, event)
		}
	})
}

// TestSequence: the member is the last one, the rest of the line stays as it is,
// and what was written is read.
func TestJSONSequence(t *testing.T) {
	c := JSONConfig{Stream: 0x5eb63bbbe01eeed0, Sequence: true}
	const event = `{"process_exec":{"process":{"pid":1}}}`
	const want = `{"process_exec":{"process":{"pid":1}},"tetracast":{"stream":"5eb63bbbe01eeed0","seq":17,"dropped":3}}` + "\n"
	const record = `{"@timestamp":"2026-01-02T03:04:05Z","event":"agent_init"}`
	const wantRecord = `{"@timestamp":"2026-01-02T03:04:05Z","event":"agent_init","tetracast":{"stream":"5eb63bbbe01eeed0"}}` + "\n"
	for _, p := range []interface {
		Packer
		Limiter
		Stamper
	}{NewJSON(c), NewNDJSON(c)} {
		p.SetDropped(3)
		var b Batch
		e := &Event{Number: 17, Line: []byte(event + "\n")}
		if err := p.Pack(&b, e); err != nil {
			t.Fatal(err)
		}
		p.Flush(&b)
		p.PackRecord(&b, []byte(record+"\n"))
		if string(b.Datagrams[0]) != want || string(b.Datagrams[1]) != wantRecord {
			t.Errorf("got %q", b.Datagrams)
		}
		if left := MaxPayload - p.MaxLine(e); left != len(want)-len(event)-1 {
			t.Errorf("MaxLine leaves %d bytes, the member takes %d", left, len(want)-len(event)-1)
		}
		for i, mark := range []Mark{{Stream: c.Stream, Number: 17, Dropped: 3}, {Stream: c.Stream}} {
			if payload, err := UnpackJSON(b.Datagrams[i]); err != nil || payload.Mark != mark {
				t.Errorf("read %+v, %v, want %+v", payload.Mark, err, mark)
			}
		}
	}
}

// TestMark: what only looks like the member is none.
func TestMark(t *testing.T) {
	for _, text := range []string{
		`{"node_name":"","process_exec":{"tetracast":{"stream":"5eb63bbbe01eeed0","seq":17,"dropped":3}}}`,
		`{"process_exec":{},"time":"","tetracast":{"stream":"5eb63bbbe01eeed","seq":17,"dropped":3}}`,
		`{"process_exec":{},"time":"","tetracast":{"seq":17,"dropped":3}}`,
		`{"process_exec":{},"node_name":",\"tetracast\":{\"stream\":\"5eb63bbbe01eeed0\",\"seq\":1}}"}`,
	} {
		if p, err := UnpackJSON([]byte(text)); err != nil || p.Mark != (Mark{}) {
			t.Errorf("%s: mark %+v, %v", text, p.Mark, err)
		}
	}
}
