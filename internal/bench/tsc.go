//go:build amd64 || arm64

package bench

// tsc returns the time-stamp counter, which ticks at one rate whatever the
// processor's clock does. On arm64 that is the virtual counter.
func tsc() uint64
