package datagram_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"tetracast/datagram"
)

// message packs one line and returns its one message.
func message(t testing.TB, p *datagram.GELF, event string) string {
	t.Helper()
	var b datagram.Batch
	e := datagram.Event{Number: 1, Line: []byte(event + "\n")}
	if err := p.Pack(&b, &e); err != nil || len(b.Datagrams) != 1 {
		t.Fatalf("%v, %d datagrams: %.300s", err, len(b.Datagrams), event)
	}
	return string(b.Datagrams[0])
}

// TestGELFNoNameTwice: no name stands twice in a message, whatever the names in the event are
// and whatever the packer learned before; what clashes gets a number, and the field
// whose name is its key keeps it.
func TestGELFNoNameTwice(t *testing.T) {
	labels := func(inside string) string {
		return `{"process_exec":{"process":{"exec_id":"aWQ=","pod":{"pod_labels":` + inside + `}}},"node_name":"n"}`
	}
	p := newGELF(t, datagram.GELFConfig{})
	for range 2 { // the second time all is learned
		for _, test := range []struct{ event, want string }{
			{labels(`{"a/b":"1"}`), `"_process.pod.pod_labels.a_b":"1"`},
			{labels(`{"a/b":"1","a_b":"2"}`), `"_process.pod.pod_labels.a_b_2":"1","_process.pod.pod_labels.a_b":"2"`},
			{labels(`{"a_b":"2","a/b":"1","a:b":"3"}`), `"_process.pod.pod_labels.a_b":"2","_process.pod.pod_labels.a_b_2":"1","_process.pod.pod_labels.a_b_3":"3"`},
			{labels(`{"a/b":"1","a_b_2":"2","a_b":"3"}`), `"_process.pod.pod_labels.a_b_3":"1","_process.pod.pod_labels.a_b_2":"2","_process.pod.pod_labels.a_b":"3"`},
			{labels(`{"a":"1","a":"2"}`), `"_process.pod.pod_labels.a":"1","_process.pod.pod_labels.a_2":"2"`},
			{labels(`{"app":"x","app.kubernetes.io/name":"x","":"empty"}`), `"_process.pod.pod_labels.app":"x","_process.pod.pod_labels.app.kubernetes.io_name":"x","_process.pod.pod_labels.":"empty"`},
			{labels(`{"a":{"b":"1"},"a.b":"2"}`), `"_process.pod.pod_labels.a.b":"1","_process.pod.pod_labels.a_b_2":"2"`},
			{labels(`{"a.b":"2","a":{"b":"1"}}`), `"_process.pod.pod_labels.a_b_2":"2","_process.pod.pod_labels.a.b":"1"`},
			{`{"process_exec":{"x":{"y":1}},"x.y":2,"x":3}`, `"_x.y":1,"_x_y_2":2,"_x_2":3`},
			{`{"process_exec":{"x":1},"process_exit":{"x":2}}`, `"_x":1,"_x_2":2`},
			{`{"process_exec":{"process":{"exec_id":"aaaaaaaaaaaaaaaaaaaaaaaa","pid":1}},"process.pid":2}`, `"_process.exec_id":"aaaaaaaaaaaaaaaaaaaaaaaa","_process.pid":1,"_process_pid_2":2`},
			{`{"process_exec":{"a":1},"tetracast_seq":7,"event/type":8,"tetracast/stream":9}`, `"_a":1,"_tetracast_seq_2":7,"_event_type_2":8,"_tetracast_stream_2":9`},
			{`{"process_exec":{"time":1,"event_time":2}}`, `"_event_time_2":1,"_event_time":2`},
		} {
			got := message(t, p, test.event)
			if !strings.Contains(got, test.want) {
				t.Errorf("%s\n got %s\nwant %s", test.event, got, test.want)
			}
			if n := members(t, got); n != len(object(t, got)) {
				t.Errorf("a name stands twice: %s", got)
			}
		}
	}
}

// TestGELFOneLabels: labels and annotations as JSON in one field each.
func TestGELFOneLabels(t *testing.T) {
	got := message(t, newGELF(t, datagram.GELFConfig{OneLabels: true}),
		`{"process_exec":{"process":{"pod":{"name":"p","pod_labels":{"a/b":"1","a_b":"2"},"pod_annotations":{"c":"3"}}}},"node_labels":{"d":"4"}}`)
	for _, want := range []string{`"_process.pod.name":"p"`, `"_process.pod.pod_labels":"{\"a/b\":\"1\",\"a_b\":\"2\"}"`, `"_process.pod.pod_annotations":"{\"c\":\"3\"}"`, `"_node_labels":"{\"d\":\"4\"}"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

// TestGELFMaxField: no field is longer in bytes, none ends within a character, and the
// message says how many were cut; what is one field is left to others to shorten.
func TestGELFMaxField(t *testing.T) {
	const most = 100
	for _, unit := range []string{"x", "é", "€", "𝄞", `\n`, `\u00e9`, `\ud834\udd1e`, `\\`} {
		for lead := range 4 {
			text := strings.Repeat("x", lead) + strings.Repeat(unit, most)
			event := `{"process_exec":{"process":{"exec_id":"aWQ=","arguments":"` + text + `","list":["` + text + `","` + text + `"],"objects":[{"a":"` + text + `"}]},"short":1}}`
			p := newGELF(t, datagram.GELFConfig{MaxField: most, FullMessage: true})
			for range 2 { // nothing of it is remembered
				e := datagram.Event{Number: 1, Line: []byte(event + "\n")}
				var b datagram.Batch
				if err := p.Pack(&b, &e); err != nil || !e.Cut {
					t.Fatalf("%v, cut %v", err, e.Cut)
				}
				fields := object(t, string(b.Datagrams[0]))
				for name, value := range fields {
					if text, ok := value.(string); ok && name != "short_message" && (len(text) > most || !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError)) {
						t.Errorf("%q: %s has %d bytes: %q", unit, name, len(text), text)
					}
				}
				cut := json.Number("2")
				if len(unit) > 1 || unit == "x" && lead > 0 || fields["_process.arguments"] != text {
					cut = "3"
				}
				if got := fields["_tetracast_cut_fields"]; got != cut && unit != `\n` && unit != `\\` {
					t.Errorf("%q after %d: %v fields were cut, want %v", unit, lead, got, cut)
				}
			}
		}
	}
	p := newGELF(t, datagram.GELFConfig{MaxField: most, Fields: datagram.GELFOne})
	e := datagram.Event{Number: 1, Line: []byte(`{"process_exec":{"a":"` + strings.Repeat("x", most) + "\"}}\n")}
	if err := p.Pack(new(datagram.Batch), &e); err != datagram.ErrOversize || p.MaxLine(&e) != most+1 {
		t.Errorf("%v, MaxLine %d", err, p.MaxLine(&e))
	}
}

// FuzzGELFNames: whatever JSON comes, one packer after another line of any shape writes
// each name once, in characters that GELF has.
func FuzzGELFNames(f *testing.F) {
	if text, err := os.ReadFile("testdata/labels-collide.json"); err == nil {
		f.Add(string(text), string(text))
	}
	f.Add(`{"process_exec":{"a":{"b":1},"a.b":2}}`, `{"process_exec":{"a.b":2,"a":{"b":{"c":1}},"a.b.c":1}}`)
	f.Add(`{"process_exec":{"args":[{"a":1}],"args.0":{"a":2},"args.0.a":3}}`, `{"test":{"a":1},"process_exec":{"a":2},"a":3,"a":4}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		p := newGELF(t, datagram.GELFConfig{})
		for _, line := range []string{first, second, first} {
			if !json.Valid([]byte(line)) || strings.TrimSpace(line) == "" || len(line) > 4000 {
				continue
			}
			var b datagram.Batch
			if p.Pack(&b, &datagram.Event{Number: 1, Line: []byte(line)}) != nil {
				continue
			}
			got := string(b.Datagrams[0])
			names := map[string]bool{}
			d := json.NewDecoder(strings.NewReader(got))
			if _, err := d.Token(); err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			for d.More() {
				name, err := d.Token()
				if err != nil {
					t.Fatalf("%v: %s", err, got)
				}
				if names[fmt.Sprint(name)] {
					t.Fatalf("%v stands twice: %s\nof %s", name, got, line)
				}
				names[fmt.Sprint(name)] = true
				if _, err := d.Token(); err != nil {
					t.Fatalf("%v: %s", err, got)
				}
			}
		}
	})
}
