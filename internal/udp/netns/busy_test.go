package netns

import "testing"

// TestTwice: a test that lost something runs once more, also if it is parallel.
func TestTwice(t *testing.T) {
	for _, losses := range []int{0, 1} {
		runs := 0
		t.Run("", Twice(func(t *testing.T) (lost string) {
			if runs++; runs <= losses {
				return "lost"
			}
			return ""
		}))
		if runs != losses+1 {
			t.Errorf("%d runs after %d losses", runs, losses)
		}
	}
	t.Run("parallel", Twice(func(t *testing.T) (lost string) {
		t.Parallel()
		if t.Name() == "TestTwice/parallel" {
			return "lost"
		}
		return ""
	}))
}
