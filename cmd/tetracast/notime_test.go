package main

import (
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestEventWithoutTime: in both forms of syslog an event that has no time is dated with
// that of sending, and RFC 3164 on request in the zone of the host.
func TestEventWithoutTime(t *testing.T) {
	const event = `{"process_exec":{"process":{"binary":"a"}}}` + "\n"
	t.Setenv("TZ", "Asia/Kathmandu") // 5:45 ahead of UTC
	kathmandu, err := time.LoadLocation("Asia/Kathmandu")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED:", err)
	}
	for _, test := range []struct {
		options, header, layout string
		zone                    *time.Location
	}{
		{"", `^<\d+>1 (\S+)\.\d{6}Z `, "2006-01-02T15:04:05", time.UTC},
		{"?syslog-rfc3164=true", `^<\d+>(.{15}) `, time.Stamp, time.UTC},
		{"?syslog-rfc3164=true&syslog-local-time=true", `^<\d+>(.{15}) `, time.Stamp, kathmandu},
	} {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		export := runWith(t, strings.NewReader(event), "export", "--source", "-", "--udp-destination", "syslog://"+conn.LocalAddr().String()+test.options)
		export.wait(20 * time.Second)
		end := time.Now()
		var got []string
		buffer := make([]byte, 65536)
		for got == nil {
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				t.Fatal(err)
			}
			if text := string(buffer[:n]); strings.Contains(text, "process_exec") && !strings.Contains(text, "agent_") {
				if got = regexp.MustCompile(test.header).FindStringSubmatch(text); got == nil {
					t.Fatalf("%s: %s", test.options, text)
				}
			}
		}
		_ = conn.Close()
		at, err := time.ParseInLocation(test.layout, got[1], test.zone)
		if at.Year() == 0 {
			at = at.AddDate(begin.In(test.zone).Year(), 0, 0)
		}
		if err != nil || at.Before(begin.Add(-time.Second)) || at.After(end) {
			t.Errorf("%s: %s is %v, sent between %v and %v (%v)", test.options, got[1], at, begin, end, err)
		}
	}
}
