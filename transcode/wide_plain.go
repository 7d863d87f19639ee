//go:build !(amd64 && goexperiment.simd) || nounsafe

package transcode

// These stand where wide_simd.go is not compiled in: text and base64 then go by
// eight-byte words throughout, and the compiler drops the branches on wide.

const (
	wide     = false
	wideSize = 0
)

func copyClean([]byte, int, []byte) int { return 0 }

func base64Wide(_ []byte, n int, s []byte) (int, []byte) { return n, s }
