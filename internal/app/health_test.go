package app

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestHealth: the answers are those of the loops.
func TestHealth(t *testing.T) {
	var state error
	mux := http.NewServeMux()
	serveHealth(mux, func(context.Context) error { return state }, nil)
	f := func(path string, want int) {
		t.Helper()
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		if answer.Code != want {
			t.Errorf("%s: %d %s, want %d", path, answer.Code, answer.Body, want)
		}
	}
	f("/healthz", 200)
	f("/readyz", 200)
	state = errors.New("stuck")
	f("/healthz", 503)
	f("/readyz", 503)
}

// TestAnswers: what does not come back in time is not alive.
func TestAnswers(t *testing.T) {
	if err := answers(func() {})(t.Context()); err != nil {
		t.Error(err)
	}
	held := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := answers(func() { <-held })(ctx); !errors.Is(err, errNotAlive) {
		t.Errorf("a loop that hangs: %v", err)
	}
	close(held)
}

func TestProfileAddress(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "192.0.2.1:1", "localhost:1", "nonsense"} {
		if l, err := (&ProfileConfig{Address: address}).listen(); err == nil || l != nil {
			t.Errorf("%s was taken", address)
		}
	}
	l, err := (&ProfileConfig{Address: "127.0.0.1:0"}).listen()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}
