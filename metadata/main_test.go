package metadata

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asWriter makes this test binary put one entry after the other into the mapped
// store at a path, until it is killed or has done so many: "PATH NAME COUNT".
const asWriter = "TETRACAST_TEST_WRITER"

func TestMain(m *testing.M) {
	if what := os.Getenv(asWriter); what != "" {
		if err := beWriter(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func beWriter(what string) error {
	var path, name string
	var count int
	if _, err := fmt.Sscan(what, &path, &name, &count); err != nil {
		return err
	}
	s := NewMappedStore(path)
	fmt.Println("begins")
	for i := range count {
		if err := s.Put(context.Background(), name, written(name, i)); err != nil {
			return err
		}
	}
	return nil
}

// written is the value that a writer puts the i-th time: one whose halves must agree.
func written(name string, i int) []byte {
	half := fmt.Sprintf("%s %d ", name, i)
	half += strings.Repeat(".", 100+i%3000)
	return []byte(half + "|" + half)
}

// isWritten says whether a value is one that a writer put, as a whole.
func isWritten(name string, value []byte) bool {
	a, b, ok := strings.Cut(string(value), "|")
	return ok && a == b && strings.HasPrefix(a, name+" ")
}
