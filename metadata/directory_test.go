package metadata

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// brokenStore is a store that can be away, slow, or hold rubbish.
type brokenStore struct {
	Store
	mu    sync.Mutex
	away  error
	slow  chan struct{} // if not nil, calls wait for it
	calls int
}

func (b *brokenStore) call(ctx context.Context) error {
	b.mu.Lock()
	b.calls++
	away, slow := b.away, b.slow
	b.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return away
}

func (b *brokenStore) be(away error, slow chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away, b.slow = away, slow
}

func (b *brokenStore) Get(ctx context.Context, key string) ([]byte, error) {
	if err := b.call(ctx); err != nil {
		return nil, err
	}
	return b.Store.Get(ctx, key)
}

func (b *brokenStore) Put(ctx context.Context, key string, value []byte) error {
	if err := b.call(ctx); err != nil {
		return err
	}
	return b.Store.Put(ctx, key, value)
}

func (b *brokenStore) Watch(ctx context.Context, f func(string, []byte)) error {
	b.mu.Lock()
	away := b.away
	b.mu.Unlock()
	if away != nil {
		return away
	}
	return b.Store.Watch(ctx, f)
}

// peer is a directory that runs, and what it found.
type peer struct {
	*Directory
	mu    sync.Mutex
	found []Found
	stop  func()
}

func newPeer(store Store) *peer {
	p := &peer{Directory: NewDirectory(store, time.Hour)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		p.Run(ctx, func(f Found) {
			p.mu.Lock()
			p.found = append(p.found, f)
			p.mu.Unlock()
		})
	})
	p.stop = func() { cancel(); running.Wait() }
	return p
}

// take returns what was found since the last call.
func (p *peer) take() []Found {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.found
	p.found = nil
	return found
}

func (p *peer) want(t *testing.T, want DirectoryStats) {
	t.Helper()
	synctest.Wait()
	if got := p.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func directoryRecord(t *testing.T, hostname string, pid int) *Record {
	t.Helper()
	facts := testFacts
	facts.Hostname, facts.PID = hostname, pid
	r, err := NewRecord(facts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDirectory: two share a store. What one published the other finds: by stream,
// by the digest of the record, and, if it asked too early, as soon as it is told.
func TestDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore(100, time.Hour)
		a, b := newPeer(store), newPeer(store)
		defer a.stop()
		defer b.stop()
		one, again := directoryRecord(t, "node-<1>", 1), directoryRecord(t, "node-<1>", 2)
		if one.Digest() != again.Digest() {
			t.Fatal("two starts of an agent have two digests")
		}
		a.Publish(1, one.JSON())
		synctest.Wait()
		b.Ask(1, one.Digest())
		if f := b.take(); len(f) != 1 || !f[0].Exact || string(f[0].Record) != string(one.JSON()) || f[0].Stream != 1 || f[0].Digest != one.Digest() {
			t.Errorf("by stream: %+v", f)
		}
		b.Ask(2, one.Digest())
		if f := b.take(); len(f) != 1 || f[0].Exact || f[0].Stream != 2 || f[0].Digest != one.Digest() {
			t.Errorf("by digest: %+v", f)
		}
		a.Publish(2, again.JSON())
		if f := b.take(); len(f) != 1 || !f[0].Exact || string(f[0].Record) != string(again.JSON()) {
			t.Errorf("told of the stream itself: %+v", f)
		}
		a.Publish(2, again.JSON())
		a.Publish(3, one.JSON())
		if f := b.take(); len(f) != 0 {
			t.Errorf("told of what nobody wants: %+v", f)
		}
		b.Ask(4, 5)
		b.Ask(4, 0)
		if f := b.take(); len(f) != 0 {
			t.Errorf("found %+v", f)
		}
		b.want(t, DirectoryStats{Hits: 3, Misses: 2})
		a.want(t, DirectoryStats{Puts: 8})
	})
}

// TestDirectoryRefresh: an entry lives as long as its stream is heard.
func TestDirectoryRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(NewMemoryStore(100, time.Hour))
		defer p.stop()
		r := directoryRecord(t, "node-1", 1)
		p.Publish(1, r.JSON())
		p.Publish(2, r.JSON())
		for range 8 {
			time.Sleep(p.Refreshes())
			p.Refresh(1, r.Digest())
			p.Refresh(9, 0) // nobody has it: nothing to do
		}
		synctest.Wait()
		p.Ask(1, 0)
		p.Ask(2, 0)
		if f := p.take(); len(f) != 1 || f[0].Stream != 1 {
			t.Errorf("found %+v", f)
		}
		p.want(t, DirectoryStats{Hits: 1, Misses: 1, Puts: 4 + 8*2})
	})
}

// TestDirectoryAway: a store that fails is tried again, so that nothing is lost; one
// that stays away costs counters, and nobody waits.
func TestDirectoryAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &brokenStore{Store: NewMemoryStore(10000, 0), away: errors.New("away")}
		p := newPeer(store)
		r := directoryRecord(t, "node-1", 1)
		p.Publish(1, r.JSON())
		p.Ask(1, 0)
		time.Sleep(10 * time.Second)
		store.be(nil, nil)
		time.Sleep(lastRetry)
		if f := p.take(); len(f) != 1 {
			t.Errorf("after ten seconds: %+v", f)
		}
		if s := p.Stats(); s.Puts != 2 || s.Hits != 1 || s.Dropped != 0 || s.Errors < 5 {
			t.Errorf("after ten seconds: %+v", s)
		}

		// It hangs: what finds no room is dropped at once.
		hang := make(chan struct{})
		store.be(nil, hang)
		begin := time.Now()
		for i := range uint64(maxQueuedJobs + 100) {
			p.Ask(100+i, 0)
		}
		for range 10000 {
			p.Publish(2, r.JSON())
		}
		p.Publish(2, make([]byte, maxPublished+1))
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %v", took)
		}
		dropped := p.Stats().Dropped
		if dropped < 10000+99 || dropped > 10000+102 {
			t.Errorf("%d dropped", dropped)
		}
		close(hang)
		time.Sleep(time.Second)
		if s := p.Stats(); s.Misses < maxQueuedJobs || s.Dropped != dropped {
			t.Errorf("when it no longer hangs: %+v", s)
		}

		// It stays away: all is given up after its minute.
		store.be(errors.New("away"), nil)
		p.Ask(7, 0)
		p.Ask(8, 0)
		time.Sleep(retryFor + 3*lastRetry)
		if s := p.Stats(); s.Dropped != dropped+2 {
			t.Errorf("after a minute: %d dropped, want %d", s.Dropped, dropped+2)
		}
		p.stop()
		p.Ask(9, 0) // after the end: it waits for nobody
	})
}

// TestDirectoryRubbish: what does not belong there is counted, and like nothing at
// all; and it does not hide the record.
func TestDirectoryRubbish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore(100, 0)
		huge := &hugeStore{MemoryStore: memory}
		p := newPeer(huge)
		defer p.stop()
		r := directoryRecord(t, "node-1", 1)
		p.Publish(1, r.JSON())
		synctest.Wait()
		own, err := memory.Get(t.Context(), StreamKey(1))
		if err != nil {
			t.Fatal(err)
		}
		for stream, value := range map[uint64]string{
			2: "rubbish", 3: "", 4: string(own), 5: `{"key":"` + StreamKey(5) + `","record":{"event":"agent_init","hostname":"` + "\xff" + `"}}`, 6: "huge",
			7: `{"key":"` + StreamKey(7) + `","record":null}`,
		} {
			if err := memory.Put(t.Context(), StreamKey(stream), []byte(value)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // nobody waits for it yet
			p.Ask(stream, r.Digest())
			if f := p.take(); len(f) != 1 || f[0].Exact || f[0].Digest != r.Digest() {
				t.Errorf("stream %d: %+v", stream, f)
			}
			p.Refresh(stream, 0)
		}
		p.Publish(8, []byte(`{"event":"agent_stats"}`))
		p.Publish(8, []byte(`rubbish`))
		p.want(t, DirectoryStats{Hits: 6, Puts: 2, Bad: 6 + 6 + 2})

		// Told of rubbish it goes on waiting.
		p.Ask(9, 0)
		synctest.Wait()
		for _, value := range []string{"rubbish", string(own)} {
			if err := memory.Put(t.Context(), StreamKey(9), []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		if f := p.take(); len(f) != 0 {
			t.Errorf("told of rubbish: %+v", f)
		}
		good, err := NewEntry(StreamKey(9), r.JSON())
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"other", "stream.9", StreamKey(9)} {
			if err := memory.Put(t.Context(), key, good); err != nil {
				t.Fatal(err)
			}
		}
		if f := p.take(); len(f) != 1 || !f[0].Exact || f[0].Stream != 9 {
			t.Errorf("told of the agent: %+v", f)
		}
	})
}

// hugeStore answers with 10 MB instead of "huge".
type hugeStore struct{ *MemoryStore }

func (h *hugeStore) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := h.MemoryStore.Get(ctx, key)
	if string(value) == "huge" {
		value = []byte(strings.Repeat("x", 10<<20))
	}
	return value, err
}

// TestDirectoryBounds: however many streams are asked for, what is kept is bounded.
func TestDirectoryBounds(t *testing.T) {
	d := NewDirectory(NewMemoryStore(1, 0), 0)
	for i := range uint64(3 * maxWanted) {
		d.want(i)
	}
	if len(d.wanted) != maxWanted {
		t.Errorf("%d wanted", len(d.wanted))
	}
}

// lateStore listens a while after it is asked to, and says when.
type lateStore struct {
	Store
	late time.Duration
}

func (l lateStore) Watch(ctx context.Context, f func(string, []byte)) error {
	if !pause(ctx, l.late) {
		return ctx.Err()
	}
	f("", nil)
	return l.Store.Watch(ctx, f)
}

// TestDirectoryListensLate: what was put between the look and the listening is found
// when the store listens, though nobody asks again.
func TestDirectoryListensLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore(100, 0)
		asks := newPeer(lateStore{store, 5 * time.Second})
		defer asks.stop()
		tells := newPeer(store)
		defer tells.stop()
		asks.Ask(7, 0)
		time.Sleep(time.Second)
		tells.Publish(7, directoryRecord(t, "node-7", 7).JSON())
		time.Sleep(time.Second)
		if n := len(asks.take()); n != 0 {
			t.Errorf("%d found before it listens", n)
		}
		time.Sleep(5 * time.Second)
		if got := asks.take(); len(got) != 1 || got[0].Stream != 7 || !got[0].Exact {
			t.Errorf("found %+v", got)
		}
	})
}
