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

// maxArena is the most memory that an arena keeps over a Reset, in bytes: four
// times what a worker packs at once, so that a giant event's memory is not kept.
const maxArena = 1 << 20

// arena is the memory that a packer builds datagrams in. They are appended to
// block; where it grows, the datagrams before stay in the block they are in.
type arena struct{ block []byte }

// Reset implements [Resetter].
func (a *arena) Reset() {
	a.block = a.block[:0]
	if cap(a.block) > maxArena {
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
