package transcode_test

import (
	"bytes"
	"errors"
	"testing"

	"tetracast/transcode"
)

// TestAppendLimit: a message from a stranger makes no more than it may, whatever the
// room in dst, leaves no trace, and one that may be as long as it is comes out as from
// Append.
func TestAppendLimit(t *testing.T) {
	program, err := transcode.Compile(eventType)
	if err != nil {
		t.Fatal(err)
	}
	transcoder := program.NewTranscoder(transcode.Options{CacheBytes: 1 << 20})
	caps := append([]byte{0x0a, 0xff, 0x7f}, bytes.Repeat([]byte{7}, 1<<14-1)...)
	bombs := [][]byte{
		wrap(1, wrap(1, wrap(14, caps))),                                 // a packed list of enum numbers
		wrap(1, bytes.Repeat(wrap(3, nil), 5000)),                        // empty messages
		wrap(1, wrap(1, wrap(5, bytes.Repeat([]byte{1}, 20_000)))),       // six bytes each
		wrap(1, wrap(1, append(wrap(5, []byte("a")), wrap(4, caps)...))), // in no order
	}
	for i, wire := range bombs {
		whole, _, err := transcoder.Append(nil, wire)
		if err != nil {
			t.Fatalf("bomb %d: %v", i, err)
		}
		for _, room := range []int{0, 1 << 10, 1 << 20} {
			dst := append(make([]byte, 0, room+8), "before"...)
			for _, limit := range []int{0, 100, len(whole) / 2, len(whole) - 1} {
				out, info, err := transcoder.AppendLimit(dst, wire, limit)
				if !errors.Is(err, transcode.ErrLimit) || string(out) != "before" || info != (transcode.Info{}) {
					t.Errorf("bomb %d, limit %d of %d, room %d: %d bytes, %+v, %v", i, limit, len(whole), room, len(out), info, err)
				}
			}
			out, _, err := transcoder.AppendLimit(dst, wire, len(whole))
			if err != nil || string(out) != "before"+string(whole) {
				t.Errorf("bomb %d, room %d: %d bytes of %d: %v", i, room, len(out)-6, len(whole), err)
			}
		}
	}
	if _, _, err := transcoder.Append(nil, bombs[0]); err != nil {
		t.Errorf("Append after a limit: %v", err)
	}
}

func wrap(number int, value []byte) []byte {
	f := []byte{byte(number<<3 | 2)}
	n := len(value)
	for ; n >= 0x80; n >>= 7 {
		f = append(f, byte(n)|0x80)
	}
	return append(append(f, byte(n)), value...)
}
