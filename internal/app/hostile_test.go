package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tetracast/datagram"
	"tetracast/internal/collector"
	"tetracast/internal/metrics"
	"tetracast/internal/sink"
	"tetracast/internal/sink/compact"
)

// hostileNames are what a sender may call itself, its stream, a reason and a stage.
var hostileNames = []string{
	"n\x1b[2J\x1b[1;1H", "n\n    in all  0  0  0  0  0  0*  0  0  999", "in all", "n\r", "n\x00\x07", "n\u202etxt.exe", "n\u009b31m", "n\u2028x", `n" x="`, "",
	strings.Repeat("n", 300), strings.Repeat("\u20ac", 100),
}

// TestHostileNames: whatever senders of all formats call themselves, nothing that a person
// reads holds a character that a terminal acts on, or a line that is not ours, and what
// programs read stays valid.
func TestHostileNames(t *testing.T) {
	var human, lines bytes.Buffer // what people read; what programs read
	c, err := collector.New(collector.Config{Listen: "127.0.0.1:0", Other: collector.OtherPass,
		Sink: sink.Tee(sink.NewLines(&lines), compact.New(sink.NewLines(&human), compact.Options{}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	sent := uint64(0)
	send := func(d []byte) {
		t.Helper()
		conn, err := net.Dial("udp", c.Addr().String()) // each from another port
		if err == nil {
			_, err = conn.Write(d)
		}
		if err != nil {
			t.Fatal(err)
		}
		sent++
		_ = conn.Close()
	}
	text := func(v any) string {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for i, name := range hostileNames {
		q := text(name)
		record := fmt.Sprintf(`{"@timestamp":%s,"event":"agent_init","tetragon_version":%s,"hostname":%s,"pid":1,"labels":{%s:%s}}`, q, q, q, q, q)
		stats := fmt.Sprintf(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","stream":%s,"hostname":%s,"started_at":"2026-01-01T00:00:00Z","last_number":9,"dropped":{%s:3},"upstream":{%s:4},"goodbye":true}`, q, q, q, q)
		event := fmt.Sprintf(`{"process_exec":{"process":{"binary":%s,"arguments":%s,"pod":{"name":%s}}},"node_name":%s,"time":%s}`, q, q, q, q, q)
		send([]byte(record + "\n" + event + "\n" + stats))
		send([]byte("<13>1 - " + name + " a - - - " + event))
		send([]byte("<13>" + name + " {"))
		send([]byte(fmt.Sprintf(`{"version":"1.1","host":%s,"short_message":%s,"_%d":1}`, q, q, i)))
		f, err := datagram.NewFrame(datagram.FrameConfig{Stream: uint64(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		var b datagram.Batch
		f.PackRecord(&b, []byte(record))
		_ = f.Pack(&b, &datagram.Event{Number: 1, Line: []byte(event)})
		f.Flush(&b)
		f.PackStats(&b, []byte(stats), true)
		for _, d := range b.Datagrams {
			send(d)
		}
	}
	for end := time.Now().Add(20 * time.Second); c.Account().Datagrams < sent && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(c.Stats, 1, true, nil))
	families, err := registry.Gather()
	if err != nil {
		t.Logf("a scrape fails, which is another test's: %v", err)
	}
	account := c.Account()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(account.Agents) < len(hostileNames)-2 {
		t.Errorf("%d agents of %d names", len(account.Agents), len(hostileNames))
	}
	// The account, printed, as a file, merged, and as an error that names a stream.
	human.Write(account.AppendText(nil))
	path := filepath.Join(t.TempDir(), "account")
	if err := writeAccount(path, account); err != nil {
		t.Fatal(err)
	}
	merged := &bytes.Buffer{}
	Report(&human, MergeAccounts([]string{path}, Streams{Out: merged, Err: &human}))
	lines.Write(merged.Bytes())
	if file, err := os.ReadFile(path); err == nil {
		lines.Write(file)
	}
	for i := range account.Agents {
		for k := range account.Agents[i].Streams {
			if s := &account.Agents[i].Streams[k]; s.Announced != nil {
				*s.Announced += 1000
				Report(&human, account.Check())
				*s.Announced -= 1000
			}
		}
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				human.WriteString(label.GetName() + "=" + label.GetValue() + "\n")
			}
		}
	}
	log, err := Streams{Err: &human}.logger(LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range hostileNames {
		log.Warn("of a sender", "hostname", name, "cause", fmt.Errorf("it said %s", name))
	}

	for line := range strings.Lines(human.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 || r == '\u202e' || r == '\u2028' }) {
			t.Errorf("a person reads %q", line)
		}
		if strings.HasPrefix(strings.TrimSpace(line), "in all ") && strings.Contains(line, "999") {
			t.Errorf("a forged line: %q", line)
		}
	}
	if n := strings.Count(human.String(), "\n    in all  "); n > 0 {
		t.Errorf("%d lines that a name forged", n)
	}
	for line := range strings.Lines(lines.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a program reads %.300q", line)
		}
	}
}
