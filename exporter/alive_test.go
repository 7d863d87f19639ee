package exporter

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestAlive: Run answers when it is asked, with nothing to do; before and after it
// nobody does.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var socket fakeSocket
		e := newTestExporter(t, Config{}, &socket)
		alive := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return e.Alive(ctx)
		}
		if err := alive(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before Run: %v", err)
		}
		stop := start(t, e)
		for range 3 {
			time.Sleep(time.Hour)
			if err := alive(); err != nil {
				t.Error(err)
			}
		}
		stop()
		if err := alive(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after Run: %v", err)
		}
	})
}
