package exporter

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
	"tetracast/internal/udp/netns"
	"tetracast/ledger"
)

// TestDeviceQueueMatrix (S3, S4): over a device queue that overflows, with the
// defaults, what the account calls sent is what arrives: each such event once, in
// every format. The queues are those that Kubernetes and administrators install to
// bound a rate; each cell shows by the queue's own counter that it dropped.
func TestDeviceQueueMatrix(t *testing.T) {
	const tbf = "tc qdisc add dev va root handle 1: tbf rate 20mbit burst 5kb limit 6000"
	queues := map[string]string{
		"tbf":       tbf,
		"tbf_pfifo": tbf + " && tc qdisc add dev va parent 1:1 pfifo limit 2",
		"htb_pfifo": "tc qdisc add dev va root handle 1: htb default 1 && tc class add dev va parent 1: classid 1:1 htb rate 20mbit burst 5kb cburst 5kb && " +
			"tc qdisc add dev va parent 1:1 pfifo limit 10",
	}
	events := marked(t, 2400)
	var cells sync.WaitGroup
	defer cells.Wait()
	for name, queue := range queues {
		for _, buffer := range []int{0, 4 << 20} {
			formats := Formats
			if testing.Short() {
				if buffer > 0 {
					continue
				}
				formats = []string{"json", "frame"}
			}
			cells.Go(func() {
				link := netns.New(t, "tc")
				link.Sh(link.Sender, queue)
				for _, format := range formats {
					t.Run(fmt.Sprintf("%s/%d/%s", name, buffer, format), func(t *testing.T) {
						throughQueue(t, link, Destination{Format: format, UDPBufferSize: buffer}, events)
					})
				}
			})
		}
	}
}

// marked returns so many recorded events, each with a node name of its own. They
// are of those whose JSON travels in two IP fragments at the most, which is what
// the narrowest of the queues above ever takes, but for two giants.
func marked(t testing.TB, n int) (events [][]byte) {
	t.Helper()
	r, err := source.NewRecording(bytes.NewReader(corpus.Sample()))
	if err != nil {
		t.Fatal(err)
	}
	transcoder, err := NewTranscoder(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	var recorded []*tetragon.GetEventsResponse
	giants := 0
	for {
		wire, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		line, _, err := transcoder.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		giant := len(line) > 10_000 && len(line) < 20_000 && giants < 2
		if len(line) > 2600 && !giant {
			continue
		}
		event := new(tetragon.GetEventsResponse)
		if err := proto.Unmarshal(wire, event); err != nil {
			t.Fatal(err)
		}
		if giant {
			giants++
			event.NodeName = fmt.Sprintf("mark-%d-", len(events))
			events = append(events, mustMarshal(t, event))
			continue
		}
		recorded = append(recorded, event)
	}
	for i := len(events); i < n; i++ {
		event := recorded[i%len(recorded)]
		event.NodeName = fmt.Sprintf("mark-%d-", i)
		events = append(events, mustMarshal(t, event))
	}
	return events
}

func mustMarshal(t testing.TB, event proto.Message) []byte {
	t.Helper()
	wire, err := proto.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// throughQueue sends the events out through a device queue, and compares what the
// account calls sent with what arrives.
func throughQueue(t *testing.T, link *netns.Link, to Destination, events [][]byte) {
	before := queueDrops(t, link)
	arrived := countMarks(t, link)
	to.Address = netns.ReceiverIP + ":7514"
	var account ledger.Exporter
	link.In(link.Sender, func() {
		e, err := NewUDPExporter(Config{Destinations: []Destination{to}, Tetragon: &Tetragon{Version: "v"}})
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, e)
		for rest := events; len(rest) > 0; rest = rest[min(60, len(rest)):] {
			_ = e.SendBatch(rest[:min(60, len(rest))])
		}
		for deadline := time.Now().Add(time.Minute); e.Account().Streams[0].Queued > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("after a minute there still wait %d events", e.Account().Streams[0].Queued)
				break
			}
		}
		stop()
		account = check(t, e)
		_ = e.Close()
	})
	got := arrived()
	sent := account.Streams[0].Sent
	for mark, times := range got {
		if times != 1 {
			t.Errorf("event %d arrived %d times", mark, times)
		}
	}
	if uint64(len(got)) != sent || sent < uint64(len(events)*9/10) {
		t.Errorf("sent %d of %d events, but %d arrived; dropped %v", sent, len(events), len(got), account.Streams[0].Dropped.String())
	}
	dropped := queueDrops(t, link) - before
	if dropped == 0 {
		t.Error("the queue never overflowed: nothing is proven")
	}
	t.Logf("sent %d, arrived %d, dropped %v; the queue dropped %d packets", sent, len(got), account.Streams[0].Dropped.String(), dropped)
}

// queueDrops returns what the queues of the sender's device have dropped.
func queueDrops(t *testing.T, link *netns.Link) (packets int) {
	t.Helper()
	var queues []struct{ Drops int }
	if err := json.Unmarshal([]byte(link.Sh(link.Sender, "tc -s -j qdisc show dev va")), &queues); err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		packets = max(packets, q.Drops) // an outer one counts the inner one's drops
	}
	return packets
}

// countMarks receives in a way of its own, without any code that a collector uses
// for more than to read a frame: how often each event arrived whole. The result
// waits until nothing comes any more.
func countMarks(t *testing.T, link *netns.Link) (arrived func() map[int]int) {
	t.Helper()
	var conn *net.UDPConn
	link.In(link.Receiver, func() {
		var err error
		if conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(netns.ReceiverIP), Port: 7514}); err != nil {
			t.Fatal(err)
		}
	})
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	if err != nil {
		t.Fatal(err)
	}
	m := &marks{count: map[int]int{}, chunks: map[uint64]map[byte][]byte{}, frames: datagram.NewFrameReader(datagram.FrameReaderConfig{}), seen: map[uint64]bool{}}
	done := make(chan map[int]int, 1)
	ended := make(chan struct{})
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := conn.Read(buffer)
			if err == nil {
				m.take(buffer[:n])
				continue
			}
			select {
			case <-ended:
				done <- m.count
				return
			default:
			}
		}
	}()
	return func() map[int]int {
		close(ended)
		count := <-done
		_ = conn.Close()
		return count
	}
}

// marks counts the events of marked.
type marks struct {
	count  map[int]int
	chunks map[uint64]map[byte][]byte // of GELF, by message
	frames *datagram.FrameReader
	seen   map[uint64]bool // numbers of frames
}

var mark = regexp.MustCompile(`mark-(\d+)-`)

// take counts what is in a datagram.
func (m *marks) take(d []byte) {
	var h datagram.Header
	switch {
	case len(d) > 12 && d[0] == 0x1e && d[1] == 0x0f: // a chunk of GELF
		id := binary.BigEndian.Uint64(d[2:])
		if m.chunks[id] == nil {
			m.chunks[id] = map[byte][]byte{}
		}
		m.chunks[id][d[10]] = bytes.Clone(d[12:])
		if len(m.chunks[id]) < int(d[11]) {
			return
		}
		var message []byte
		for i := range d[11] {
			message = append(message, m.chunks[id][i]...)
		}
		m.event(message)
	case bytes.HasPrefix(d, []byte("{")) || bytes.HasPrefix(d, []byte("<")):
		for line := range strings.Lines(string(d)) { // one, but in ndjson
			m.event([]byte(line))
		}
	default:
		body, err := m.frames.Open(d, &h)
		if err != nil || m.seen[h.Datagram] {
			return
		}
		m.seen[h.Datagram] = true
		_ = m.frames.Read(&h, body, time.Now(), func(_ uint64, event []byte) { m.event(event) })
	}
}

// event counts a whole event, by the first mark in it.
func (m *marks) event(text []byte) {
	if found := mark.FindSubmatch(text); found != nil {
		n, _ := strconv.Atoi(string(found[1]))
		m.count[n]++
	}
}
