package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var testOrigin = Origin{BootID: "0d3b", Kernel: "6.12.117", InfoInode: 7, InfoModified: 1e18, InfoPID: 99, Server: ""}

// hostFactsOf is what the next process knows before Tetragon answers.
func hostFactsOf(f Facts) Facts {
	f.TetragonVersion, f.BuildCommit, f.BuildDate = "", "", ""
	f.Time, f.PID = f.Time.Add(time.Hour), f.PID+123456
	if !f.Started.IsZero() {
		f.Started = f.Started.Add(time.Hour + time.Millisecond)
	}
	return f
}

// TestRecall: what one process left, the next one says with its own time and process
// id, byte for byte as if it had asked Tetragon; from a mapped file in parts of it.
func TestRecall(t *testing.T) {
	labelled := testFacts
	labelled.Labels = map[string]string{"site": `fra1 "x"`, "pid": "7"}
	started := labelled
	started.Started = testFacts.Time.Truncate(time.Second)
	quoted := testFacts
	quoted.TetragonVersion, quoted.Hostname, quoted.BuildDate = "v1 \"<q>\"\n\x01,\"pid\":1,", "node\xff", ""
	for name, facts := range map[string]Facts{"plain": testFacts, "labelled": labelled, "started": started, "quoted": quoted} {
		stores := map[string]Store{"memory": NewMemoryStore(10, 0), "mapped": NewMappedStore(filepath.Join(t.TempDir(), "m"))}
		for kind, s := range stores {
			t.Run(name+", "+kind, func(t *testing.T) {
				if _, err := Recall(t.Context(), s, hostFactsOf(facts), testOrigin, nil); !errors.Is(err, ErrNotFound) {
					t.Fatalf("from an empty store: %v", err)
				}
				if err := Leave(t.Context(), s, facts, testOrigin, nil, "cluster-1"); err != nil {
					t.Fatal(err)
				}
				next := hostFactsOf(facts)
				r, err := Recall(t.Context(), s, next, testOrigin, nil)
				if err != nil {
					t.Fatal(err)
				}
				next.TetragonVersion, next.BuildCommit, next.BuildDate = facts.TetragonVersion, facts.BuildCommit, facts.BuildDate
				want, err := NewRecord(next, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(r.Record.Line(), want.Line()) || r.Record.Digest() != want.Digest() || !reflect.DeepEqual(r.Record.Event(), want.Event()) || r.ClusterName != "cluster-1" {
					t.Errorf("recalled %s of cluster %q\nwant     %s", r.Record.Line(), r.ClusterName, want.Line())
				}
				if r.Record.Lent() != (kind == "mapped") {
					t.Fatalf("lent: %v", r.Record.Lent())
				}
				if r.Record.Lent() {
					if got := bytes.Join(r.Record.Parts(), nil); !bytes.Equal(got, want.Line()) || !r.Record.Intact() {
						t.Errorf("parts %s\nwant  %s", got, want.Line())
					}
				}
			})
		}
	}
}

// TestRecallStale: what was left is not used when anything on which it rests has
// changed, and the reason is told.
func TestRecallStale(t *testing.T) {
	s := NewMappedStore(filepath.Join(t.TempDir(), "m"))
	leave := func() {
		t.Helper()
		if err := Leave(t.Context(), s, testFacts, testOrigin, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	stale := func(name string, want Reason, change func(*Origin)) {
		t.Helper()
		o := testOrigin
		change(&o)
		_, err := Recall(t.Context(), s, hostFactsOf(testFacts), o, nil)
		var got *StaleError
		if !errors.As(err, &got) || got.Reason != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	stale("another boot", OtherBoot, func(o *Origin) { o.BootID = "1" })
	stale("another kernel", OtherKernel, func(o *Origin) { o.Kernel = "6.13" })
	stale("another inode", OtherTetragon, func(o *Origin) { o.InfoInode++ })
	stale("written again", OtherTetragon, func(o *Origin) { o.InfoModified++ })
	stale("another process", OtherTetragon, func(o *Origin) { o.InfoPID++ })
	facts := hostFactsOf(testFacts)
	facts.KernelVersion = "other"
	var got *StaleError
	if _, err := Recall(t.Context(), s, facts, testOrigin, nil); !errors.As(err, &got) || got.Reason != OtherFacts {
		t.Errorf("other facts: %v", err)
	}
	for name, change := range map[string]func(f *Facts, o *Origin){
		"hostname":    func(f *Facts, _ *Origin) { f.Hostname = "b" },
		"destination": func(f *Facts, _ *Origin) { f.UDPDestination = "b:1" },
		"buffer":      func(f *Facts, _ *Origin) { f.UDPBufferSize++ },
		"labels":      func(f *Facts, _ *Origin) { f.Labels = map[string]string{"a": "b"} },
		"server":      func(_ *Facts, o *Origin) { o.Server = "other:1" },
	} {
		facts, o := hostFactsOf(testFacts), testOrigin
		change(&facts, &o)
		if _, err := Recall(t.Context(), s, facts, o, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("for another %s: %v", name, err)
		}
	}
	if _, err := Recall(t.Context(), s, hostFactsOf(testFacts), testOrigin, nil); err != nil {
		t.Errorf("with nothing changed: %v", err)
	}
}

// answering is a store that returns what it is told to.
type answering struct {
	value []byte
	err   error
}

func (a answering) Get(context.Context, string) ([]byte, error)             { return a.value, a.err }
func (a answering) Put(context.Context, string, []byte) error               { return a.err }
func (a answering) Watch(context.Context, func(key string, _ []byte)) error { return a.err }

// TestRecallRubbish: whatever a store returns, nothing is sent that this process would
// not have made itself.
func TestRecallRubbish(t *testing.T) {
	facts := testFacts
	keep := NewMemoryStore(10, 0)
	if err := Leave(t.Context(), keep, facts, testOrigin, nil, ""); err != nil {
		t.Fatal(err)
	}
	key, err := agentKey(&facts, &testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	good, err := keep.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) []byte {
		t.Helper()
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	var was left
	if err := json.Unmarshal(good, &was); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		value []byte
		why   Reason
	}{
		"nothing":             {nil, Damaged},
		"rubbish":             {[]byte("\x00\xff rubbish"), Damaged},
		"10 MB":               {bytes.Repeat([]byte(`{"key":`), 10<<20/7), Damaged},
		"half of it":          {good[:len(good)/2], Damaged},
		"another agent's":     {replaced(key, "agent.0123456789abcdef"), Damaged},
		"agent_stats":         {replaced(EventAgentInit, "agent_stats"), Damaged},
		"no time":             {replaced("2026-01-02T02:04:05.00000006Z", "yesterday"), Damaged},
		"a member more":       {replaced(`"os":"linux"`, `"os":"linux","x":1`), OtherFacts},
		"another os":          {replaced(`"os":"linux"`, `"os":"plan9"`), OtherFacts},
		"another destination": {replaced(`"udp_destination":"collector:7514"`, `"udp_destination":"evil:7514"`), OtherFacts},
		"a long version":      {replaced(`"tetragon_version":"v1.7.0"`, `"tetragon_version":"`+strings.Repeat("v", 5000)+`"`), OtherFacts},
		"a record as text":    {replaced(string(was.Record), `"text"`), Damaged},
	}
	for name, test := range tests {
		r, err := Recall(t.Context(), answering{value: test.value}, hostFactsOf(facts), testOrigin, nil)
		var got *StaleError
		if r.Record != nil || !errors.As(err, &got) || got.Reason != test.why {
			t.Errorf("%s: %v, want %v", name, err, test.why)
		}
	}
	// A store may write JSON in its own way: what is sent is in ours.
	spaced := answering{value: replaced(`"os":"linux"`, `"os": "linux"`)}
	if r, err := Recall(t.Context(), spaced, hostFactsOf(facts), testOrigin, nil); err != nil || bytes.Contains(r.Record.JSON(), []byte(": ")) {
		t.Errorf("a space: %+v, %v", r, err)
	}
	away := errors.New("away")
	if _, err := Recall(t.Context(), answering{err: away}, hostFactsOf(facts), testOrigin, nil); !errors.Is(err, away) {
		t.Errorf("a store that is away: %v", err)
	}
	if _, err := Recall(t.Context(), answering{value: good}, hostFactsOf(facts), testOrigin, nil); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestSettle: a record whose file is gone goes on from memory, in the same bytes.
func TestSettle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	s := NewMappedStore(path)
	if err := Leave(t.Context(), s, testFacts, testOrigin, nil, ""); err != nil {
		t.Fatal(err)
	}
	r, err := Recall(t.Context(), s, hostFactsOf(testFacts), testOrigin, nil)
	if err != nil {
		t.Fatal(err)
	}
	cache := NewCache(func() Facts { return testFacts }, nil)
	if !cache.Adopt(r.Record) || cache.Adopt(r.Record) {
		t.Error("a record is adopted once, into an empty cache")
	}
	before := bytes.Join(r.Record.Parts(), nil)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if r.Record.Intact() {
		t.Error("intact without its file")
	}
	r.Record.Damaged()
	cache.Settle(r.Record)
	now, cached, cause := cache.Get()
	if now.Lent() || !cached || cause != nil || !bytes.Equal(now.Line(), before) {
		t.Errorf("in memory %s\nbefore    %s", now.Line(), before)
	}
	if got := cache.Stats(); got.WarmStarts != 1 || got.Made != 0 || got.Hits != 1 || got.RecordBytes != len(before) {
		t.Errorf("stats %+v", got)
	}
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Errorf("the file was not set aside: %v", err)
	}
}

// TestProcSubset: of a /proc with nothing but processes in it, as the unit's
// ProcSubset=pid leaves it, every fact is read all the same, and the origin is that of
// a process that sees all of /proc.
func TestProcSubset(t *testing.T) {
	if os.Getenv("TETRACAST_TEST_CHILD") != "" {
		if _, err := os.Stat("/proc/sys"); err == nil {
			t.Fatal("/proc/sys is there")
		}
		o, err := HostOrigin()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(struct {
			Origin Origin
			Event  *MetadataEvent
		}{o, NewEvent(Sources{}.Read())})
		fmt.Printf("CHILD %s\n", text)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("TETRACAST_REQUIRE_ROOT_TESTS") != "" {
			t.Fatal("TETRACAST_REQUIRE_ROOT_TESTS is set, but mounts need root")
		}
		t.Skip("SKIPPED, NOT TESTED: mounts need root")
	}
	want, err := HostOrigin()
	if err != nil {
		t.Fatal(err)
	}
	child := func(bootID string) (string, error) {
		cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --make-rprivate / && mount -t proc -o subset=pid proc /proc && exec "$0" -test.run '^TestProcSubset$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "TETRACAST_TEST_CHILD=1", bootVariable+"="+bootID)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := child(strings.ReplaceAll(want.BootID, "-", "")) // as systemd's %b has it
	_, text, ok := strings.Cut(out, "CHILD ")
	var got struct {
		Origin Origin
		Event  MetadataEvent
	}
	if err != nil || !ok || json.NewDecoder(strings.NewReader(text)).Decode(&got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got.Origin != want {
		t.Errorf("origin %+v, want %+v", got.Origin, want)
	}
	if e := got.Event; e.KernelVersion != want.Kernel || e.Hostname == Unknown || e.PID == 0 {
		t.Errorf("agent_init %+v", e)
	}
	if out, err := child(""); err == nil || !strings.Contains(out, bootVariable) {
		t.Errorf("without a boot id: %v\n%s", err, out)
	}
	if out, err := child("1234"); err == nil || !strings.Contains(out, "want 32 hexadecimal digits") {
		t.Errorf("with half a boot id: %v\n%s", err, out)
	}
}

func TestHostOrigin(t *testing.T) {
	a, err := HostOrigin()
	if err != nil || len(a.BootID) != 36 || a.Kernel == "" {
		t.Errorf("%+v, %v", a, err)
	}
	if b, _ := HostOrigin(); a != b {
		t.Errorf("%+v, then %+v", a, b)
	}
}
