package exporter_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"

	"tetracast/exporter"
)

// A Go program that has events of its own to send gives Run a goroutine, sends
// from wherever it likes, and asks for the account at the end.
func ExampleUDPExporter() {
	collector := newCollector()
	out, err := exporter.NewUDPExporter(exporter.Config{
		Destinations: []exporter.Destination{{Address: collector.address}},
		Tetragon:     &exporter.Tetragon{Version: "v1.7.0"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = out.Run(ctx) })

	_ = out.Send(&tetragon.GetEventsResponse{NodeName: "node-1"})
	_ = out.SendJSON([]byte(`{"process_exec":{"process":{"binary":"/usr/bin/id"}},"node_name":"node-1"}`))

	_ = out.Finish(ctx) // when all that is queued was sent
	cancel()            // after a signal, it would bound that
	running.Wait()
	defer func() { _ = out.Close() }()

	for range 3 {
		fmt.Println(collector.read())
	}
	account := out.Account()
	fmt.Println("seen", account.Seen, "sent", account.Streams[0].Sent, "closes", account.Check() == nil)
	// Output:
	// {"@timestamp":"...","event":"agent_init","tetragon_version":"v1.7.0",...}
	// {"node_name":"node-1"}
	// {"process_exec":{"process":{"binary":"/usr/bin/id"}},"node_name":"node-1"}
	// seen 2 sent 2 closes true
}

// eventServer stands for the event server of a Tetragon build: it hands every
// event to each of its streams until their contexts end.
func eventServer(events []*tetragon.GetEventsResponse, stream tetragon.FineGuidanceSensors_GetEventsServer) error {
	for _, event := range events {
		if stream.Context().Err() != nil {
			return nil
		}
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return nil
}

// A build of Tetragon hands the exporter to its own event server as one more
// client of GetEvents.
func ExampleUDPExporter_insideTetragon() {
	collector := newCollector()
	out, err := exporter.NewUDPExporter(exporter.Config{
		Destinations: []exporter.Destination{{Address: collector.address}},
		Tetragon:     &exporter.Tetragon{Version: "v1.7.0"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = out.Run(ctx) })

	_ = eventServer([]*tetragon.GetEventsResponse{{NodeName: "node-1"}, {NodeName: "node-2"}}, out)

	cancel()
	running.Wait()
	defer func() { _ = out.Close() }()
	for range 3 {
		fmt.Println(collector.read())
	}
	// Output:
	// {"@timestamp":"...","event":"agent_init","tetragon_version":"v1.7.0",...}
	// {"node_name":"node-1"}
	// {"node_name":"node-2"}
}

// collector is any program that reads JSON over UDP.
type collector struct {
	conn    net.PacketConn
	address string
}

func newCollector() collector {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return collector{conn: conn, address: conn.LocalAddr().String()}
}

// read returns a datagram; of an agent_init only what is the same on every host.
func (c collector) read() string {
	buffer := make([]byte, 1<<16)
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.conn.ReadFrom(buffer)
	if err != nil {
		return err.Error()
	}
	line := strings.TrimSpace(string(buffer[:n]))
	_, rest, isInit := strings.Cut(line, `"event":"agent_init"`)
	if !isInit {
		return line
	}
	version, _, _ := strings.Cut(rest, `"hostname"`)
	return `{"@timestamp":"...","event":"agent_init"` + version + `...}`
}
