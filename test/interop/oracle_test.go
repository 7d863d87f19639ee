package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leodido/go-syslog/v4/rfc3164"
	"github.com/leodido/go-syslog/v4/rfc5424"

	"tetracast/datagram"
)

// syslogs packs the sample.
func syslogs(t *testing.T, c datagram.SyslogConfig) (datagrams [][]byte, lines []string) {
	t.Helper()
	wires, lines := sample(t)
	c.Stream, c.Hostname, c.ProcID = 0x5eb63bbbe01eeed0, "edge-node-01", "42"
	p := datagram.NewSyslog(c)
	p.SetDropped(7)
	var b datagram.Batch
	kept := lines[:0:0]
	for i, wire := range wires {
		if len(lines[i]) > 60000 {
			continue
		}
		if err := p.Pack(&b, &datagram.Event{Number: uint64(len(kept) + 1), Line: []byte(lines[i] + "\n"), Wire: wire}); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, lines[i])
	}
	for i, line := range kept {
		kept[i] = strings.ReplaceAll(line, "\x7f", `\u007f`) // the same JSON, without a control character
	}
	return b.Datagrams, kept
}

// TestGoSyslog: a strict parser of another project takes every message, and reads
// the event, the sequence and the header that we meant.
func TestGoSyslog(t *testing.T) {
	for _, bom := range []bool{false, true} {
		datagrams, lines := syslogs(t, datagram.SyslogConfig{BOM: bom})
		parser := rfc5424.NewParser()
		for i, d := range datagrams {
			parsed, err := parser.Parse(d)
			if err != nil {
				t.Fatalf("event %d: %v: %.300s", i, err, d)
			}
			m := parsed.(*rfc5424.SyslogMessage)
			want := lines[i]
			if bom {
				want = "\ufeff" + want
			}
			if m.Message == nil || *m.Message != want {
				t.Fatalf("event %d came as %.300q", i, *m.Message)
			}
			data := *m.StructuredData
			ours := data["tetracast@32473"]
			if data["meta"]["sequenceId"] != fmt.Sprint(i+1) || ours["stream"] != "5eb63bbbe01eeed0" || ours["seq"] != fmt.Sprint(i+1) || ours["dropped"] != "7" {
				t.Fatalf("event %d: structured data %v", i, data)
			}
			if *m.Hostname != "edge-node-01" || *m.Appname != "tetracast" || *m.ProcID != "42" || *m.MsgID == "" || *m.Severity == 0 || m.Timestamp == nil && strings.Contains(lines[i], `"time":"`) {
				t.Fatalf("event %d: header of %.200s", i, d)
			}
		}
		t.Logf("%d messages, byte order mark %v", len(datagrams), bom)
	}
}

// TestGoSyslog3164: the same for the older form.
func TestGoSyslog3164(t *testing.T) {
	datagrams, lines := syslogs(t, datagram.SyslogConfig{RFC3164: true})
	parser := rfc3164.NewParser()
	for i, d := range datagrams {
		parsed, err := parser.Parse(d)
		if err != nil || parsed == nil {
			t.Fatalf("event %d: %v: %.300s", i, err, d)
		}
		m := parsed.(*rfc3164.SyslogMessage)
		if *m.Message != lines[i] || *m.Hostname != "edge-node-01" || *m.Appname != "tetracast" || *m.ProcID != "42" {
			t.Fatalf("event %d: %+v", i, m)
		}
	}
}
