package bench

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"time"

	"tetracast/exporter"
	"tetracast/internal/udp"
	"tetracast/metadata"
)

// announceTable measures the export of a cached agent_init, the whole path, and
// beside it the bare send of the same bytes.
func announceTable(ctx context.Context, rounds int) (Table, error) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return Table{}, err
	}
	defer func() { _ = sink.Close() }()
	to := sink.LocalAddr().(*net.UDPAddr)
	out, err := exporter.NewUDPExporter(exporter.Config{Destinations: []exporter.Destination{{Address: to.String()}}, MetadataInterval: -1, StatsInterval: -1})
	if err != nil {
		return Table{}, err
	}
	defer func() { _ = out.Close() }()
	conn, err := udp.Dial(to.AddrPort(), udp.Options{SendBufferBytes: exporter.DefaultUDPBufferSize})
	if err != nil {
		return Table{}, err
	}
	defer func() { _ = conn.Close() }()
	facts := metadata.HostFacts()
	facts.UDPDestination, facts.UDPBufferSize = to.String(), exporter.DefaultUDPBufferSize
	record, err := metadata.NewRecord(facts, nil)
	if err != nil {
		return Table{}, err
	}
	line := [][]byte{record.Line()}
	const units = 5000
	loop := func(f func() error) func() (int, time.Duration, error) {
		return func() (int, time.Duration, error) {
			cpu, err := threadTime(func() error {
				for range units {
					if err := f(); err != nil {
						return err
					}
				}
				return nil
			})
			return units, cpu, err
		}
	}
	const floor = "bare send"
	table, err := measure(ctx, "agent_init, cached, on loopback", "export", rounds, []*contender{
		{name: floor, round: loop(func() error { _, err := conn.Send(line); return err })},
		{name: "whole path", base: floor, round: loop(out.SendMetadataEvent)},
	})
	if err != nil {
		return table, err
	}
	var before, after runtime.MemStats
	callsBefore := out.Stats().Sockets[0].Calls
	runtime.ReadMemStats(&before)
	for range units {
		if err := out.SendMetadataEvent(); err != nil {
			return table, err
		}
	}
	runtime.ReadMemStats(&after)
	table.Rows[1].Note = fmt.Sprintf("%.2f allocations and %.2f system calls an export",
		float64(after.Mallocs-before.Mallocs)/units, float64(out.Stats().Sockets[0].Calls-callsBefore)/units)
	return table, nil
}
