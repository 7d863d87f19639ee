//go:build nounsafe || !(amd64 || arm64)

package transcode

import "encoding/binary"

// These are the checked twins of word_unsafe.go: with -tags nounsafe the tests
// show that no access lies outside its slice.

func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

func store64(b []byte, i int, w uint64) { binary.LittleEndian.PutUint64(b[i:], w) }

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }

func store32(b []byte, i int, w uint32) { binary.LittleEndian.PutUint32(b[i:], w) }

func storeBlock(b []byte, i int, p *block) { *(*[blockSize]byte)(b[i:]) = p.bytes }

func loadBlock(b []byte, i int) *block { return &block{[blockSize]byte(b[i:])} }
