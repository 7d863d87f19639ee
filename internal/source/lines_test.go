package source

import (
	"context"
	"os"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := NewLines(r)
	l.split.Limit = 100
	go func() {
		_, _ = w.WriteString("{\"a\":1}\n\n{\"b\":" + strings.Repeat("1", 200) + "}\n{\"c\":")
		_, _ = w.WriteString("3}\n{\"d\":4}")
		_ = w.Close()
	}()
	var got []string
	if err := l.Run(t.Context(), func(batch [][]byte) {
		for _, line := range batch {
			got = append(got, string(line))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if want := `{"a":1} {"c":3} {"d":4}`; strings.Join(got, " ") != want || l.Stats().TooLong != 1 {
		t.Errorf("got %q, %+v", got, l.Stats())
	}
	_ = r.Close()

	silent, mute, err := os.Pipe() // nobody writes: the end of the context ends it
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer mute.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewLines(silent).Run(ctx, func([][]byte) {}) }()
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("error %v", err)
	}
}
