package impair

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tetracast/internal/udp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// through sends n numbered datagrams through a proxy and returns what arrived
// and the proxy's truth.
func through(t *testing.T, config Config, n int) (arrived []string, truth Truth) {
	t.Helper()
	receiver, err := udp.Listen("127.0.0.1:0", udp.ListenOptions{ReceiveBufferBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	p, err := New(receiver.LocalAddr(), config)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := udp.Dial(p.Addr(), udp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		var err error
		truth, err = p.Run(ctx)
		done <- err
	}()
	for i := range n {
		if _, err := sender.Send([][]byte{fmt.Appendf(nil, "datagram %06d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	cancel() // what was sent is in the proxy's socket
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for {
		_ = receiver.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		batch, err := receiver.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return arrived, truth
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch {
			arrived = append(arrived, string(d.Payload))
		}
	}
}

// TestTruth: what arrives is what the proxy says, whatever it does.
func TestTruth(t *testing.T) {
	const n = 4000
	f := func(config Config) {
		t.Helper()
		arrived, truth := through(t, config, n)
		if truth.Received != n || truth.Passed != uint64(len(arrived)) || truth.Passed != n-truth.Dropped+truth.Duplicated {
			t.Errorf("%+v: %d arrived, truth %+v", config, len(arrived), truth)
		}
		count := map[string]int{}
		disorder, corrupt := 0, 0
		last := ""
		for _, a := range arrived {
			if len(a) != len("datagram 000000") || a[:9] != "datagram " {
				corrupt++
				continue
			}
			if a < last {
				disorder++
			}
			last = max(last, a)
			count[a]++
		}
		if (truth.Reordered > 0) != (disorder > 0) && truth.Corrupted == 0 {
			t.Errorf("%+v: %d out of order, truth %+v", config, disorder, truth)
		}
		near := func(what string, got uint64, share float64) {
			t.Helper()
			if want := share * n; math.Abs(float64(got)-want) > 4*math.Sqrt(want*(1-share))+1 {
				t.Errorf("%+v: %d %s, want about %.0f", config, got, what, want)
			}
		}
		near("dropped", truth.Dropped, config.Drop)
		near("duplicated", truth.Duplicated, config.Duplicate)
		near("corrupted", truth.Corrupted, config.Corrupt)
	}
	f(Config{Seed: 1})
	f(Config{Seed: 2, Drop: 0.01})
	f(Config{Seed: 3, Drop: 0.5})
	f(Config{Seed: 4, Duplicate: 0.1})
	f(Config{Seed: 5, Corrupt: 0.01})
	f(Config{Seed: 6, Reorder: 0.2, ReorderBy: 50})
	f(Config{Seed: 7, Drop: 0.1, Duplicate: 0.1, Corrupt: 0.1, Reorder: 0.2, ReorderBy: 10})
}

// TestSeed: the same seed does the same.
func TestSeed(t *testing.T) {
	config := Config{Seed: 9, Drop: 0.1, Duplicate: 0.1, Corrupt: 0.1}
	first, _ := through(t, config, 1000)
	second, _ := through(t, config, 1000)
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Error("two runs with one seed differ")
	}
}
