package netns

import (
	"os"
	"testing"
)

// Twice is a test that returns, with a text that is not empty, that not the code but a
// socket of the test itself lost something, as it may on a busy machine: then it runs
// once more. If that is of no use the test fails where TETRACAST_REQUIRE_RECEIVED is
// set, as .ci/run does, and else is skipped loudly.
func Twice(run func(t *testing.T) (lost string)) func(*testing.T) {
	return func(t *testing.T) {
		lost := run(t)
		if lost == "" || t.Failed() {
			return
		}
		t.Logf("once more, for %s", lost)
		t.Run("again", func(t *testing.T) { // of its own, for run may call t.Parallel
			switch lost := run(t); {
			case lost == "":
			case os.Getenv("TETRACAST_REQUIRE_RECEIVED") != "":
				t.Fatalf("twice in a row %s", lost)
			default:
				t.Skipf("SKIPPED, NOT TESTED: twice in a row %s: the machine is too busy", lost)
			}
		})
	}
}
