package bench

import (
	"bytes"
	"strings"
	"testing"
)

// TestFrame: the tables come, of the built-in sample where nothing larger is.
func TestFrame(t *testing.T) {
	t.Setenv("TETRACAST_CORPUS", t.TempDir())
	var out bytes.Buffer
	if err := Frame(t.Context(), &out, FrameOptions{Rounds: 1}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"copy of each event", "frame, none", "frame, s2", "frame, zstd", "open and read, zstd", "full frame, sealed", "without that half"} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("no row %q in\n%s", row, out.String())
		}
	}
}
