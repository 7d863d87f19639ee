package exporter

import (
	"context"
	"errors"
	"time"

	"tetracast/metadata"
)

// storeWait bounds each use of the metadata store. Nobody waits for it but the
// goroutine that uses it.
const storeWait = 5 * time.Second

// keepStored is what an exporter has to do with its metadata store: it asks once what
// the process before this one knew, and leaves what this one knows for the next. It
// ends with ctx.
func (e *UDPExporter) keepStored(ctx context.Context) {
	e.recall(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-e.spoilt:
			r.Damaged()
		case <-e.leaving:
		}
		e.leave(ctx)
	}
}

// recall announces what the process before this one knew of Tetragon, unless Tetragon
// has answered already. SetTetragon corrects what is not true any more.
func (e *UDPExporter) recall(ctx context.Context) {
	origin, err := e.config.MetadataOrigin()
	if err != nil {
		e.config.Logger.Debug("Nothing is known of Tetragon before it answers", "cause", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	streams := e.streams()
	records := make([]*metadata.Record, len(streams))
	var known *Tetragon
	for i, s := range streams {
		r, err := metadata.Recall(ctx, e.config.MetadataStore, e.facts(s.Destination), origin, e.config.RenderMetadata)
		if err != nil {
			e.countStored(s, err)
			continue
		}
		event := r.Record.Event()
		t := Tetragon{Version: event.TetragonVersion, BuildCommit: event.BuildCommit, BuildDate: event.BuildDate, ClusterName: r.ClusterName}
		if known == nil {
			known = &t
		}
		if *known == t {
			if records[i] = r.Record; !s.plainRecord {
				records[i] = r.Record.InMemory() // its packer reads it
			}
		}
	}
	if known == nil || !e.adoptRecalled(*known, streams, records) {
		return
	}
	e.config.Logger.Info("Announced as the process before this one did, until Tetragon answers", "tetragon_version", known.Version)
	_ = e.SendMetadataEvent() // ErrClosed: nobody is left to tell
}

// adoptRecalled makes what was recalled what is known, unless more is known already.
func (e *UDPExporter) adoptRecalled(known Tetragon, streams []*stream, records []*metadata.Record) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tetragon != nil {
		return false
	}
	for _, s := range streams {
		if s.cache.Current() != nil {
			return false // a first event came, and was announced without
		}
	}
	e.tetragon, e.clusterName = &known, known.ClusterName
	for i, s := range streams {
		if records[i] != nil {
			s.cache.Adopt(records[i])
		}
	}
	return true
}

// leave puts what is known of Tetragon into the store, where that is news.
func (e *UDPExporter) leave(ctx context.Context) {
	e.mu.Lock()
	known := e.tetragon
	e.mu.Unlock()
	if known == nil || known.Version == "" {
		return
	}
	origin, err := e.config.MetadataOrigin()
	if err != nil {
		e.unkept.Do(func() {
			e.config.Logger.Warn("Nothing is kept for the next run, which announces itself only when Tetragon answers", "error", err)
		})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	for _, s := range e.streams() {
		facts := e.facts(s.Destination)
		was, err := metadata.Recall(ctx, e.config.MetadataStore, facts, origin, e.config.RenderMetadata)
		if err == nil {
			event := was.Record.Event()
			if (Tetragon{Version: event.TetragonVersion, BuildCommit: event.BuildCommit, BuildDate: event.BuildDate, ClusterName: was.ClusterName}) == *known {
				continue
			}
		}
		if err := metadata.Leave(ctx, e.config.MetadataStore, facts, origin, e.config.RenderMetadata, known.ClusterName); err != nil {
			e.countStored(s, err)
			s.log.Warn("What Tetragon said of itself is not kept for the next run", "error", err)
		}
	}
}

// countStored counts what came of the store instead of a record.
func (e *UDPExporter) countStored(s *stream, err error) {
	var stale *metadata.StaleError
	switch {
	case errors.Is(err, metadata.ErrNotFound):
	case errors.As(err, &stale):
		s.cache.Invalidated(stale.Reason)
	default:
		s.cache.StoreFailed()
	}
}
