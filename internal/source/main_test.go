package source

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(asStranger); path != "" {
		beStranger(path)
		return
	}
	goleak.VerifyTestMain(m)
}
