package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a [Directory].
const (
	maxQueuedJobs  = 4096
	maxQueuedBytes = 4 << 20
	maxPublished   = 16 << 10 // bytes of a record
	maxWanted      = 8192     // streams that somebody may yet tell of

	// A store that fails is tried again after firstRetry, then more and more
	// seldom; what was to be done is given up after retryFor.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
	retryFor   = time.Minute
)

// Directory is a [Store] as one that receives uses it, or sends: it tells others of
// the agents that it heard, and asks for those that it did not. No call waits for
// the store; Run does what they ask for, in order. What finds no room in the queue
// is dropped and counted, for an agent says again who it is, and one can ask again.
//
// Make one with [NewDirectory]; all methods are safe for concurrent use.
type Directory struct {
	store  Store
	expiry time.Duration
	jobs   chan job

	mu          sync.Mutex
	wanted      map[uint64]struct{} // streams that were asked for, and nobody had told of
	queuedBytes int

	hits, misses, puts, dropped, errors, bad atomic.Uint64
}

// DirectoryStats counts what a directory did.
type DirectoryStats struct {
	Hits    uint64 // agents that the store knew, when asked or later
	Misses  uint64 // answers that it knew nothing
	Puts    uint64 // entries put
	Dropped uint64 // requests that found no room in the queue, or were given up
	Errors  uint64 // calls of the store that failed
	Bad     uint64 // entries that were not what belonged there, and were not used
}

// Found is what a directory found out about a stream.
type Found struct {
	Stream uint64
	Record []byte // the agent_init, one JSON object; the memory is the receiver's
	Digest uint64 // of the record
	// Exact: it is the stream's own. Else it is one of the same digest, of another
	// start of the agent or for another destination: time, pid and destination in
	// it say nothing about the stream.
	Exact bool
}

// job is something to do with the store.
type job struct {
	kind   jobKind
	stream uint64
	digest uint64
	record []byte
	queued time.Time
}

type jobKind int

const (
	jobPublish jobKind = iota
	jobAsk
	jobRefresh
)

// NewDirectory returns a directory over the store, whose entries expire after the
// time; 0: never. It starts no goroutine.
func NewDirectory(store Store, expiry time.Duration) *Directory {
	return &Directory{store: store, expiry: expiry, jobs: make(chan job, maxQueuedJobs), wanted: map[uint64]struct{}{}}
}

// Publish tells of an agent_init that was heard in a stream: the stream's own
// entry, and the record's under its digest. It copies the record. One of more than
// 16 KiB, ten times what a living agent says, is dropped.
func (d *Directory) Publish(stream uint64, record []byte) {
	d.mu.Lock()
	delete(d.wanted, stream)
	room := len(record) <= maxPublished && d.queuedBytes+len(record) <= maxQueuedBytes
	if room {
		d.queuedBytes += len(record)
	}
	d.mu.Unlock()
	if !room {
		d.dropped.Add(1)
		return
	}
	if !d.add(job{kind: jobPublish, stream: stream, record: bytes.Clone(record)}) {
		d.release(len(record))
	}
}

// Ask looks for the agent of a stream, by its id, and else by the digest of its
// record; 0: none is known. What is found now, or told later, Run hands on.
func (d *Directory) Ask(stream, digest uint64) {
	d.add(job{kind: jobAsk, stream: stream, digest: digest})
}

// Refresh puts the entries of a stream again, because it was heard: entries expire
// with the agents' silence. One that another puts at the same moment may be
// overwritten, until it is heard again.
func (d *Directory) Refresh(stream, digest uint64) {
	d.add(job{kind: jobRefresh, stream: stream, digest: digest})
}

// Refreshes returns the time after which a stream that is still heard wants a
// Refresh; 0: never.
func (d *Directory) Refreshes() time.Duration { return d.expiry / 4 }

func (d *Directory) add(j job) bool {
	j.queued = time.Now()
	select {
	case d.jobs <- j:
		return true
	default:
		d.dropped.Add(1)
		return false
	}
}

func (d *Directory) release(recordBytes int) {
	d.mu.Lock()
	d.queuedBytes -= recordBytes
	d.mu.Unlock()
}

// Stats returns the counts so far.
func (d *Directory) Stats() DirectoryStats {
	return DirectoryStats{Hits: d.hits.Load(), Misses: d.misses.Load(), Puts: d.puts.Load(),
		Dropped: d.dropped.Load(), Errors: d.errors.Load(), Bad: d.bad.Load()}
}

// Run does what was asked for and hands on what was found, until ctx ends. found
// is called from two goroutines.
func (d *Directory) Run(ctx context.Context, found func(Found)) {
	var watching sync.WaitGroup
	watching.Go(func() { d.watch(ctx, found) })
	defer watching.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-d.jobs:
			d.persist(ctx, j, found)
			d.release(len(j.record))
		}
	}
}

// persist does a job, and tries again while the store fails: the others wait
// meanwhile, for they would fail too.
func (d *Directory) persist(ctx context.Context, j job, found func(Found)) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := d.do(ctx, j, found)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case errors.Is(err, ErrBadEntry):
			d.bad.Add(1)
			return
		}
		d.errors.Add(1)
		if time.Since(j.queued) >= retryFor {
			d.dropped.Add(1)
			return
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (d *Directory) do(ctx context.Context, j job, found func(Found)) error {
	switch j.kind {
	case jobPublish:
		return d.publish(ctx, j)
	case jobAsk:
		return d.ask(ctx, j, found)
	}
	for _, key := range []string{StreamKey(j.stream), RecordKey(j.digest)} {
		value, err := d.store.Get(ctx, key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			_, err = ReadEntry(key, value) // rubbish may expire
		}
		if err == nil {
			err = d.put(ctx, key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) publish(ctx context.Context, j job) error {
	digest, err := digestOf(j.record)
	if err != nil {
		return fmt.Errorf("%w: the agent_init of %s: %w", ErrBadEntry, StreamKey(j.stream), err)
	}
	for _, key := range []string{StreamKey(j.stream), RecordKey(digest)} {
		value, err := NewEntry(key, j.record)
		if err != nil {
			return err
		}
		if err := d.put(ctx, key, value); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) put(ctx context.Context, key string, value []byte) error {
	err := d.store.Put(ctx, key, value)
	if err == nil {
		d.puts.Add(1)
	}
	return err
}

func (d *Directory) ask(ctx context.Context, j job, found func(Found)) error {
	d.want(j.stream) // before the look, so that nothing that is put now is missed
	f, err := d.get(ctx, StreamKey(j.stream))
	if err == nil {
		// One of another digest is older, and a newer one will come.
		if (j.digest == 0 || j.digest == f.Digest) && !d.unwant(j.stream) {
			return nil // whoever watches was quicker
		}
		d.hits.Add(1)
		f.Stream, f.Exact = j.stream, true
		found(f)
		return nil
	}
	if errors.Is(err, ErrNotFound) && j.digest != 0 {
		f, err = d.get(ctx, RecordKey(j.digest))
	}
	switch {
	case errors.Is(err, ErrNotFound):
		d.misses.Add(1)
		return nil
	case err != nil:
		return err
	}
	d.hits.Add(1)
	f.Stream = j.stream
	found(f)
	return nil
}

// get reads an entry. One that does not belong there is counted, and not found.
func (d *Directory) get(ctx context.Context, key string) (Found, error) {
	value, err := d.store.Get(ctx, key)
	if err != nil {
		return Found{}, err
	}
	record, digest, err := readEntry(key, value)
	if err != nil {
		d.bad.Add(1)
		return Found{}, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return Found{Record: record, Digest: digest}, nil
}

// want notes that a stream was asked for. With too many, another makes room: who
// asked for it will ask again.
func (d *Directory) want(stream uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.wanted) >= maxWanted {
		for other := range d.wanted {
			delete(d.wanted, other)
			break
		}
	}
	d.wanted[stream] = struct{}{}
}

// unwant says whether the stream was still wanted.
func (d *Directory) unwant(stream uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, wanted := d.wanted[stream]
	delete(d.wanted, stream)
	return wanted
}

// askAgain looks for the streams that are wanted: what was put while nobody listened
// will not be told.
func (d *Directory) askAgain() {
	d.mu.Lock()
	wanted := slices.Collect(maps.Keys(d.wanted))
	d.mu.Unlock()
	for _, stream := range wanted {
		d.Ask(stream, 0)
	}
}

// watch hands on what others put of the streams that are wanted.
func (d *Directory) watch(ctx context.Context, found func(Found)) {
	for {
		err := d.store.Watch(ctx, func(key string, value []byte) {
			if key == "" {
				d.askAgain()
				return
			}
			stream, ok := parseStreamKey(key)
			if !ok || !d.unwant(stream) {
				return
			}
			record, digest, err := readEntry(key, value)
			if err != nil {
				d.bad.Add(1)
				d.want(stream)
				return
			}
			d.hits.Add(1)
			found(Found{Stream: stream, Record: record, Digest: digest, Exact: true})
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.errors.Add(1)
		}
		if !pause(ctx, lastRetry/4) {
			return
		}
	}
}

// pause waits, and returns false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
