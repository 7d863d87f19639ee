package metadata

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEntries(t *testing.T) {
	record, err := NewRecord(testFacts, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{RecordKey(record.Digest()), StreamKey(7)} {
		value, err := NewEntry(key, record.JSON())
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadEntry(key, value)
		if err != nil || string(got) != string(record.JSON()) {
			t.Errorf("%s: got %s, %v", key, got, err)
		}
	}
	bad := func(key, value, why string) {
		t.Helper()
		got, err := ReadEntry(key, []byte(value))
		if !errors.Is(err, ErrBadEntry) || got != nil || !strings.Contains(err.Error(), why) {
			t.Errorf("got %s, %v, want an error about %s", got, err, why)
		}
	}
	bad(StreamKey(7), `rubbish`, "invalid character")
	bad(StreamKey(7), strings.Repeat("x", 10<<20), "more than 65536")
	bad(StreamKey(7), `{"key":"`+StreamKey(8)+`","record":`+string(record.JSON())+`}`, "holds what belongs under")
	bad(StreamKey(7), `{"key":"`+StreamKey(7)+`","record":{"event":"agent_stats"}}`, "agent_stats")
	bad(StreamKey(7), `{"key":"`+StreamKey(7)+`","record":[]}`, "cannot unmarshal")
	bad(RecordKey(7), `{"key":"`+RecordKey(7)+`","record":`+string(record.JSON())+`}`, "digest")
	if _, err := NewEntry(StreamKey(7), []byte(`"`+strings.Repeat("x", MaxEntry)+`"`)); err == nil {
		t.Error("an entry of more than MaxEntry was made")
	}
}

func TestMemoryStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemoryStore(2, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		seen := make(chan string, 8)
		ended := make(chan error, 1)
		go func() { ended <- s.Watch(ctx, func(key string, value []byte) { seen <- key + "=" + string(value) }) }()
		synctest.Wait()
		put := func(key, value string) {
			t.Helper()
			if err := s.Put(ctx, key, []byte(value)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		want := func(key, value string) {
			t.Helper()
			got, err := s.Get(ctx, key)
			if string(got) != value || errors.Is(err, ErrNotFound) != (value == "") {
				t.Errorf("%s is %q, %v, want %q", key, got, err, value)
			}
		}
		put("a", "1")
		put("b", "2")
		put("b", "3")
		want("a", "1")
		want("b", "3")
		put("c", "4") // there is room for two
		want("a", "")
		want("b", "3")
		time.Sleep(time.Hour)
		want("b", "")
		want("c", "")
		if err := s.Put(ctx, "d", make([]byte, MaxEntry+1)); !errors.Is(err, ErrBadEntry) {
			t.Errorf("an entry that is too long: %v", err)
		}
		for _, w := range []string{"a=1", "b=2", "b=3", "c=4"} {
			if got := <-seen; got != w {
				t.Errorf("watched %s, want %s", got, w)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
}
