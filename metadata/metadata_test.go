package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

var testFacts = Facts{
	Time:            time.Date(2026, 1, 2, 3, 4, 5, 60, time.FixedZone("CET", 3600)),
	TetragonVersion: "v1.7.0", BuildCommit: "abc123", BuildDate: "2026-01-01",
	Hostname: "edge-node-01", KernelVersion: "6.12.117", PID: 4242,
	UDPDestination: "collector:7514", UDPBufferSize: 65536,
}

func TestToJSON(t *testing.T) {
	f := func(change func(*Facts), want string) {
		t.Helper()
		facts := testFacts
		change(&facts)
		got, err := NewEvent(facts).ToJSON()
		if err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
		if !json.Valid(got) {
			t.Errorf("not valid JSON: %s", got)
		}
	}
	const head = `{"@timestamp":"2026-01-02T02:04:05.00000006Z","event":"agent_init",`
	const tail = `"os":"linux","kernel_version":"6.12.117","pid":4242,"udp_destination":"collector:7514","udp_buffer_size":65536,"uptime":"initialized at 0"}`
	f(func(*Facts) {}, head+`"tetragon_version":"v1.7.0","build_commit":"abc123","build_date":"2026-01-01","hostname":"edge-node-01",`+tail)
	f(func(f *Facts) { f.Started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("CET", 3600)) },
		head+`"tetragon_version":"v1.7.0","build_commit":"abc123","build_date":"2026-01-01","hostname":"edge-node-01",`+strings.TrimSuffix(tail, "}")+`,"started_at":"2026-01-02T02:04:05Z"}`)
	f(func(f *Facts) { f.BuildCommit, f.BuildDate = "", "" }, head+`"tetragon_version":"v1.7.0","hostname":"edge-node-01",`+tail)
	f(func(f *Facts) { f.TetragonVersion, f.Hostname, f.BuildCommit, f.BuildDate = "", "", "", "" },
		head+`"tetragon_version":"unknown","hostname":"unknown",`+tail)
	f(func(f *Facts) { f.TetragonVersion, f.BuildCommit, f.BuildDate = "v1 \"<quoted>\"\n\x01", "", "" },
		head+`"tetragon_version":"v1 \"<quoted>\"\n\u0001","hostname":"edge-node-01",`+tail)
	long := strings.Repeat("h", 255)
	f(func(f *Facts) { f.Hostname, f.BuildCommit, f.BuildDate = long, "", "" }, head+`"tetragon_version":"v1.7.0","hostname":"`+long+`",`+tail)
	f(func(f *Facts) { f.Hostname, f.BuildCommit, f.BuildDate = "node\xff", "", "" }, head+`"tetragon_version":"v1.7.0","hostname":"node`+"\ufffd"+`",`+tail)
}

func TestSources(t *testing.T) {
	calls := 0
	facts := Sources{
		Hostname: func() (string, error) { calls++; return "", errors.New("no name") },
		Kernel:   func() (string, error) { return "6.1.0", nil },
		PID:      func() int { return 7 },
	}.Read()
	if facts.Hostname != "" || facts.KernelVersion != "6.1.0" || facts.PID != 7 || calls != 1 {
		t.Errorf("facts %+v after %d hostname calls", facts, calls)
	}
	t.Setenv("NODE_NAME", "node-a")
	if got := (Sources{}).Read(); got.Hostname != "node-a" || got.PID == 0 || got.KernelVersion == "" {
		t.Errorf("facts of this host: %+v", got)
	}
}

// TestFallback: three failures give three plain events and three counts, the
// fourth export is cached again.
func TestFallback(t *testing.T) {
	fails := 3
	cache := NewCache(func() Facts { return testFacts }, func(e *MetadataEvent) ([]byte, error) {
		if fails > 0 {
			fails--
			return nil, errors.New("no memory")
		}
		return e.ToJSON()
	})
	for i := range 3 {
		r, cached, cause := cache.Get()
		if cached || cause == nil || !json.Valid(r.JSON()) || r.Event().Hostname != "edge-node-01" {
			t.Fatalf("export %d: cached %v, cause %v, %s", i, cached, cause, r.JSON())
		}
	}
	first, cached, cause := cache.Get()
	if !cached || cause != nil {
		t.Fatalf("fourth export: cached %v, cause %v", cached, cause)
	}
	second, _, _ := cache.Get()
	if second != first {
		t.Error("the fifth export made another record")
	}
	got := cache.Stats()
	if want := (CacheStats{Hits: 1, Misses: 4, Made: 1, Fallbacks: 3, RecordBytes: len(first.Line()), RecordAge: got.RecordAge}); got != want || got.RecordAge <= 0 {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestForgetMakesANewRecord(t *testing.T) {
	facts := testFacts
	cache := NewCache(func() Facts { return facts }, nil)
	before, _, _ := cache.Get()
	facts.TetragonVersion = "v1.8.0"
	if again, _, _ := cache.Get(); again != before {
		t.Error("a record changed without being forgotten")
	}
	cache.Forget(NewTetragon)
	after, _, _ := cache.Get()
	if !bytes.Contains(after.Line(), []byte("v1.8.0")) || after.Line()[len(after.Line())-1] != '\n' {
		t.Errorf("after the change: %q", after.Line())
	}
}

// TestCacheConcurrently: whatever the interleaving, an export is one whole
// record, old or new.
func TestCacheConcurrently(t *testing.T) {
	cache := NewCache(HostFacts, nil)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 100 {
				r, cached, _ := cache.Get()
				if !cached || !json.Valid(r.JSON()) {
					t.Errorf("cached %v: %q", cached, r.JSON())
				}
				if i == 0 && j%10 == 0 {
					cache.Forget(NewTetragon)
				}
			}
		})
	}
	wg.Wait()
}

func TestGetAllocates(t *testing.T) {
	cache := NewCache(HostFacts, nil)
	cache.Get()
	if n := testing.AllocsPerRun(100, func() { cache.Get() }); n != 0 {
		t.Errorf("a cached export costs %v allocations, want 0", n)
	}
}

func TestDigest(t *testing.T) {
	digest := func(f Facts) uint64 {
		t.Helper()
		r, err := NewRecord(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.Digest()
	}
	a := Facts{Hostname: "node-1", TetragonVersion: "v1.7.0", PID: 7, UDPDestination: "a:1", Time: time.Unix(1, 0)}
	b := a
	b.PID, b.UDPDestination, b.Time = 8, "b:1", time.Unix(2, 0)
	c := a
	c.TetragonVersion = "v1.6.0"
	if digest(a) != digest(b) || digest(a) == digest(c) || digest(a) == 0 {
		t.Errorf("digests %x, of another start %x, of another version %x", digest(a), digest(b), digest(c))
	}
}
