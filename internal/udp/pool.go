package udp

import "math/bits"

// The size classes of a Pool: powers of two from 512 bytes to the largest
// datagram.
const (
	minClassBits = 9
	maxClassBits = 16
)

// Pool keeps buffers for datagrams that have to wait, in size classes, with a
// bound on what it keeps. It has one owner. Nothing in it is known to the
// garbage collector as more than a slice: no finalizers, no sync.Pool. The zero
// value keeps nothing; set MaxBytes.
type Pool struct {
	MaxBytes int // of buffers that are kept

	classes [maxClassBits - minClassBits + 1][][]byte
	stats   PoolStats
}

// PoolStats counts what a Pool did.
type PoolStats struct {
	Hits, Misses uint64 // Gets that found a buffer, and that made one
	Dropped      uint64 // Puts beyond the bound, left to the garbage collector
	Bytes        int    // kept now
}

// Add adds the counts of another Pool.
func (s *PoolStats) Add(o *PoolStats) {
	s.Hits += o.Hits
	s.Misses += o.Misses
	s.Dropped += o.Dropped
	s.Bytes += o.Bytes
}

// Get returns an empty buffer with room for n bytes.
func (p *Pool) Get(n int) []byte {
	class, ok := classFor(n)
	if !ok {
		p.stats.Misses++
		return make([]byte, 0, n) // larger than a datagram: not ours to keep
	}
	free := p.classes[class]
	if len(free) == 0 {
		p.stats.Misses++
		return make([]byte, 0, 1<<(class+minClassBits))
	}
	p.stats.Hits++
	buffer := free[len(free)-1]
	free[len(free)-1] = nil
	p.classes[class] = free[:len(free)-1]
	p.stats.Bytes -= cap(buffer)
	return buffer[:0]
}

// Put gives back a buffer that Get returned. The caller must not use it again.
func (p *Pool) Put(buffer []byte) {
	class, ok := classFor(cap(buffer))
	if !ok || cap(buffer) != 1<<(class+minClassBits) || p.stats.Bytes+cap(buffer) > p.MaxBytes {
		p.stats.Dropped++
		return
	}
	p.stats.Bytes += cap(buffer)
	p.classes[class] = append(p.classes[class], buffer)
}

// Stats returns the counts so far.
func (p *Pool) Stats() PoolStats { return p.stats }

// classFor returns the smallest class whose buffers have room for n bytes.
func classFor(n int) (class int, ok bool) {
	class = max(0, bits.Len(uint(max(n, 1)-1))-minClassBits)
	return class, class < maxClassBits-minClassBits+1
}
