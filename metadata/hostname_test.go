package metadata_test

import (
	"testing"

	"tetracast/metadata"
)

// TestHostnameIsReadOnce: what the host is called later changes nothing of this process.
func TestHostnameIsReadOnce(t *testing.T) {
	first := metadata.HostFacts().Hostname
	t.Setenv("NODE_NAME", first+"-renamed")
	if again := metadata.HostFacts().Hostname; again != first {
		t.Errorf("the hostname was %q and became %q", first, again)
	}
}
