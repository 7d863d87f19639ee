package metadata

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestBadFacts: whatever the facts are, the record is valid JSON on one line, no longer
// than a record may be, and what had to be replaced is counted.
func TestBadFacts(t *testing.T) {
	tests := []struct {
		name     string
		change   func(*Facts)
		bad      uint64
		hostname string
	}{
		{"good", func(*Facts) {}, 0, "edge-node-01"},
		{"empty", func(f *Facts) { f.Hostname = "" }, 1, Unknown},
		{"255 bytes", func(f *Facts) { f.Hostname = strings.Repeat("h", 255) }, 0, strings.Repeat("h", 255)},
		{"1,000 bytes", func(f *Facts) { f.Hostname = strings.Repeat("h", 1000) }, 1, strings.Repeat("h", MaxFact)},
		{"cut in a character", func(f *Facts) { f.Hostname = "h" + strings.Repeat("€", 100) }, 1, "h" + strings.Repeat("€", 85)},
		{"not UTF-8", func(f *Facts) { f.Hostname = "node\xff" }, 1, "node\ufffd"},
		{"long and not UTF-8", func(f *Facts) { f.Hostname = strings.Repeat("\x80", 1000) }, 1, "\ufffd"},
		{"long and every other byte not UTF-8", func(f *Facts) { f.Hostname = strings.Repeat("a\xff", 1000) }, 1, strings.Repeat("a\ufffd", MaxFact/4)},
		{"quotes and control characters", func(f *Facts) { f.Hostname = "a\"b\\\n\x00\x7f\u2028" }, 0, "a\"b\\\n\x00\x7f\u2028"},
		{"a version of 10 MB", func(f *Facts) { f.TetragonVersion = strings.Repeat("\x01", 10<<20) }, 1, "edge-node-01"},
		{"all of them", func(f *Facts) {
			long := strings.Repeat("\xff", 10<<20)
			f.Hostname, f.KernelVersion, f.TetragonVersion, f.BuildCommit, f.BuildDate = long, long, long, long, long
		}, 5, "\ufffd"},
		{"labels of 10 MB", func(f *Facts) { f.Labels = map[string]string{"a": strings.Repeat("x", 10<<20)} }, 0, "edge-node-01"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			facts := testFacts
			test.change(&facts)
			cache := NewCache(func() Facts { return facts }, nil)
			r, _, _ := cache.Get()
			var event MetadataEvent
			if err := json.Unmarshal(r.Line(), &event); err != nil || strings.Count(string(r.Line()), "\n") != 1 || len(r.Line()) > MaxRecord {
				t.Fatalf("%v: %d bytes: %.200s", err, len(r.Line()), r.Line())
			}
			if event.Hostname != test.hostname {
				t.Errorf("hostname %.300q, want %.300q", event.Hostname, test.hostname)
			}
			if digest(event) != r.Digest() {
				t.Error("who reads the record finds another digest")
			}
			if got := cache.Stats().BadFacts; got != test.bad {
				t.Errorf("%d bad facts counted, want %d", got, test.bad)
			}
		})
	}
}

// TestBadRenderer: a rendering that is no JSON object on one line is not sent; a plain
// event is, and the failure counted.
func TestBadRenderer(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "{", `{"a":1}{}`, "{\n}", "{}\n", `{"a":"` + strings.Repeat("x", 10<<20) + `"}`} {
		cache := NewCache(func() Facts { return testFacts }, func(*MetadataEvent) ([]byte, error) { return []byte(text), nil })
		r, cached, cause := cache.Get()
		if cached || cause == nil || r.Event().Event != EventAgentInit || !json.Valid(r.JSON()) {
			t.Errorf("%.40q: cached %v, cause %v, %s", text, cached, cause, r.JSON())
		}
		if got := cache.Stats(); got.Fallbacks != 1 {
			t.Errorf("%.40q: %+v", text, got)
		}
	}
}

// TestSourcesSideBySide: each source waits for the other; so they run at the same time,
// and a failing one costs its own fact alone.
func TestSourcesSideBySide(t *testing.T) {
	meet := make(chan struct{})
	other := func(fact string, err error) func() (string, error) {
		return func() (string, error) {
			select {
			case meet <- struct{}{}:
			case <-meet:
			case <-time.After(10 * time.Second):
				return "", errors.New("alone")
			}
			return fact, err
		}
	}
	f := Sources{Hostname: other("node", nil), Kernel: other("6.12", nil), More: []Fact{
		{"rack", other("r7", nil)}, {"broken", other("x", errors.New("out of order"))}, {"empty", func() (string, error) { return "", nil }},
	}}.Read()
	if f.Hostname != "node" || f.KernelVersion != "6.12" || len(f.Labels) != 1 || f.Labels["rack"] != "r7" {
		t.Errorf("facts %+v", f)
	}
}

func TestLabels(t *testing.T) {
	labels, err := ParseLabels([]string{"site=fra1", "empty=", "a.b/c-d_9=x=y", "site=fra2"})
	if err != nil || len(labels) != 3 || labels["site"] != "fra2" || labels["a.b/c-d_9"] != "x=y" {
		t.Errorf("labels %v, %v", labels, err)
	}
	facts := testFacts
	facts.Labels = labels
	r, err := NewRecord(facts, nil)
	if err != nil || !strings.HasSuffix(string(r.Line()), `"uptime":"initialized at 0","labels":{"a.b/c-d_9":"x=y","empty":"","site":"fra2"}}`+"\n") {
		t.Errorf("%v: %s", err, r.Line())
	}
	plain, _ := NewRecord(testFacts, nil)
	if plain.Digest() == r.Digest() || strings.Contains(string(plain.Line()), "labels") {
		t.Errorf("without labels: %s", plain.Line())
	}
	for _, bad := range []string{"", "novalue", "=x", "9a=x", "a b=x", "é=x", "-a=x", strings.Repeat("n", 64) + "=x", "a=" + strings.Repeat("v", 257), "a=\xff", "a=b\nc", "a=\x7f"} {
		if labels, err := ParseLabels([]string{bad}); err == nil {
			t.Errorf("%.40q became %v", bad, labels)
		}
	}
	many := map[string]string{}
	for i := range MaxLabels {
		many[strings.Repeat("n", 60)+string(rune('a'+i%26))+string(rune('a'+i/26))] = strings.Repeat(`"`, MaxFact)
	}
	facts.Labels = many
	if err := CheckLabels(many); err != nil {
		t.Error(err)
	}
	if _, err := NewRecord(facts, nil); err != nil {
		t.Errorf("all the labels that there may be: %v", err)
	}
	many["more"] = ""
	if err := CheckLabels(many); err == nil {
		t.Error("one label too many")
	}
}
