package datagram_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"tetracast/datagram"
	"tetracast/transcode"
)

var syslogConfig = datagram.SyslogConfig{Stream: 0x0123456789abcdef, Hostname: "edge-node-01", ProcID: "42"}

// TestSyslogGolden shows what is written, for each kind and action.
func TestSyslogGolden(t *testing.T) {
	p := datagram.NewSyslog(syslogConfig)
	p.SetDropped(7)
	golden(t, "syslog.golden", pack(t, p, agentInit, chosen()))
	old := syslogConfig
	old.RFC3164 = true
	golden(t, "syslog3164.golden", pack(t, datagram.NewSyslog(old), agentInit, chosen()))
}

// TestSyslog sends the whole sample through.
func TestSyslog(t *testing.T) {
	events := upTo(datagram.MaxPayload-300, sampleEvents())
	for _, bom := range []bool{false, true} {
		c := syslogConfig
		c.BOM = bom
		p := datagram.NewSyslog(c)
		p.SetDropped(5)
		datagrams := pack(t, p, "", events)
		for i, e := range events {
			payload, err := datagram.UnpackSyslog(datagrams[i])
			mark := payload.Mark
			if err != nil || strings.ReplaceAll(string(payload.JSON), `\u007f`, "\x7f") != line(e) || payload.Kind != datagram.KindEvent {
				t.Fatalf("event %d: %v, got\n%s\nwant\n%s", i, err, payload.JSON, e.Line)
			}
			if want := (datagram.Mark{Stream: c.Stream, Number: e.Number, Dropped: 5}); mark != want {
				t.Fatalf("event %d: mark %+v, want %+v", i, mark, want)
			}
			if bytes.Contains(datagrams[i], []byte("\ufeff{")) != bom {
				t.Fatalf("event %d: byte order mark, want %v", i, bom)
			}
		}
	}
}

// TestSyslogOfLines wants an event that came as a line of JSON to look like one
// that came as protobuf.
func TestSyslogOfLines(t *testing.T) {
	events := chosen()
	want := pack(t, datagram.NewSyslog(syslogConfig), "", events)
	lines := make([]datagram.Event, len(events))
	for i, e := range events {
		lines[i] = datagram.Event{Number: e.Number, Line: e.Line}
	}
	for i, got := range pack(t, datagram.NewSyslog(syslogConfig), "", lines) {
		if !bytes.Equal(got, want[i]) {
			t.Errorf("event %d: got\n%s\nwant\n%s", i, got, want[i])
		}
	}
}

var syslogHeader = regexp.MustCompile(`^<(\d+)>1 (\S+) (\S+) (\S+) (\S+) (\S+) \[meta sequenceId="(\d+)"\]\[tetracast@(\d+) stream="[0-9a-f]{16}"( seq="\d+")? dropped="\d+"\] \{`)

// one packs one event and returns the header's fields from PRI on.
func one(t *testing.T, p *datagram.Syslog, s transcode.Summary) []string {
	t.Helper()
	var b datagram.Batch
	if err := p.Pack(&b, &datagram.Event{Number: 1, Line: []byte("{}\n"), Summary: &s}); err != nil {
		t.Fatal(err)
	}
	fields := syslogHeader.FindStringSubmatch(string(b.Datagrams[0]))
	if fields == nil {
		t.Fatalf("no header of RFC 5424: %s", b.Datagrams[0])
	}
	return fields[1:]
}

func TestSyslogTime(t *testing.T) {
	p := datagram.NewSyslog(datagram.SyslogConfig{})
	f := func(seconds int64, nanos int32, want string) {
		t.Helper()
		if got := one(t, p, transcode.Summary{HasTime: true, Seconds: seconds, Nanos: nanos})[1]; got != want {
			t.Errorf("%d.%09d: got %s, want %s", seconds, nanos, got, want)
		}
	}
	f(0, 0, "1970-01-01T00:00:00.000000Z")
	f(1763893416, 27393617, "2025-11-23T10:23:36.027393Z")
	f(1763893416, 999999999, "2025-11-23T10:23:36.999999Z")
	f(1763893417, 1000, "2025-11-23T10:23:37.000001Z")
	f(-1, 5000, "1969-12-31T23:59:59.000005Z")
	f(253402300799, 0, "9999-12-31T23:59:59.000000Z")
	f(253402300800, 0, "-")
	f(0, -1, "-")
	if got := one(t, p, transcode.Summary{})[1]; got != "-" {
		t.Errorf("without a time: got %s, want -", got)
	}
}

// TestSyslogWithoutTime: what has no time that can be written is dated with the time of
// sending, in both forms, and that does not change the summary.
func TestSyslogWithoutTime(t *testing.T) {
	now := time.Date(2026, 7, 1, 23, 30, 5, 123456789, time.UTC)
	clock := func() time.Time { return now }
	zone := time.FixedZone("east", 2*60*60)
	for _, s := range []transcode.Summary{{}, {HasTime: true, Seconds: 1 << 60}, {HasTime: true, Nanos: -1}} {
		before := s
		if got := one(t, datagram.NewSyslog(datagram.SyslogConfig{Now: clock, Zone: zone}), s)[1]; got != "2026-07-01T23:30:05.123456Z" {
			t.Errorf("RFC 5424: %s", got)
		}
		for _, test := range []struct {
			zone *time.Location
			want string
		}{{nil, "<30>Jul  1 23:30:05 "}, {zone, "<30>Jul  2 01:30:05 "}} {
			var b datagram.Batch
			p := datagram.NewSyslog(datagram.SyslogConfig{RFC3164: true, Now: clock, Zone: test.zone})
			if err := p.Pack(&b, &datagram.Event{Number: 1, Line: []byte("{}\n"), Summary: &s}); err != nil || !bytes.HasPrefix(b.Datagrams[0], []byte(test.want)) {
				t.Errorf("RFC 3164: %v, %s, want %s", err, b.Datagrams, test.want)
			}
		}
		if !reflect.DeepEqual(s, before) {
			t.Error("the summary was changed")
		}
	}
}

// TestSyslogZone: the zone's own rules hold for each event, over the end of summer time
// too; RFC 5424 stays in UTC.
func TestSyslogZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED:", err)
	}
	end := time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC) // 03:00 becomes 02:00
	p := datagram.NewSyslog(datagram.SyslogConfig{RFC3164: true, Zone: berlin})
	for _, test := range []struct {
		at   time.Duration
		want string
	}{{-time.Second, ">Oct 25 02:59:59 "}, {0, ">Oct 25 02:00:00 "}, {time.Hour, ">Oct 25 03:00:00 "}, {-time.Hour, ">Oct 25 02:00:00 "}} {
		var b datagram.Batch
		s := transcode.Summary{HasTime: true, Seconds: end.Add(test.at).Unix()}
		if err := p.Pack(&b, &datagram.Event{Number: 1, Line: []byte("{}\n"), Summary: &s}); err != nil || !bytes.Contains(b.Datagrams[0], []byte(test.want)) {
			t.Errorf("%v: %v, %s, want %s", test.at, err, b.Datagrams, test.want)
		}
	}
	if got := one(t, datagram.NewSyslog(datagram.SyslogConfig{Zone: berlin}), transcode.Summary{HasTime: true, Seconds: end.Unix()})[1]; got != "2026-10-25T01:00:00.000000Z" {
		t.Errorf("RFC 5424: %s", got)
	}
}

func TestSyslogNames(t *testing.T) {
	long := strings.Repeat("n", 300)
	f := func(c datagram.SyslogConfig, want ...string) {
		t.Helper()
		got := one(t, datagram.NewSyslog(c), transcode.Summary{Kind: transcode.KindProcessExec})
		if strings.Join(got[2:6], " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got[2:6], want)
		}
	}
	f(datagram.SyslogConfig{}, "-", "tetracast", "-", "process_exec")
	f(datagram.SyslogConfig{Hostname: "a b\n", AppName: "ä", ProcID: "]", MsgID: "\x7f"}, "a_b_", "__", "]", "_")
	f(datagram.SyslogConfig{Hostname: long, AppName: long, ProcID: long, MsgID: long}, long[:255], long[:48], long[:128], long[:32])
}

func TestSyslogPriority(t *testing.T) {
	f := func(p *datagram.Syslog, kind transcode.Kind, action transcode.Action, want int) {
		t.Helper()
		if got := one(t, p, transcode.Summary{Kind: kind, Action: action})[0]; got != fmt.Sprint(want) {
			t.Errorf("%v with action %d: got %s, want %d", kind, action, got, want)
		}
	}
	p := datagram.NewSyslog(datagram.SyslogConfig{})
	f(p, transcode.KindProcessExec, 0, 16*8+6)
	f(p, transcode.KindProcessKprobe, 1, 10*8+5)
	f(p, transcode.KindProcessKprobe, 3, 10*8+1)
	f(p, transcode.KindProcessLsm, 5, 10*8+2)
	f(p, transcode.KindProcessThrottle, 0, 3*8+4)
	f(p, transcode.KindRateLimitInfo, 0, 3*8+4)
	f(p, 0, 0, 3*8+6)
	f(p, 12345, 0, 3*8+6)
	p = datagram.NewSyslog(datagram.SyslogConfig{Facility: map[transcode.Kind]datagram.Facility{transcode.KindProcessExec: 20, transcode.KindTest: 99}})
	f(p, transcode.KindProcessExec, 0, 20*8+6)
	f(p, transcode.KindTest, 0, 23*8+6)
	f(p, transcode.KindProcessExit, 0, 16*8+6)
}

func TestSyslogSequence(t *testing.T) {
	p := datagram.NewSyslog(datagram.SyslogConfig{EnterpriseID: 99})
	for want := 1; want < 4; want++ {
		got := one(t, p, transcode.Summary{})
		if got[6] != fmt.Sprint(want) || got[7] != "99" {
			t.Errorf("sequenceId %s of %s, want %d of 99", got[6], got[7], want)
		}
	}
}

// TestSyslogOversize finds the limit that MaxLine promises, to the byte.
func TestSyslogOversize(t *testing.T) {
	for _, old := range []bool{false, true} {
		p := datagram.NewSyslog(datagram.SyslogConfig{MaxDatagram: 1000, RFC3164: old})
		e := datagram.Event{Number: 1, Summary: &transcode.Summary{}}
		n := p.MaxLine(&e)
		var b datagram.Batch
		e.Line = append(bytes.Repeat([]byte("x"), n), '\n')
		if err := p.Pack(&b, &e); !errors.Is(err, datagram.ErrOversize) || len(b.Datagrams) != 0 {
			t.Errorf("a line of %d bytes: got %v, want ErrOversize", n+1, err)
		}
		e.Line = e.Line[1:]
		if err := p.Pack(&b, &e); err != nil || len(b.Datagrams[0]) != 1000 {
			t.Errorf("a line of %d bytes: %v, want a datagram of 1000 bytes", n, err)
		}
	}
}

func TestUnpackSyslog(t *testing.T) {
	const event = `{"process_exec":{},"time":"2026-01-01T00:00:00Z"}`
	mark := datagram.Mark{Stream: 0xabc, Number: 4, Dropped: 2}
	f := func(in, want string, wantMark datagram.Mark) {
		t.Helper()
		p, err := datagram.UnpackSyslog([]byte(in))
		m := p.Mark
		if err != nil || string(p.JSON) != want || m != wantMark {
			t.Errorf("%q: got %q, %+v, %v", in, p.JSON, m, err)
		}
	}
	f(`<13>1 - - - - - - `+event, event, datagram.Mark{})
	f(`<13>1 - h a - - [tetracast@1 stream="0000000000000abc" seq="4" dropped="2"] `+event+"\n", event, mark)
	f(`<13>1 - h a - - [x y="\"]"][tetracast@1  seq="4" stream="0000000000000abc" odd="1" dropped="2"][z]`+"  \ufeff"+event+"\x00", event, mark)
	f(`<13>1 - h a - - [other@1 stream="0000000000000abc"] `+event, event, datagram.Mark{})
	f(`<13>1 - h a - - [tetracast@1 stream="abc" seq="-4" dropped=""] `+event, event, datagram.Mark{})
	f(`<13>Nov 23 10:23:36 host tetracast[42]: `+event, event, datagram.Mark{})
	f(`<13>Nov 23 10:23:36 host tetracast: @cee: `+event+"\r\n", event, datagram.Mark{})
	f(`<13>`+event, event, datagram.Mark{})
	f(`<191>1 - h `+event, event, datagram.Mark{})

	g := func(in string, want error) {
		t.Helper()
		if p, err := datagram.UnpackSyslog([]byte(in)); !errors.Is(err, want) || p.JSON != nil && want != datagram.ErrNotEvent || p.Mark != (datagram.Mark{}) {
			t.Errorf("%q: got %q, %+v, %v, want %v", in, p.JSON, p.Mark, err, want)
		}
	}
	g("", datagram.ErrEmpty)
	g(event, datagram.ErrNotSyslog)
	g("<>"+event, datagram.ErrNotSyslog)
	g("<1911>"+event, datagram.ErrNotSyslog)
	g("<13", datagram.ErrNotSyslog)
	g("<13>hello", datagram.ErrNotEvent)
	g("<13>1 - - - - - - ", datagram.ErrNotEvent)
	g(`<13>1 - - - - - [a b="c] `+event[:4], datagram.ErrCutOff)
	g(`<13>1 - - - - - - {"a":1}`, datagram.ErrNotEvent)
	g(`<13>1 - - - - - - {"a":1}x`, datagram.ErrNotJSON)
}

func TestSyslogAllocates(t *testing.T) {
	packAllocates(t, datagram.NewSyslog(syslogConfig))
	d := pack(t, datagram.NewSyslog(syslogConfig), "", chosen()[:1])[0]
	if n := testing.AllocsPerRun(100, func() { _, _ = datagram.UnpackSyslog(d) }); n != 0 {
		t.Errorf("unpacking costs %v allocations, want 0", n)
	}
}

// FuzzUnpackSyslog wants an event that was found to be found again in what we
// write of it.
func FuzzUnpackSyslog(f *testing.F) {
	f.Add([]byte(`<13>1 - h a - - [x y="\"]"][tetracast@1  seq="4" stream="0000000000000abc" dropped="2"][z] ` + "\ufeff" + `{"process_exec":{},"time":""}`))
	f.Add([]byte(`<13>Nov 23 10:23:36 host tetracast[42]: {"process_kprobe":{"action":"KPROBE_ACTION_SIGKILL"},"time":"2026-11-23T10:23:36Z"}`))
	f.Add([]byte("<13>{\"process_\x7f\":{}}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := datagram.UnpackSyslog(in)
		mark, want := p.Mark, bytes.ReplaceAll(p.JSON, []byte("\x7f"), []byte(`\u007f`))
		if err != nil || len(want) > 60000 {
			return
		}
		s := datagram.NewSyslog(datagram.SyslogConfig{Stream: mark.Stream})
		s.SetDropped(mark.Dropped)
		e := datagram.Event{Number: mark.Number, Line: append(bytes.Clone(p.JSON), '\n')}
		d := pack(t, s, "", []datagram.Event{e})[0]
		if !syslogHeader.Match(d) {
			t.Fatalf("no header of RFC 5424: %q", d)
		}
		if q, err := datagram.UnpackSyslog(d); err != nil || !bytes.Equal(q.JSON, want) || q.Mark != mark {
			t.Fatalf("%q: %q, %+v became %q, %+v, %v", in, p.JSON, mark, q.JSON, q.Mark, err)
		}
	})
}

// TestSyslogDEL: the control character that JSON may hold is escaped, also where
// that makes the message too long.
func TestSyslogDEL(t *testing.T) {
	c := syslogConfig
	line := `{"process_exec":{"process":{"arguments":"a` + "\x7f\x7f" + `b"}}}`
	d := pack(t, datagram.NewSyslog(c), "", []datagram.Event{{Number: 1, Line: []byte(line + "\n")}})[0]
	if !bytes.HasSuffix(d, []byte(`"a\u007f\u007fb"}}}`)) {
		t.Errorf("got %q", d)
	}
	for c.MaxDatagram = len(d) - 2; c.MaxDatagram <= len(d)+1; c.MaxDatagram++ {
		p, event := datagram.NewSyslog(c), datagram.Event{Number: 1, Line: []byte(line + "\n")}
		fits := c.MaxDatagram >= len(d)
		if most := p.MaxLine(&event); (len(event.Line) <= most) != fits {
			t.Errorf("limit %d: MaxLine %d of a line of %d", c.MaxDatagram, most, len(event.Line))
		}
		if err := p.Pack(new(datagram.Batch), &event); (err == nil) != fits {
			t.Errorf("limit %d: %v", c.MaxDatagram, err)
		}
	}
}
