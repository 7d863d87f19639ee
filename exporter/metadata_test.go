package exporter

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tetracast/metadata"
)

// TestMetadataRepeats: own repeats of agent_init are the same bytes; another
// version of Tetragon makes another record.
func TestMetadataRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		e := newTestExporter(t, Config{Tetragon: &Tetragon{Version: "v1.6.0"}}, &socket)
		stop := start(t, e)
		synctest.Wait()
		time.Sleep(100 * time.Minute)
		e.SetTetragon(Tetragon{Version: "v1.6.0"}) // no news
		synctest.Wait()
		if n := len(socket.taken); n < 9 || n > 12 {
			t.Errorf("%d agent_init in 100 minutes at an interval of 10", n)
		}
		for i, d := range socket.taken {
			if !bytes.Equal(d, socket.taken[0]) {
				t.Errorf("agent_init %d differs from the first: %s", i, d)
			}
		}
		before := len(socket.taken)
		e.SetTetragon(Tetragon{Version: "v1.7.0", BuildCommit: "abc"})
		synctest.Wait()
		if len(socket.taken) != before+1 || !bytes.Contains(socket.taken[before], []byte(`"tetragon_version":"v1.7.0","build_commit":"abc"`)) {
			t.Errorf("after the upgrade: %d datagrams, %s", len(socket.taken)-before, socket.taken[len(socket.taken)-1])
		}
		stop()
		if a := check(t, e); a.Seen != 0 || a.Streams[0].Sent != 0 {
			t.Errorf("agent_init is counted as an event: %+v", a)
		}
	})
}

// TestMetadataResponse: a client of GetEvents would see an agent_init as the
// exec of a process.
func TestMetadataResponse(t *testing.T) {
	event := metadata.NewMetadataEvent("collector:7514", 65536)
	process := MetadataResponse(event).GetProcessExec().GetProcess()
	if process.GetBinary() != "tetragon_metadata" || process.GetArguments() != "agent_init" || process.GetPid().GetValue() != uint32(os.Getpid()) {
		t.Errorf("process %v", process)
	}
}

// TestMetadataFallback: a record that cannot be rendered costs one plain event
// and one count for each export, and says so; then it is cached again.
func TestMetadataFallback(t *testing.T) {
	var log bytes.Buffer
	var socket fakeSocket
	fails := 3
	e := newTestExporter(t, Config{Logger: testLogger(&log), RenderMetadata: func(m *metadata.MetadataEvent) ([]byte, error) {
		if fails > 0 {
			fails--
			return nil, errors.New("out of order")
		}
		return m.ToJSON()
	}}, &socket)
	for range 5 {
		_ = e.SendMetadataEvent()
	}
	if _, inits := socket.events(); inits != 5 {
		t.Errorf("%d agent_init were sent, want 5", inits)
	}
	plain := strings.Count(log.String(), `msg="Metadata event sent over UDP"`)
	cached := strings.Count(log.String(), `msg="Cached metadata event sent over UDP"`)
	if plain != 3 || cached != 2 || strings.Count(log.String(), "event=agent_init") != 5 || strings.Count(log.String(), "hostname=") != 5 {
		t.Errorf("the log has %d plain and %d cached:\n%s", plain, cached, log.String())
	}
	got := e.Stats().Metadata[0]
	got.RecordAge, got.RecordBytes, got.BadFacts = 0, 0, 0
	if want := (metadata.CacheStats{Hits: 1, Misses: 4, Made: 1, Fallbacks: 3}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}
