package transcode_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protowire"

	"tetracast/transcode"
)

// FuzzAppend gives any bytes, mutated from real events: an error or valid JSON,
// the same with and without the memo, and equal to protojson where that accepts.
func FuzzAppend(f *testing.F) {
	for i, wire := range recording(f, "sample.binpb.gz") {
		if i%8 == 0 && len(wire) < 8<<10 {
			f.Add(wire)
		}
	}
	f.Add(protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "\xff\"\\"))
	plain, memo := newTranscoder(f, eventType), withMemo(f)
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, info, err := plain.Append(nil, wire)
		if err == nil && !json.Valid(got) {
			t.Fatalf("invalid JSON %q", got)
		}
		if len(got) > 64*len(wire)+64 {
			t.Fatalf("%d bytes became %d", len(wire), len(got))
		}
		for range 3 { // seen, stored, found
			again, memoInfo, memoErr := memo.Append(nil, wire)
			if !bytes.Equal(got, again) || info != memoInfo || (err == nil) != (memoErr == nil) {
				t.Fatalf("with the memo %s, %+v, %v\nwithout %s, %+v, %v", again, memoInfo, memoErr, got, info, err)
			}
		}
		var event tetragon.GetEventsResponse
		if want, wantErr := oracle(&event, wire); wantErr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("error %v\n got %s\nwant %s", err, got, want)
		}
	})
}

// FuzzScan gives any bytes to Scan: it returns, and never with parts on error.
func FuzzScan(f *testing.F) {
	for i, wire := range recording(f, "sample.binpb.gz") {
		if i%16 == 0 && len(wire) < 8<<10 {
			f.Add(wire)
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		s, err := transcode.Scan(wire)
		if err != nil && (s.Kind != 0 || s.HasTime || s.HasPID || s.Node != nil) {
			t.Fatalf("a failed Scan returned %+v", s)
		}
	})
}
