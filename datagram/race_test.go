//go:build race

package datagram

// raceEnabled: the race detector makes sync.Pool, which zstd uses, forget at random.
const raceEnabled = true
