package datagram

// Resetter is a packer with memory of its own, which its datagrams lie in.
type Resetter interface {
	// Reset lets the packer use its memory again. Call it after the batch was
	// sent or copied and before the events' memory changes: what the packer
	// still keeps for a later datagram it copies out of the events here.
	Reset()
	// Forget gives the memory up instead, for somebody else still reads it: a
	// kernel that sends without copying. What the packer keeps stays kept.
	Forget()
}

// An arena of more than maxArena bytes, four times what a worker packs at once,
// is kept until so many batches did without: a giant event's memory is neither
// kept for good nor asked for again with each giant event.
const (
	maxArena     = 1 << 20
	maxArenaIdle = 256 // batches
)

// arena is the memory that a packer builds datagrams in. They are appended to
// block; where it grows, the datagrams before stay in the block they are in.
type arena struct {
	block []byte
	idle  int // batches that needed no more than maxArena
}

// Reset implements [Resetter].
func (a *arena) Reset() {
	a.idle++
	if len(a.block) > maxArena {
		a.idle = 0
	}
	a.block = a.block[:0]
	if a.idle > maxArenaIdle && cap(a.block) > maxArena {
		a.block = nil
	}
}

// Forget implements [Resetter].
func (a *arena) Forget() { a.block = nil }

// since returns what was appended from start on, so that nobody can append
// to it.
func (a *arena) since(start int) []byte {
	return a.block[start:len(a.block):len(a.block)]
}
