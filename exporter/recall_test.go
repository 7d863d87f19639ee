package exporter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/metadata"
)

// remembering is the configuration of an exporter that leaves what it knows in a file.
func remembering(path string, pid int) Config {
	return Config{
		MetadataStore:  metadata.NewMappedStore(path),
		MetadataOrigin: func() (metadata.Origin, error) { return metadata.Origin{BootID: "b", InfoPID: 1}, nil },
		Host:           metadata.Sources{Hostname: func() (string, error) { return "node", nil }, PID: func() int { return pid }},
	}
}

// agentInits returns the agent_init that a socket took.
func agentInits(t *testing.T, f *fakeSocket) (all []metadata.MetadataEvent) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.taken {
		var event metadata.MetadataEvent
		if err := json.Unmarshal(d, &event); err != nil {
			t.Fatalf("%v: %q", err, d)
		}
		if event.Event == metadata.EventAgentInit {
			all = append(all, event)
		}
	}
	return all
}

// TestWarmStart: a process leaves what Tetragon said; the next one announces it before
// Tetragon answers, with its own time and process id, and corrects it when Tetragon
// says something else.
func TestWarmStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.cache")
	v17 := Tetragon{Version: "v1.7.0", BuildCommit: "abc", ClusterName: "c1"}
	process := func(t *testing.T, pid int, tetragon *Tetragon, do func(e *UDPExporter)) ([]metadata.MetadataEvent, metadata.CacheStats) {
		t.Helper()
		var socket fakeSocket
		e := newTestExporter(t, remembering(path, pid), &socket)
		stop := start(t, e)
		synctest.Wait()
		if tetragon != nil {
			e.SetTetragon(*tetragon)
			synctest.Wait()
		}
		if do != nil {
			do(e)
		}
		stop()
		check(t, e)
		all := agentInits(t, &socket)
		for _, event := range all {
			if event.PID != pid || event.Hostname != "node" {
				t.Errorf("process %d said %+v", pid, event)
			}
		}
		return all, e.Stats().Metadata[0]
	}
	bubble := func(name string, f func(t *testing.T)) { t.Run(name, func(t *testing.T) { synctest.Test(t, f) }) }

	bubble("cold", func(t *testing.T) {
		if all, stats := process(t, 1, nil, nil); len(all) != 0 || stats.WarmStarts != 0 {
			t.Errorf("with an empty file %v was announced: %+v", all, stats)
		}
		if all, _ := process(t, 2, &v17, nil); len(all) != 1 || all[0].TetragonVersion != "v1.7.0" {
			t.Errorf("announced %v", all)
		}
	})
	bubble("warm", func(t *testing.T) {
		all, stats := process(t, 3, nil, func(e *UDPExporter) {
			if e.clusterName != "c1" {
				t.Errorf("cluster %q", e.clusterName)
			}
			if r := e.worker.streams[0].cache.Current(); !r.Lent() || e.calm() {
				t.Error("the record is not sent from the mapping")
			}
		})
		if len(all) != 1 || all[0].TetragonVersion != "v1.7.0" || all[0].BuildCommit != "abc" || stats.WarmStarts != 1 || stats.Made != 0 {
			t.Errorf("announced %v, %+v", all, stats)
		}
	})
	bubble("confirmed", func(t *testing.T) {
		all, stats := process(t, 4, &v17, func(e *UDPExporter) {
			_ = e.SendMetadataEvent()
			synctest.Wait()
			if r := e.worker.streams[0].cache.Current(); r.Lent() || !e.calm() {
				t.Error("after Tetragon answered the record is not in memory")
			}
		})
		if len(all) != 2 || all[0].Timestamp != all[1].Timestamp || stats.Invalidations != (metadata.Invalidations{}) {
			t.Errorf("announced %v, %+v", all, stats)
		}
	})
	bubble("corrected", func(t *testing.T) {
		all, stats := process(t, 5, &Tetragon{Version: "v1.8.0"}, nil)
		if len(all) != 2 || all[0].TetragonVersion != "v1.7.0" || all[1].TetragonVersion != "v1.8.0" || all[1].BuildCommit != "" || stats.Invalidations[metadata.NewTetragon] != 1 {
			t.Errorf("announced %v, %+v", all, stats)
		}
		if all, _ := process(t, 6, nil, nil); len(all) != 1 || all[0].TetragonVersion != "v1.8.0" {
			t.Errorf("the process after that announced %v", all)
		}
	})
	bubble("another boot", func(t *testing.T) {
		c := remembering(path, 7)
		c.MetadataOrigin = func() (metadata.Origin, error) { return metadata.Origin{BootID: "c", InfoPID: 1}, nil }
		var socket fakeSocket
		e := newTestExporter(t, c, &socket)
		stop := start(t, e)
		synctest.Wait()
		stop()
		if stats := e.Stats().Metadata[0]; len(socket.taken) != 0 || stats.Invalidations[metadata.OtherBoot] != 1 {
			t.Errorf("%d datagrams, %+v", len(socket.taken), stats)
		}
	})
}

// TestWarmFormats: also what a format makes of agent_init is right, with several
// destinations of one process.
func TestWarmFormats(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.cache")
	for _, pid := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			c := remembering(path, pid)
			c.Destinations = []Destination{
				{Address: "127.0.0.1:40000"}, {Address: "127.0.0.1:40001", Format: "gelf", MetadataCompression: "zlib"},
				{Address: "127.0.0.1:40002", Format: "frame", MetadataCompression: "zstd"}, {Address: "127.0.0.1:40003", Format: "syslog"}, {Address: "127.0.0.1:40004", Format: "ndjson"},
			}
			sockets := []*fakeSocket{{}, {}, {}, {}, {}}
			e := newTestExporter(t, c, sockets...)
			stop := start(t, e)
			synctest.Wait()
			if pid == 1 {
				e.SetTetragon(Tetragon{Version: "v1.7.0"})
				synctest.Wait()
			}
			stop()
			for i, s := range sockets {
				text := fmt.Sprintf(`"tetragon_version":"v1.7.0","hostname":"node","os":"linux","kernel_version":"%s","pid":%d,`, metadata.HostFacts().KernelVersion, pid)
				isText := i == 0 || i > 2
				if len(s.taken) != 1 || isText && !bytes.Contains(s.taken[0], []byte(text)) {
					t.Errorf("process %d: destination %d got %q", pid, i, s.taken)
				}
			}
		})
	}
}

// TestWarmFileDamaged: the file behind the record that is being sent is cut off, within
// the page, to nothing, or behind the record. Each agent_init is whole all the same. A
// file that hurts is set aside, counted, and left anew.
func TestWarmFileDamaged(t *testing.T) {
	for size, hurt := range map[int64]uint64{0: 1, 100: 1, 4096: 0} {
		synctest.Test(t, func(t *testing.T) {
			read, addr := listen(t)
			path := filepath.Join(t.TempDir(), "metadata.cache")
			leave := remembering(path, 1)
			facts := leave.Host.Read()
			facts.TetragonVersion, facts.UDPDestination, facts.UDPBufferSize = "v1.7.0", addr.String(), DefaultUDPBufferSize
			origin, _ := leave.MetadataOrigin()
			if err := metadata.Leave(t.Context(), leave.MetadataStore, facts, origin, nil, ""); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			c := remembering(path, 2)
			c.Destinations, c.StatsInterval, c.Logger = []Destination{{Address: addr.String()}}, -1, testLogger(&log)
			e, err := NewUDPExporter(c)
			if err != nil {
				t.Fatal(err)
			}
			stop := start(t, e)
			synctest.Wait()
			if r := e.worker.streams[0].cache.Current(); r == nil || !r.Lent() {
				t.Fatal("not sent from the mapping")
			}
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				_ = e.SendMetadataEvent()
				synctest.Wait()
			}
			stop()
			got := read(4)
			for _, d := range got {
				if d != got[0] || !strings.Contains(d, `"pid":2,`) {
					t.Errorf("cut off to %d bytes: got %q, before %q", size, d, got[0])
				}
			}
			stats := e.Stats().Metadata[0]
			if stats.Invalidations[metadata.Damaged] != hurt || stats.WarmStarts != 1 || stats.Made != 0 {
				t.Errorf("stats %+v", stats)
			}
			if n := c.MetadataStore.(*metadata.MappedStore).SetAside(); n[metadata.BadChecksum]+n[metadata.CutOff] != hurt {
				t.Errorf("set aside %v", n)
			}
			if r, err := metadata.Recall(t.Context(), metadata.NewMappedStore(path), facts, origin, nil); hurt > 0 && (err != nil || !r.Record.Lent()) {
				t.Errorf("the file was not left anew: %v", err)
			}
			check(t, e)
			_ = e.Close()
		})
	}
}

// away is a store that never answers, or answers with rubbish.
type away struct {
	value []byte
	hang  bool
}

func (a away) answer(ctx context.Context) error {
	if a.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if a.value == nil {
		return errors.New("away")
	}
	return nil
}

func (a away) Get(ctx context.Context, _ string) ([]byte, error) { return a.value, a.answer(ctx) }
func (a away) Put(ctx context.Context, _ string, _ []byte) error { return a.answer(ctx) }
func (a away) Watch(ctx context.Context, _ func(string, []byte)) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestStoreAway: a store that hangs, fails or returns rubbish costs a counter: events
// and agent_init go out as without it.
func TestStoreAway(t *testing.T) {
	for name, store := range map[string]away{"hangs": {hang: true}, "fails": {}, "rubbish": {value: []byte("rubbish")}, "10 MB": {value: make([]byte, 10<<20)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var socket fakeSocket
				c := remembering("", 1)
				c.MetadataStore = store
				e := newTestExporter(t, c, &socket)
				stop := start(t, e)
				synctest.Wait()
				begin := time.Now()
				e.SetTetragon(Tetragon{Version: "v1.7.0"})
				if err := e.SendBatch(wires(0, 10)); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				lines, inits := socket.events()
				wantLines(t, lines, 0, 10)
				if inits != 1 || time.Since(begin) != 0 {
					t.Errorf("%d agent_init, after %v", inits, time.Since(begin))
				}
				time.Sleep(4 * storeWait)
				stop()
				stats := e.Stats().Metadata[0]
				if stats.StoreErrors+stats.Invalidations[metadata.Damaged] == 0 || stats.WarmStarts != 0 {
					t.Errorf("stats %+v", stats)
				}
				if a := check(t, e); a.Streams[0].Sent != 10 {
					t.Errorf("sent %d", a.Streams[0].Sent)
				}
			})
		})
	}
}

// TestNoInfoFile: without an origin nothing is recalled and nothing is left.
func TestNoInfoFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "metadata.cache")
		c := remembering(path, 1)
		c.MetadataOrigin = func() (metadata.Origin, error) { return metadata.Origin{}, errors.New("no info file") }
		var socket fakeSocket
		e := newTestExporter(t, c, &socket)
		stop := start(t, e)
		e.SetTetragon(Tetragon{Version: "v1.7.0"})
		synctest.Wait()
		stop()
		if _, err := os.Stat(path); err == nil {
			t.Error("a file was made")
		}
		if _, inits := socket.events(); inits != 1 {
			t.Errorf("%d agent_init", inits)
		}
	})
}

// TestCacheOff: each export makes its event anew, with the facts and the time of then.
func TestCacheOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var socket fakeSocket
		hostnames := 0
		e := newTestExporter(t, Config{MetadataCacheOff: true, Logger: testLogger(&log), Tetragon: &Tetragon{Version: "v1.7.0"},
			Host: metadata.Sources{Hostname: func() (string, error) { hostnames++; return "node", nil }}}, &socket)
		before := hostnames
		for range 3 {
			_ = e.SendMetadataEvent()
			time.Sleep(time.Second)
		}
		all := agentInits(t, &socket)
		if len(all) != 3 || all[0].Timestamp == all[1].Timestamp || hostnames-before != 3 {
			t.Errorf("%d hostname calls for %v", hostnames-before, all)
		}
		if s := e.Stats().Metadata[0]; s.Hits != 0 || s.Misses != 3 || s.Fallbacks != 0 || s.RecordBytes != 0 {
			t.Errorf("stats %+v", s)
		}
		if n := strings.Count(log.String(), `level=INFO msg="Metadata event sent over UDP"`); n != 3 {
			t.Errorf("%d lines in the log:\n%s", n, log.String())
		}
	})
}

// TestThousandGoroutines: a thousand goroutines export agent_init while its facts change.
// Every datagram is one whole record, old or new, and in the end all are new.
func TestThousandGoroutines(t *testing.T) {
	read, addr := listen(t)
	e, err := NewUDPExporter(Config{Destinations: []Destination{{Address: addr.String()}}, StatsInterval: -1, MetadataInterval: -1, Tetragon: &Tetragon{Version: "v0"}})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, e)
	const changes = 50
	version := func(i int) string { return fmt.Sprintf("v%d", i) }
	begin, done := make(chan struct{}), make(chan struct{})
	var senders, receiver sync.WaitGroup
	for range 1000 {
		senders.Go(func() {
			<-begin
			for {
				select {
				case <-done:
					return
				default:
					_ = e.SendMetadataEvent()
				}
			}
		})
	}
	datagrams, seen := 0, map[string]bool{}
	receiver.Go(func() {
		for !seen[version(changes)] {
			d := read(1)[0]
			var event metadata.MetadataEvent
			if err := json.Unmarshal([]byte(d), &event); err != nil || event.Uptime != metadata.UptimeInit || strings.Count(d, "\n") != 1 {
				t.Errorf("no whole record: %v: %q", err, d)
				return
			}
			seen[event.TetragonVersion] = true
			datagrams++
		}
	})
	close(begin)
	for i := 1; i <= changes; i++ {
		e.SetTetragon(Tetragon{Version: version(i)})
		time.Sleep(time.Millisecond)
	}
	receiver.Wait()
	close(done)
	senders.Wait()
	stop()
	for v := range seen {
		if n, err := strconv.Atoi(v[1:]); err != nil || n > changes {
			t.Errorf("a version that never was: %q", v)
		}
	}
	if got := e.worker.all[0].cache.Current().Event().TetragonVersion; got != version(changes) {
		t.Errorf("in the end the record states %s", got)
	}
	t.Logf("%d datagrams received, %d of %d versions among them", datagrams, len(seen), changes+1)
	if s := e.Stats().Metadata[0]; s.Invalidations[metadata.NewTetragon] == 0 || s.Hits == 0 {
		t.Errorf("stats %+v", s)
	}
	check(t, e)
	_ = e.Close()
}
