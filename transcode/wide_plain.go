//go:build !(goexperiment.simd && amd64 && !nounsafe)

package transcode

// wideBytes is the length from which copyClean is asked: never, in this build.
const wideBytes = 1 << 62

// copyClean is the twin of the one in wide_simd.go, for builds without it.
func copyClean([]byte, int, []byte) int { return 0 }
