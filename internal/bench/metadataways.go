package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tetracast/exporter"
	"tetracast/internal/udp"
	"tetracast/metadata"
)

// The rows: the way that the cached agent_init replaces, each of the ideas
// behind it alone, all of them, and the floor.
const (
	oldWay       = "old-way"
	oldWayStruct = "old-way-struct"
	constants    = "constants"
	hostnameOnce = "hostname-once"
	cachedBytes  = "cached-bytes"
	allOfThem    = "all"
	byExporter   = "exporter"
	bareSend     = "bare-send"
)

// metadataWay is one way to export agent_init.
type metadataWay struct {
	key, name string
	// create makes the line to send; nil: there is nothing to make.
	create func(*metadataRig) ([]byte, error)
}

var metadataWays = []metadataWay{
	{oldWay, "old way: read the hostname, build a map, marshal", (*metadataRig).oldWay},
	{oldWayStruct, "old way with a struct instead of the map", (*metadataRig).oldWayStruct},
	{constants, "constants alone", (*metadataRig).constants},
	{hostnameOnce, "hostname once, alone", (*metadataRig).hostnameOnce},
	{cachedBytes, "cached bytes alone: the hostname is still read", (*metadataRig).cachedBytes},
	{allOfThem, "all: the record of metadata.Cache", (*metadataRig).all},
	{byExporter, "all, in tetracast: SendMetadataEvent", nil},
	{bareSend, "floor: the bare send", nil},
}

// metadataRig is what the ways work with: an exporter that runs, a socket of the
// same kind for the ways that bypass it, and a socket that nobody reads. The
// kernel drops there what the queue has no room for, at one cost for all.
type metadataRig struct {
	sink    *net.UDPConn
	address string
	out     *exporter.UDPExporter
	stop    func() error

	mu   sync.Mutex // of conn, which has one owner
	conn *udp.Conn
	line [1][]byte // what send sends
	sent atomic.Uint64

	facts    metadata.Facts
	hostname func() (string, error) // read once
	cache    *metadata.Cache
	record   *metadata.Record
	bare     [1][]byte // its line
}

func newMetadataRig(ctx context.Context) (*metadataRig, error) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("bench: opening a socket: %w", err)
	}
	r := &metadataRig{sink: sink, address: sink.LocalAddr().String(), stop: func() error { return nil }}
	r.hostname = sync.OnceValues(os.Hostname)
	r.facts = metadata.HostFacts()
	r.facts.TetragonVersion = "v1.7.0"
	r.facts.UDPDestination, r.facts.UDPBufferSize = r.address, exporter.DefaultUDPBufferSize
	r.cache = metadata.NewCache(func() metadata.Facts { return r.facts }, nil)
	r.record, _, _ = r.cache.Get()
	r.bare[0] = r.record.Line()
	if r.conn, err = udp.Dial(sink.LocalAddr().(*net.UDPAddr).AddrPort(), udp.Options{SendBufferBytes: exporter.DefaultUDPBufferSize}); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, r.start(ctx)
}

// start runs an exporter until it has announced itself.
func (r *metadataRig) start(ctx context.Context) error {
	var err error
	r.out, err = exporter.NewUDPExporter(exporter.Config{
		Destinations:     []exporter.Destination{{Address: r.address}},
		Tetragon:         &exporter.Tetragon{Version: r.facts.TetragonVersion},
		MetadataInterval: time.Hour, StatsInterval: time.Hour, // both are on, as they are by default, and not due here
	})
	if err != nil {
		return errors.Join(err, r.close())
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.out.Run(running) }()
	r.stop = func() error {
		stop()
		return errors.Join(<-ended, r.out.Close())
	}
	for r.datagrams(byExporter) == 0 { // Run sends it in its first round, and has then given back its role
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), r.close())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func (r *metadataRig) close() error {
	err := errors.Join(r.stop(), r.sink.Close())
	if r.conn != nil {
		err = errors.Join(err, r.conn.Close())
	}
	return err
}

// datagrams returns how many the way has sent.
func (r *metadataRig) datagrams(key string) uint64 {
	if key == byExporter {
		return r.out.Account().Streams[0].Datagrams
	}
	return r.sent.Load()
}

// step returns one export by the way, or the creation alone. Only with shared may
// several goroutines call it.
func (r *metadataRig) step(block string, way metadataWay, shared bool) func() error {
	switch {
	case block == creation:
		return func() error {
			line, err := way.create(r)
			runtime.KeepAlive(line)
			return err
		}
	case way.key == byExporter:
		return r.out.SendMetadataEvent
	case way.key == bareSend && !shared: // no lock, no counter: nothing that sends is cheaper
		return func() error { _, err := r.conn.Send(r.bare[:]); return err }
	case way.key == bareSend:
		return func() error { return r.send(r.record.Line()) }
	}
	return func() error {
		line, err := way.create(r)
		if err != nil {
			return err
		}
		return r.send(line)
	}
}

// send is the same for all the ways that bypass the exporter.
func (r *metadataRig) send(line []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line[0] = line
	_, err := r.conn.Send(r.line[:])
	r.sent.Add(1)
	return err
}

// oldWay is the event as it was exported first: everything anew for each export.
func (r *metadataRig) oldWay() ([]byte, error) {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	return json.Marshal(map[string]any{
		"@timestamp": time.Now().UTC().Format(time.RFC3339Nano), "event": "agent_init",
		"tetragon_version": r.facts.TetragonVersion, "hostname": hostname, "os": "linux",
		"kernel_version": r.facts.KernelVersion, "pid": r.facts.PID,
		"udp_destination": r.facts.UDPDestination, "udp_buffer_size": r.facts.UDPBufferSize, "uptime": "initialized at 0",
	})
}

// oldWayStruct is what a Go programmer would improve first.
func (r *metadataRig) oldWayStruct() ([]byte, error) {
	facts := r.facts
	facts.Time = time.Time{} // now
	hostname, err := os.Hostname()
	if err != nil {
		hostname = metadata.Unknown
	}
	facts.Hostname = hostname
	return json.Marshal(metadata.NewEvent(facts))
}

// constants is the old way with named constants for what never changes.
func (r *metadataRig) constants() ([]byte, error) {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = metadata.Unknown
	}
	return json.Marshal(map[string]any{
		"@timestamp": time.Now().UTC().Format(time.RFC3339Nano), "event": metadata.EventAgentInit,
		"tetragon_version": r.facts.TetragonVersion, "hostname": hostname, "os": metadata.OSLinux,
		"kernel_version": r.facts.KernelVersion, "pid": r.facts.PID,
		"udp_destination": r.facts.UDPDestination, "udp_buffer_size": r.facts.UDPBufferSize, "uptime": metadata.UptimeInit,
	})
}

// hostnameOnce is the old way with the hostname read at the first export only.
func (r *metadataRig) hostnameOnce() ([]byte, error) {
	hostname, err := r.hostname()
	if err != nil {
		hostname = "unknown"
	}
	return json.Marshal(map[string]any{
		"@timestamp": time.Now().UTC().Format(time.RFC3339Nano), "event": "agent_init",
		"tetragon_version": r.facts.TetragonVersion, "hostname": hostname, "os": "linux",
		"kernel_version": r.facts.KernelVersion, "pid": r.facts.PID,
		"udp_destination": r.facts.UDPDestination, "udp_buffer_size": r.facts.UDPBufferSize, "uptime": "initialized at 0",
	})
}

// cachedBytes reads the hostname for each export, to see whether the bytes still
// hold.
func (r *metadataRig) cachedBytes() ([]byte, error) {
	if _, err := os.Hostname(); err != nil {
		return nil, err
	}
	record, _, _ := r.cache.Get()
	return record.Line(), nil
}

// all is what the exporter has to do before it sends.
func (r *metadataRig) all() ([]byte, error) {
	record, _, _ := r.cache.Get()
	return record.Line(), nil
}

// waysOf returns the rows of a block.
func waysOf(block string) []metadataWay {
	if block == export {
		return metadataWays
	}
	return slices.DeleteFunc(slices.Clone(metadataWays), func(w metadataWay) bool { return w.create == nil })
}

// findWay returns the block and the way that block/row names.
func findWay(row string) (block string, way metadataWay, err error) {
	block, key, _ := strings.Cut(row, "/")
	var names []string
	for _, b := range []string{creation, export} {
		for _, w := range waysOf(b) {
			if b == block && w.key == key {
				return b, w, nil
			}
			names = append(names, b+"/"+w.key)
		}
	}
	return "", metadataWay{}, fmt.Errorf("%w: %q, want one of %s", ErrNoRow, row, strings.Join(names, ", "))
}
