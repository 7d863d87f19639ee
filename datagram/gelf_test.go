package datagram_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"tetracast/datagram"
)

const gelfStream = 0x5eb63bbbe01eeed0

var (
	gelfFrom = netip.MustParseAddrPort("192.0.2.1:40000")
	gelfTime = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
)

func newGELF(t testing.TB, c datagram.GELFConfig) *datagram.GELF {
	t.Helper()
	c.Stream, c.Host = gelfStream, "edge-node-01"
	p, err := datagram.NewGELF(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGELFGolden(t *testing.T) {
	golden(t, "gelf.golden", pack(t, newGELF(t, datagram.GELFConfig{MaxDatagram: 8192}), agentInit, chosen()))
	golden(t, "gelfone.golden", pack(t, newGELF(t, datagram.GELFConfig{MaxDatagram: 16384, Fields: datagram.GELFOne, FullMessage: true}), agentInit, chosen()[:2]))
}

// TestGELF sends the whole sample through in every way that the format has: as
// JSON the event comes back byte for byte, flat it comes back as its message.
func TestGELF(t *testing.T) {
	for _, limit := range []int{1232, 8192, 0} {
		events := sampleEvents()
		if limit == 1232 {
			events = upTo(60000, events) // twice that in 128 chunks
		}
		for _, compression := range []datagram.GELFCompression{datagram.GELFPlain, datagram.GELFGzip, datagram.GELFZlib} {
			for _, c := range []datagram.GELFConfig{{}, {FullMessage: true}, {Fields: datagram.GELFOne}} {
				c.MaxDatagram, c.Compression = limit, compression
				p := newGELF(t, c)
				reader := datagram.NewGELFReader(datagram.GELFLimits{})
				var read []string
				for _, d := range pack(t, p, agentInit, events) {
					if limit > 0 && len(d) > limit {
						t.Fatalf("%d bytes, want at most %d", len(d), limit)
					}
					payload, whole, err := reader.Read(d, gelfFrom, gelfTime)
					if err != nil {
						t.Fatal(err)
					}
					if !whole {
						continue
					}
					mark := payload.Mark
					if mark.Stream != gelfStream || len(read) > 0 && mark.Number != events[len(read)-1].Number {
						t.Fatalf("mark %+v of event %d", mark, len(read))
					}
					read = append(read, string(payload.JSON))
				}
				if len(read) != len(events)+1 || read[0] != agentInit {
					t.Fatalf("%+v: %d came, want %d, agent_init first as it is", c, len(read), len(events)+1)
				}
				for i, e := range events {
					if c.FullMessage || c.Fields == datagram.GELFOne {
						if read[i+1] != line(e) {
							t.Fatalf("%+v, event %d: got\n%s\nwant\n%s", c, i, read[i+1], line(e))
						}
					} else if i%20 == 0 {
						checkGELF(t, read[i+1], line(e))
					}
				}
			}
		}
	}
}

var legalField = regexp.MustCompile(`^_[\w.-]*$`) // GELF 1.1

// checkGELF holds a flat message to GELF 1.1, and to what it was made of: each
// text and number of the event is in it.
func checkGELF(t *testing.T, message, event string) {
	t.Helper()
	fields := object(t, message)
	if fields["version"] != "1.1" || fields["host"] != "edge-node-01" || fields["short_message"] == "" {
		t.Fatalf("mandatory fields: %s", message)
	}
	for name, value := range fields {
		switch name {
		case "version", "host", "short_message", "full_message", "timestamp", "level":
			continue
		}
		if !legalField.MatchString(name) || name == "_id" {
			t.Fatalf("field %q", name)
		}
		switch value.(type) {
		case string, json.Number:
		default:
			t.Fatalf("field %q has the value %v: want a string or a number", name, value)
		}
	}
	if n := members(t, message); n != len(fields) {
		t.Fatalf("%d fields, but %d names: %s", n, len(fields), message)
	}
	var texts []string
	for _, value := range fields {
		texts = append(texts, fmt.Sprint(value))
	}
	all := strings.Join(texts, "\n")
	each(object(t, event), func(value string) {
		if !strings.Contains(all, value) {
			t.Fatalf("%q is not in the message\n%s\nof\n%s", value, message, event)
		}
	})
}

func object(t *testing.T, text string) (o map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return o
}

// members counts the members of an object, one for each time that it stands there.
func members(t *testing.T, text string) (n int) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if err != nil {
			return n / 2 // names and values; no value of a flat message is a list or an object
		}
		if _, ok := token.(json.Delim); !ok {
			n++
		}
	}
}

// each calls f for each text and number in a JSON value.
func each(value any, f func(string)) {
	switch v := value.(type) {
	case map[string]any:
		for _, inside := range v {
			each(inside, f)
		}
	case []any:
		for _, inside := range v {
			each(inside, f)
		}
	case string:
		if !strings.ContainsAny(v, "\"\\\x00\n\t") && v != "" { // those are escaped twice in lists of objects
			f(v)
		}
	case json.Number:
		f(v.String())
	}
}

// TestGELFNames: what GELF or Graylog keep for themselves is never sent, and
// names have legal characters only.
func TestGELFNames(t *testing.T) {
	p := newGELF(t, datagram.GELFConfig{})
	for i, text := range []string{
		`{"process_exec":{"id":"a","message":"b","time":"inside","process":{"labels":{"app.kubernetes.io/name":"x","ä b":"y","":"z"}}},"time":"2026-01-02T03:04:05Z"}`,
		`{"id":1,"process_exec":{"process":{"id":"deep","uid":0,"flags":true,"none":null,"cap":{"list":[]}}}}`,
		`{"process_kprobe":{"process":{"binary":"/bin/\"q\""},"args":[{"string_arg":"a\nb"},{"size_arg":"18446744073709551615"}],"policy_name":"p","action":"KPROBE_ACTION_SIGKILL"}}`,
	} {
		d := pack(t, p, "", []datagram.Event{{Number: uint64(i + 1), Line: []byte(text + "\n")}})
		fields := object(t, string(d[0]))
		for name := range fields {
			if strings.HasPrefix(name, "_") && (!legalField.MatchString(name) || name == "_id" || name == "_message") {
				t.Errorf("field %q of %s", name, text)
			}
		}
		if i == 2 && (fields["level"].(json.Number) != "1" || fields["_args.0.string_arg"] != "a\nb" || fields["_args.1.size_arg"] != "18446744073709551615") {
			t.Errorf("fields %v", fields)
		}
	}
}

func TestGELFSentence(t *testing.T) {
	p := newGELF(t, datagram.GELFConfig{})
	f := func(event, want string) {
		t.Helper()
		d := pack(t, p, "", []datagram.Event{{Number: 1, Line: []byte(event + "\n")}})
		if got := object(t, string(d[0]))["short_message"]; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(`{"process_exec":{"process":{"binary":"/bin/sh","pod":{"namespace":"shop","name":"cart-1"}}}}`, "/bin/sh started, in pod shop/cart-1")
	f(`{"process_exit":{"process":{"binary":"/bin/sh"}}}`, "/bin/sh ended")
	f(`{"process_kprobe":{"process":{"binary":"/bin/cat"},"function_name":"fd_install","action":"KPROBE_ACTION_POST","policy_name":"files"}}`, "/bin/cat called fd_install, seen by policy files")
	f(`{"process_kprobe":{"process":{"binary":"/bin/cat"},"function_name":"fd_install","action":"KPROBE_ACTION_SIGKILL","policy_name":"files"}}`, "/bin/cat called fd_install, killed by policy files")
	f(`{"process_tracepoint":{"process":{"binary":"/a\"b"},"subsys":"raw_syscalls","event":"sys_exit"}}`, `/a"b reached tracepoint raw_syscalls/sys_exit`)
	f(`{"process_exec":{"process":{"binary":"`+strings.Repeat("ä", 400)+`"}}}`, strings.Repeat("ä", 128)+"... started")
	f(`{"node_name":"n"}`, "event of Tetragon: unknown")
}

// TestGELFTooLong: a message of 128 chunks is sent, one more byte is oversize,
// and a line of MaxLine bytes always fits.
func TestGELFTooLong(t *testing.T) {
	for _, c := range []datagram.GELFConfig{{}, {Fields: datagram.GELFOne}, {FullMessage: true}, {Fields: datagram.GELFOne, FullMessage: true}} {
		c.MaxDatagram = 512
		p := newGELF(t, c)
		with := func(n int) *datagram.Event {
			line := `{"process_exec":{"process":{"arguments":"` + strings.Repeat(`\"`, n/2) + strings.Repeat("x", n%2)
			return &datagram.Event{Number: 1, Line: []byte(line + "\"}}}\n")}
		}
		var b datagram.Batch
		n := 0
		for ; p.Pack(&b, with(n)) == nil; n++ {
			if chunks := len(b.Datagrams); chunks > 128 {
				t.Fatalf("%d chunks", chunks)
			}
			b.Reset()
			n += 100
		}
		for n--; p.Pack(&b, with(n)) != nil; n-- {
		}
		if len(b.Datagrams) != 128 || b.Events[127] != 1 || b.More[127] || !b.More[126] {
			t.Errorf("%+v: the longest takes %d chunks, want 128", c, len(b.Datagrams))
		}
		b.Reset()
		if err := p.Pack(&b, with(n+1)); !errors.Is(err, datagram.ErrOversize) || len(b.Datagrams) != 0 {
			t.Errorf("%+v: one byte more: %v and %d datagrams", c, err, len(b.Datagrams))
		}
		event := with(0)
		event = with(p.MaxLine(event) - len(event.Line))
		if err := p.Pack(&b, event); err != nil {
			t.Errorf("%+v: a line of MaxLine bytes: %v", c, err)
		}
	}
}

// TestGELFMessageIDs: the sets of one stream have ids that differ, and so have
// those of two streams.
func TestGELFMessageIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, stream := range []uint64{1 << 40, 1 << 50} {
		p, err := datagram.NewGELF(datagram.GELFConfig{Stream: stream, MaxDatagram: 512})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			d := pack(t, p, "", []datagram.Event{{Number: 1, Line: []byte(`{"process_exec":{"process":{"arguments":"` + strings.Repeat("x", 1000) + "\"}}}\n")}})
			seen[string(d[0][2:10])] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d ids of 6 messages", len(seen))
	}
}

func TestGELFAllocates(t *testing.T) {
	packAllocates(t, newGELF(t, datagram.GELFConfig{MaxDatagram: 8192}))
	packAllocates(t, newGELF(t, datagram.GELFConfig{MaxDatagram: 1232, Fields: datagram.GELFOne, FullMessage: true}))
}

// TestReadGELF reads what others send: the standard library's compressors, other
// orders of fields, white space, a NUL at the end.
func TestReadGELF(t *testing.T) {
	const event = `{"process_exec":{"process":{"binary":"/bin/ä"}},"time":"2026-01-01T00:00:00Z"}`
	f := func(message string, want any) {
		t.Helper()
		var zipped, zlibbed bytes.Buffer
		g, z := gzip.NewWriter(&zipped), zlib.NewWriter(&zlibbed)
		for _, w := range []interface {
			Write([]byte) (int, error)
			Close() error
		}{g, z} {
			if _, err := w.Write([]byte(message)); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
		}
		for _, d := range [][]byte{[]byte(message), zipped.Bytes(), zlibbed.Bytes()} {
			p, whole, err := datagram.NewGELFReader(datagram.GELFLimits{}).Read(d, gelfFrom, gelfTime)
			if e, ok := want.(error); ok {
				if !errors.Is(err, e) || whole {
					t.Errorf("%q: error %v, want %v", message, err, e)
				}
			} else if err != nil || !whole || string(p.JSON) != want {
				t.Errorf("%q: got %s, %v, want %s", message, p.JSON, err, want)
			}
		}
	}
	quoted, _ := json.Marshal(event)
	f(`{"version":"1.1","host":"h","short_message":"s","_event":`+string(quoted)+`}`, event)
	f(" { \"full_message\" :\n"+string(quoted)+" , \"host\":\"h\" }\x00\n", event)
	f(`{"_event":"{\u0022process_exec\u0022:{},\u0022time\u0022:\u0022\u0022}"}`, `{"process_exec":{},"time":""}`)
	f(`{"version":"1.1","host":"h","short_message":"of somebody else"}`, datagram.ErrNotEvent)
	f(`{"version":"1.1","_event":"{no event"}`, datagram.ErrNotEvent)
	f(`{"version":"1.1"`, datagram.ErrCutOff)
	f(`[]`, datagram.ErrNotJSON)
}

// TestInflateBound: what a datagram becomes is bounded before the memory for it
// is asked for.
func TestInflateBound(t *testing.T) {
	var bomb bytes.Buffer
	w := zlib.NewWriter(&bomb)
	_, _ = w.Write(make([]byte, 64<<20))
	_ = w.Close()
	_, _, err := datagram.NewGELFReader(datagram.GELFLimits{}).Read(bomb.Bytes(), gelfFrom, gelfTime)
	if !errors.Is(err, datagram.ErrInflateBomb) {
		t.Errorf("64 MiB of zeros: %v", err)
	}
	for _, d := range []string{"\x1f\x8b\x08", "\x78\x9c\xff\xff", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00junk"} {
		if _, _, err := datagram.NewGELFReader(datagram.GELFLimits{}).Read([]byte(d), gelfFrom, gelfTime); !errors.Is(err, datagram.ErrInflate) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

// chunk makes a chunk as GELF has it.
func chunk(id byte, index, count int, body string) []byte {
	return append([]byte{0x1e, 0x0f, 0, 0, 0, 0, 0, 0, 0, id, byte(index), byte(count)}, body...)
}

func TestGELFChunks(t *testing.T) {
	const message = `{"_event":"{\"process_exec\":{},\"time\":\"\"}"}`
	limits := datagram.GELFLimits{Chunks: datagram.GELFChunkLimits{SetsPerSender: 2, Sets: 3, Bytes: 4096}}
	r := datagram.NewGELFReader(limits)
	now := gelfTime
	f := func(d []byte, from int, wantWhole bool, wantErr error) {
		t.Helper()
		_, whole, err := r.Read(d, netip.AddrPortFrom(gelfFrom.Addr(), uint16(from)), now)
		if whole != wantWhole || !errors.Is(err, wantErr) {
			t.Errorf("whole %v, error %v, want %v and %v", whole, err, wantWhole, wantErr)
		}
	}
	f(chunk(1, 1, 2, message[9:]), 1, false, nil)
	f(chunk(1, 1, 2, message[9:]), 1, false, nil) // again
	f(chunk(1, 0, 3, message[:9]), 1, false, datagram.ErrChunk)
	f(chunk(1, 2, 2, "x"), 1, false, datagram.ErrChunk)
	f(chunk(1, 0, 0, "x"), 1, false, datagram.ErrChunk)
	f(chunk(1, 0, 129, "x"), 1, false, datagram.ErrChunk)
	f(chunk(1, 0, 2, ""), 1, false, datagram.ErrChunk)
	f(chunk(1, 0, 2, message[:9]), 2, false, nil) // another sender's
	f(chunk(1, 0, 2, message[:9]), 1, true, nil)
	f(chunk(1, 0, 1, message), 1, true, nil)
	if s := r.Stats(); s.Sets != 1 || s.Duplicate != 1 {
		t.Errorf("stats %+v", s)
	}

	now = now.Add(5*time.Second + 1)
	r.Expire(now)
	if s := r.Stats(); s.Sets != 0 || s.Bytes != 0 || s.TooOld != 1 {
		t.Errorf("after five seconds: %+v", s)
	}
	for id := range 3 { // of one sender two are kept
		f(chunk(byte(id), 0, 2, "x"), 1, false, nil)
	}
	f(chunk(8, 0, 2, "x"), 2, false, nil)
	f(chunk(9, 0, 2, "x"), 3, false, nil)
	if s := r.Stats(); s.Sets != 3 || s.TooMany != 2 {
		t.Errorf("limits on sets: %+v", s)
	}
	f(chunk(9, 1, 3, strings.Repeat("x", 4000)), 4, false, nil)
	if s := r.Stats(); s.Bytes > 4096 {
		t.Errorf("limit on bytes: %+v", s)
	}
}

func FuzzReadGELF(f *testing.F) {
	var seeds [][]byte
	for _, c := range []datagram.GELFConfig{{}, {Fields: datagram.GELFOne, MaxDatagram: 1232}, {Compression: datagram.GELFGzip}, {Compression: datagram.GELFZlib, MaxDatagram: 512}} {
		seeds = append(seeds, pack(f, newGELF(f, c), agentInit, chosen()[:2])...)
	}
	for _, d := range seeds {
		f.Add(d, []byte("x"))
	}
	f.Add(chunk(1, 0, 2, `{"_event":`), chunk(1, 1, 2, `"{\"process_exec\":{}}"}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		r := datagram.NewGELFReader(datagram.GELFLimits{Message: 1 << 20})
		for _, d := range [][]byte{first, second} {
			p, whole, err := r.Read(bytes.Clone(d), gelfFrom, gelfTime)
			if whole != (err == nil && p.JSON != nil) {
				t.Fatalf("whole %v with %v", whole, err)
			}
			if whole && (!json.Valid(p.JSON) || bytes.ContainsAny(p.JSON, "\n")) {
				t.Fatalf("%q became %q", d, p.JSON)
			}
		}
		if s := r.Stats(); s.Sets > 2 {
			t.Fatalf("%+v", s)
		}
	})
}

// FuzzGELFLine packs any line: what is JSON becomes a message that can be read.
func FuzzGELFLine(f *testing.F) {
	for _, e := range chosen() {
		f.Add([]byte(line(e)), uint8(0))
	}
	f.Add([]byte(agentInit), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, how uint8) {
		if !json.Valid(text) || len(text) == 0 || bytes.TrimSpace(text)[0] != '{' {
			return
		}
		var compact bytes.Buffer
		if json.Compact(&compact, bytes.ToValidUTF8(text, []byte("?"))) != nil {
			return
		}
		p := newGELF(t, datagram.GELFConfig{Fields: datagram.GELFFields(how & 1), FullMessage: how&2 > 0})
		for n := range 2 { // the second time with what the first one learned
			var b datagram.Batch
			if p.Pack(&b, &datagram.Event{Number: 1, Line: append(compact.Bytes(), '\n')}) != nil {
				return
			}
			if !json.Valid(b.Datagrams[0]) {
				t.Fatalf("pass %d: %q became %q", n, text, b.Datagrams[0])
			}
		}
	})
}
