package datagram

import "testing"

// TestSequence holds the sequenceId to RFC 5424, section 7.3.1: 1 follows
// 2147483647, and 0 never comes.
func TestSequence(t *testing.T) {
	f := func(n, want uint32) {
		t.Helper()
		if got := nextSequence(n); got != want {
			t.Errorf("after %d: got %d, want %d", n, got, want)
		}
	}
	f(0, 1)
	f(1, 2)
	f(2147483646, 2147483647)
	f(2147483647, 1)
}
