package exporter

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"tetracast/internal/udp"
	"tetracast/internal/udp/netns"
)

// deaf takes every datagram, and while it is closed hears for each that nobody
// listens.
type deaf struct {
	fakeSocket
	closed  bool
	pending udp.Answers
	rotated []time.Time
	opened  uint64
}

func (d *deaf) Rotate() error {
	d.rotated = append(d.rotated, time.Now())
	d.opened++
	return nil
}

func (d *deaf) Opened() uint64 { return d.opened }

func (d *deaf) Send(datagrams [][]byte) (int, error) {
	if d.closed {
		d.pending[udp.PortUnreachable] += uint64(len(datagrams))
	}
	return d.fakeSocket.Send(datagrams)
}

func (d *deaf) Answers() (n udp.Answers, last *udp.Answer) {
	if n, d.pending = d.pending, (udp.Answers{}); n != (udp.Answers{}) {
		last = &udp.Answer{Class: udp.PortUnreachable, Errno: unix.ECONNREFUSED, Type: 3, Code: 3, From: netip.MustParseAddr("192.0.2.1")}
	}
	return n, last
}

// TestNobodyListens (S1): what is sent where nobody listens counts as sent; but that
// is told once in the log, with its end, in the figures beside the account, in the
// state of the destination, and in agent_stats.
func TestNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := newTestExporter(t, Config{Logger: testLogger(&log), Destinations: []Destination{{Address: "127.0.0.1:40000"}}, StatsInterval: time.Minute})
		socket := &deaf{closed: true}
		_ = e.worker.streams[0].conn.Close()
		e.worker.streams[0].conn = socket
		stop := start(t, e)
		const closed = 90
		for i := range closed {
			_ = e.SendWire(wire(i))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		account, s := check(t, e), e.Stats().Streams[0]
		if n := account.Observed.ICMPAnswers["port_unreachable"]; account.Streams[0].Sent != closed || n < closed || s.Up || s.Answers[udp.PortUnreachable] != n {
			t.Errorf("while nobody listens: sent %d, answers %v, stats %+v", account.Streams[0].Sent, account.Observed.ICMPAnswers, s)
		}
		if n := strings.Count(log.String(), "takes no datagrams"); n != 1 || !strings.Contains(log.String(), "ICMP type 3, code 3 from 192.0.2.1") {
			t.Errorf("%d lines in the log, want one with the answer:\n%s", n, log.String())
		}
		socket.closed = false
		for i := range 10 {
			_ = e.SendWire(wire(i))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if !e.Stats().Streams[0].Up || strings.Count(log.String(), "takes datagrams again") != 1 {
			t.Errorf("when somebody listens: %+v\n%s", e.Stats().Streams[0], log.String())
		}
		stop()
		told := false
		for _, d := range socket.taken {
			told = told || bytes.Contains(d, []byte("agent_stats")) && !bytes.Contains(d, []byte(`"icmp_answers":0`))
		}
		if !told {
			t.Error("agent_stats does not tell it")
		}
	})
}

// TestForgedICMP (S1, S6): 200 forged ICMP errors a second, of every kind, cost no
// event, with the defaults, in json and in frames.
func TestForgedICMP(t *testing.T) {
	link := netns.New(t)
	kinds := [][2]uint8{{4, 0}, {11, 0}, {11, 1}, {12, 0}, {12, 1}}
	for code := range uint8(16) {
		kinds = append(kinds, [2]uint8{3, code})
	}
	events := marked(t, 600)
	for _, format := range []string{"json", "frame"} {
		arrived := countMarks(t, link)
		link.In(link.Sender, func() {
			e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: netns.ReceiverIP + ":7514", Format: format}}, Tetragon: &Tetragon{Version: "v"}})
			if err != nil {
				t.Fatal(err)
			}
			forge := link.ForgeICMP(netip.MustParseAddrPort(netns.ReceiverIP + ":7514"))
			stop := start(t, e)
			for i, event := range events {
				_ = e.SendWire(event)
				time.Sleep(2 * time.Millisecond)
				if i%4 != 0 {
					k := kinds[i%len(kinds)]
					forge(netip.AddrPortFrom(netip.MustParseAddr(netns.SenderIP), sourcePortOf(t)), k[0], k[1], 1400)
				}
			}
			stop()
			account := check(t, e)
			got := arrived()
			if s := account.Streams[0]; s.Sent != uint64(len(events)) || len(got) != len(events) {
				t.Errorf("%s: sent %d of %d, %d arrived, dropped %v", format, s.Sent, len(events), len(got), s.Dropped.String())
			}
			if n := account.Observed.ICMPAnswers; n["unreachable"] < 100 || n["port_unreachable"] < 10 || n["other"] < 10 || n["too_big"] < 10 && format == "frame" {
				t.Errorf("%s: the answers are not counted: %v", format, n)
			}
			t.Logf("%s: sent %d, arrived %d, answers %v", format, account.Streams[0].Sent, len(got), account.Observed.ICMPAnswers)
			_ = e.Close()
		})
	}
}

// sourcePortOf returns the source port of the exporter's socket, which changes: of the
// one socket of the namespace that it is called in.
func sourcePortOf(t *testing.T) (port uint16) {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		var slot int
		var address string
		if n, _ := fmt.Sscanf(line, "%d: %8s:%X", &slot, &address, &port); n == 3 {
			return port
		}
	}
	return 0
}
