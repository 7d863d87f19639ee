package source

import "context"

// Take gets a batch of messages, in order. The slices are lent for the length
// of the call. It must not wait for anything slow: while it runs nothing is
// read, and Tetragon drops what its own queue cannot hold.
type Take func(batch [][]byte)

// Source hands on messages until its end, or until ctx ends.
type Source interface {
	Run(ctx context.Context, take Take) error
}

var (
	_ Source = (*Recording)(nil)
	_ Source = (*Subscription)(nil)
)
