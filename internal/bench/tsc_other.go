//go:build !amd64 && !arm64

package bench

// tsc returns 0: there is no time-stamp counter that is known here.
func tsc() uint64 { return 0 }
