package transcode

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protowire"
)

// TestUndecoded: an event of an unknown kind keeps its outer fields, and its bytes;
// what has a kind that is known, or none, stays as protojson has it.
func TestUndecoded(t *testing.T) {
	program, err := Compile((*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	field := func(number protowire.Number, text string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), text)
	}
	join := func(fields ...[]byte) (wire []byte) {
		for _, f := range fields {
			wire = append(wire, f...)
		}
		return wire
	}
	node := field(1000, "n")
	for _, test := range []struct {
		name string
		wire []byte
		kind uint32
		want string // without the two members
	}{
		{"alone", field(402, "\x0a\x00"), 402, `{`},
		{"with a node", join(field(402, ""), node), 402, `{"node_name":"n",`},
		{"behind the node", join(node, field(402, "")), 402, `{"node_name":"n",`},
		{"two", join(field(403, ""), field(402, "")), 403, `{`},
		{"above the known ones", field(40002, ""), 40002, `{`},
		{"known", field(1, ""), 0, `{"process_exec":{}}`},
		{"known, with another", join(field(402, ""), field(1, "")), 0, `{"process_exec":{}}`},
		{"no kind", node, 0, `{"node_name":"n"}`},
		{"an outer field", join(node, field(1500, "x")), 0, `{"node_name":"n"}`},
		{"a number", protowire.AppendVarint(protowire.AppendTag(nil, 402, protowire.VarintType), 7), 0, `{}`},
		{"nothing", nil, 0, `{}`},
	} {
		got, info, err := program.NewTranscoder(Options{Undecoded: true}).Append([]byte("before "), test.wire)
		want := "before " + test.want
		if test.kind != 0 {
			number, _ := json.Marshal(test.kind)
			want += `"tetracast_kind":` + string(number) + `,"tetracast_undecoded":"` + base64.StdEncoding.EncodeToString(test.wire) + `"}`
		}
		if err != nil || string(got) != want || info.UnknownKind != test.kind {
			t.Errorf("%s: %s, kind %d, %v; want %s", test.name, got, info.UnknownKind, err, want)
		}
		plain, info, err := program.NewTranscoder(Options{}).Append(nil, test.wire)
		if err != nil || info.UnknownKind != 0 || test.kind == 0 && string(plain) != test.want {
			t.Errorf("%s without the option: %s, %v", test.name, plain, err)
		}
	}
}

// FuzzUndecoded: whatever comes, the JSON is valid and the bytes are in it.
func FuzzUndecoded(f *testing.F) {
	program, err := Compile((*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0x92, 0x19, 2, 0x0a, 0})
	f.Add([]byte{0x92, 0x19, 0, 0xc2, 0x3e, 1, 'n'})
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, info, err := program.NewTranscoder(Options{Undecoded: true}).Append(nil, wire)
		if err != nil {
			return
		}
		var event struct {
			Undecoded []byte `json:"tetracast_undecoded"`
			Kind      uint32 `json:"tetracast_kind"`
		}
		if err := json.Unmarshal(got, &event); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		if info.UnknownKind != UnknownKind(wire) || event.Kind != info.UnknownKind || info.UnknownKind != 0 && string(event.Undecoded) != string(wire) {
			t.Fatalf("kind %d: %s", info.UnknownKind, got)
		}
		if kind, _ := KindOf(wire); kind != 0 && info.UnknownKind != 0 {
			t.Fatalf("%v and %d", kind, info.UnknownKind)
		}
	})
}
