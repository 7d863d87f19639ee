package transcode_test

import (
	"testing"

	"tetracast/transcode"
)

// TestKindOf holds the shallow looks to Scan, over all recorded events, and over
// their beginnings.
func TestKindOf(t *testing.T) {
	for _, name := range []string{"sample.binpb.gz", "events.binpb.zst"} {
		t.Run(name, func(t *testing.T) {
			for i, wire := range recording(t, name) {
				want, err := transcode.Scan(wire)
				if err != nil {
					t.Fatal(err)
				}
				kind, member := transcode.KindOf(wire)
				pid, hasPID, binary := transcode.ProcessOf(kind, member)
				if kind != want.Kind || pid != want.PID || hasPID != want.HasPID || string(binary) != string(want.Binary) {
					t.Fatalf("event %d: %s, pid %d %v, %s, want %+v", i, kind, pid, hasPID, binary, want)
				}
			}
		})
	}
	kprobe := []byte{0x4a, 2, 0x0a, 0} // process_kprobe with an empty process
	f := func(wire []byte, want transcode.Kind) {
		t.Helper()
		if kind, _ := transcode.KindOf(wire); kind != want {
			t.Errorf("% x: kind %s, want %s", wire, kind, want)
		}
	}
	f(nil, 0)
	f(kprobe, transcode.KindProcessKprobe)
	f(kprobe[:3], 0)
	f(append([]byte{0x0a, 0}, kprobe...), transcode.KindProcessKprobe) // of two the last counts
	f([]byte{0xfa, 0x01, 0}, 0)                                        // field 31
}

func BenchmarkKindOf(b *testing.B) {
	events := recording(b, "events.binpb.zst")[:15810]
	f := func(name string, look func(wire []byte)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, wire := range events {
					look(wire)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
		})
	}
	f("kind", func(wire []byte) { transcode.KindOf(wire) })
	f("kind-and-process", func(wire []byte) { transcode.ProcessOf(transcode.KindOf(wire)) })
	f("scan", func(wire []byte) { _, _ = transcode.Scan(wire) })
}
