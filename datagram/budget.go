package datagram

import "sync/atomic"

// Budget bounds the bytes that several readers keep together, each for one socket. It
// is safe for concurrent use. Nil bounds nothing.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of so many bytes.
func NewBudget(bytes int) *Budget { return &Budget{limit: int64(bytes)} }

// Used returns how many bytes are kept.
func (b *Budget) Used() int {
	if b == nil {
		return 0
	}
	return int(b.used.Load())
}

// add notes bytes that are kept, or fewer than zero that are not any more.
func (b *Budget) add(bytes int) {
	if b != nil {
		b.used.Add(int64(bytes))
	}
}

// exceeded says whether more is kept than may be.
func (b *Budget) exceeded() bool { return b != nil && b.used.Load() > b.limit }
