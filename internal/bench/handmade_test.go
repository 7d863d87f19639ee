package bench

import (
	"bytes"
	"testing"

	"tetracast/transcode"
)

// TestHandmade: the rival is right about what it takes, and takes most
// events of its two kinds in recording a.
func TestHandmade(t *testing.T) {
	recordings, err := loadRecordings()
	if err != nil {
		t.Fatal(err)
	}
	tc, err := newTranscoder()
	if err != nil {
		t.Fatal(err)
	}
	var rival handEvent
	taken, of := 0, 0
	for _, wire := range recordings[0].events() {
		summary, err := transcode.Scan(wire)
		if err != nil {
			t.Fatal(err)
		}
		if kind := summary.Kind.String(); kind != "process_exec" && kind != "process_kprobe" {
			continue
		}
		of++
		want, _, err := tc.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		got, err := rival.append(nil, wire)
		if err != nil {
			continue
		}
		taken++
		if !bytes.Equal(got, want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
	t.Logf("%d of %d", taken, of)
	if taken == 0 || taken < of/3 {
		t.Errorf("the rival takes only %d of %d events", taken, of)
	}
}
