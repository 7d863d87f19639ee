package metadata_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tetracast/metadata"
)

// What it takes to add a fact, a store and an encoding of one's own: the three
// declarations below, each of which could be a file, and nothing else.

// rack is another fact.
var rack = metadata.Fact{Name: "rack", Read: func() (string, error) { return "r7", nil }}

// ecs is another encoding: the names that the Elastic Common Schema has.
func ecs(e *metadata.MetadataEvent) ([]byte, error) {
	return json.Marshal(map[string]any{
		"@timestamp": e.Timestamp, "event.action": e.Event, "host.name": e.Hostname, "host.os.kernel": e.KernelVersion,
		"process.pid": e.PID, "service.version": e.TetragonVersion, "labels": e.Labels,
	})
}

// folderStore is another store: a file for each key.
type folderStore string

func (f folderStore) Get(_ context.Context, key string) ([]byte, error) {
	value, err := os.ReadFile(filepath.Join(string(f), key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", metadata.ErrNotFound, key)
	}
	return value, err
}

func (f folderStore) Put(_ context.Context, key string, value []byte) error {
	return os.WriteFile(filepath.Join(string(f), key), value, 0o600)
}

func (f folderStore) Watch(ctx context.Context, _ func(string, []byte)) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestExtended: they work with all that is there.
func TestExtended(t *testing.T) {
	facts := metadata.Sources{More: []metadata.Fact{rack}}.Read()
	facts.TetragonVersion = "v1.7.0"
	cache := metadata.NewCache(func() metadata.Facts { return facts }, ecs)
	r, cached, cause := cache.Get()
	if !cached || cause != nil || !strings.Contains(string(r.Line()), `"labels":{"rack":"r7"}`) || !strings.Contains(string(r.Line()), `"service.version":"v1.7.0"`) {
		t.Errorf("%v, %v: %s", cached, cause, r.Line())
	}
	plain, err := metadata.NewRecord(facts, nil)
	if err != nil || !strings.Contains(string(plain.JSON()), `"uptime":"initialized at 0","labels":{"rack":"r7"},"started_at":"`) {
		t.Errorf("%v: %s", err, plain.JSON())
	}
	var s metadata.Store = folderStore(t.TempDir())
	origin, err := metadata.HostOrigin()
	if err != nil {
		t.Fatal(err)
	}
	facts.Time = time.Now()
	if err := metadata.Leave(t.Context(), s, facts, origin, nil, "c1"); err != nil {
		t.Fatal(err)
	}
	next := facts
	next.TetragonVersion, next.PID, next.Time = "", 1, facts.Time.Add(time.Hour)
	if got, err := metadata.Recall(t.Context(), s, next, origin, nil); err != nil || got.Record.Event().TetragonVersion != "v1.7.0" || got.Record.Event().PID != 1 {
		t.Errorf("recalled %+v, %v", got, err)
	}
	// The record of another encoding cannot be read back, so nothing is recalled wrongly.
	if err := metadata.Leave(t.Context(), s, facts, origin, ecs, ""); err != nil {
		t.Fatal(err)
	}
	var stale *metadata.StaleError
	if _, err := metadata.Recall(t.Context(), s, next, origin, ecs); !errors.As(err, &stale) {
		t.Errorf("of another encoding: %v", err)
	}
}
