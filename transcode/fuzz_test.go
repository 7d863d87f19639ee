package transcode_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

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

// FuzzAppendMax gives any bytes and any limit to the budgeted form: it fits and is
// valid JSON in valid UTF-8, or there is an error and nothing was appended.
func FuzzAppendMax(f *testing.F) {
	for i, wire := range recording(f, "sample.binpb.gz") {
		if i%16 == 0 && len(wire) < 8<<10 {
			f.Add(wire, uint16(1024+97*i))
		}
	}
	tc := newTranscoder(f, eventType)
	f.Fuzz(func(t *testing.T, wire []byte, limit uint16) {
		got, info, err := tc.AppendMax([]byte("kept"), wire, int(limit))
		if err != nil {
			if string(got) != "kept" {
				t.Fatalf("after %v: %q", err, got)
			}
			return
		}
		got = bytes.TrimPrefix(got, []byte("kept"))
		if len(got) > int(limit) || !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("limit %d, %d bytes, %+v: %q", limit, len(got), info, got)
		}
	})
}

// FuzzMutated compares with protojson over messages made of recorded ones: fields
// of two events, at any depth, are left out, doubled, exchanged and put in another
// order, as the bytes of the plan say. Most of them are valid messages, unlike
// those that FuzzAppend mutates byte by byte.
func FuzzMutated(f *testing.F) {
	var events [][]byte
	for _, wire := range recording(f, "sample.binpb.gz") {
		if len(wire) < 8<<10 {
			events = append(events, wire)
		}
	}
	for i := range 64 {
		f.Add(uint16(i*7), uint16(i*11), []byte{byte(i), 3, 1, byte(2 * i), 4, 0, 2, 9, byte(5 * i)})
	}
	tc := newTranscoder(f, eventType)
	f.Fuzz(func(t *testing.T, one, other uint16, plan []byte) {
		p := mutation{plan: plan}
		wire := p.mix(events[int(one)%len(events)], events[int(other)%len(events)], 0)
		got, _, err := tc.Append(nil, wire)
		if err == nil && !json.Valid(got) {
			t.Fatalf("invalid JSON %q", got)
		}
		var event tetragon.GetEventsResponse
		if want, wantErr := oracle(&event, wire); wantErr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("error %v\n got %s\nwant %s", err, got, want)
		}
	})
}

// mutation makes one message of two, as its plan says.
type mutation struct{ plan []byte }

func (m *mutation) next() byte {
	if len(m.plan) == 0 {
		return 0
	}
	step := m.plan[0]
	m.plan = m.plan[1:]
	return step
}

// mix returns a with some fields of b.
func (m *mutation) mix(a, b []byte, depth int) (out []byte) {
	from, fields := fieldsOf(b), fieldsOf(a)
	for i := 0; i < len(fields); i++ {
		field := fields[i]
		switch step := m.next(); step % 8 {
		case 1: // left out
		case 2: // doubled
			out = append(append(out, field...), field...)
		case 3: // behind the next one
			if i+1 < len(fields) {
				fields[i], fields[i+1] = fields[i+1], fields[i]
				field = fields[i]
			}
			out = append(out, field...)
		case 4: // another's
			if len(from) > 0 {
				field = from[int(step/8)%len(from)]
			}
			out = append(out, field...)
		case 5: // deeper
			number, kind, n := protowire.ConsumeTag(field)
			if kind == protowire.BytesType && depth < 4 && len(from) > 0 {
				value, _ := protowire.ConsumeBytes(field[n:])
				_, otherKind, k := protowire.ConsumeTag(from[int(step/8)%len(from)])
				var second []byte
				if otherKind == protowire.BytesType {
					second, _ = protowire.ConsumeBytes(from[int(step/8)%len(from)][k:])
				}
				out = protowire.AppendBytes(protowire.AppendTag(out, number, kind), m.mix(value, second, depth+1))
				break
			}
			out = append(out, field...)
		case 6: // a number that was not there
			number, _, _ := protowire.ConsumeTag(field)
			out = protowire.AppendVarint(protowire.AppendTag(append(out, field...), number, protowire.VarintType), uint64(int64(int8(step))))
		default:
			out = append(out, field...)
		}
	}
	return out
}

// fieldsOf cuts a message into its fields, or returns nothing if it is none.
func fieldsOf(wire []byte) (fields [][]byte) {
	for len(wire) > 0 {
		_, _, n := protowire.ConsumeField(wire)
		if n < 0 {
			return nil
		}
		fields, wire = append(fields, wire[:n]), wire[n:]
	}
	return fields
}
