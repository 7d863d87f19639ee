//go:build (amd64 || arm64) && !nounsafe

package transcode

import "unsafe"

// The fixed-size moves without bounds checks, on little-endian processors that
// allow unaligned access. Callers have checked the bounds; word_plain.go is the
// twin that checks them again.

func at(b []byte, i int) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i) }

// load64 reads eight bytes at b[i:].
func load64(b []byte, i int) uint64 { return *(*uint64)(at(b, i)) }

// store64 writes eight bytes at b[i:].
func store64(b []byte, i int, w uint64) { *(*uint64)(at(b, i)) = w }

// load32 reads four bytes at b[i:].
func load32(b []byte, i int) uint32 { return *(*uint32)(at(b, i)) }

// store32 writes four bytes at b[i:].
func store32(b []byte, i int, w uint32) { *(*uint32)(at(b, i)) = w }

// storeBlock writes a block at b[i:].
func storeBlock(b []byte, i int, p *block) { *(*block)(at(b, i)) = *p }

// loadBlock reads a block at b[i:], which stays where it is.
func loadBlock(b []byte, i int) *block { return (*block)(at(b, i)) }
