package transcode_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"tetracast/transcode"
)

// newerEvents returns GetEventsResponse as a later Tetragon might have it: with
// one more field, of a name longer than any there is, and one more event kind.
func newerEvents(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	file := protodesc.ToFileDescriptorProto(eventType.ParentFile())
	for _, m := range file.MessageType {
		if m.GetName() == "GetEventsResponse" {
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String("a_field_whose_name_is_longer_than_one_move"), Number: proto.Int32(5000),
				Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			})
			// The members of a oneof stand together.
			m.Field = append([]*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("process_later"), Number: proto.Int32(30), OneofIndex: proto.Int32(0),
				Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".tetragon.ProcessExit"),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}}, m.Field...)
		}
	}
	newer, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return newer.Messages().ByName("GetEventsResponse")
}

func TestNewerSender(t *testing.T) {
	newer := newerEvents(t)
	var wire []byte
	wire = protowire.AppendString(protowire.AppendTag(wire, 1000, protowire.BytesType), "node")
	wire = protowire.AppendString(protowire.AppendTag(wire, 5000, protowire.BytesType), "new")
	exit := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "SIGKILL")
	wire = protowire.AppendBytes(protowire.AppendTag(wire, 30, protowire.BytesType), exit)

	f := func(md protoreflect.MessageDescriptor, want string, unknown int) {
		t.Helper()
		got, info, err := newTranscoder(t, md).Append(nil, wire)
		if err != nil || string(got) != want || info.Unknown != unknown {
			t.Errorf("got %s, %+v, %v; want %s with %d unknown", got, info, err, want, unknown)
		}
	}
	f(eventType, `{"node_name":"node"}`, 2)
	want := `{"process_later":{"signal":"SIGKILL"},"node_name":"node","a_field_whose_name_is_longer_than_one_move":"new"}`
	f(newer, want, 0)
	if m, err := oracle(dynamicpb.NewMessage(newer), wire); err != nil || string(m) != want {
		t.Errorf("protojson: %s, %v", m, err)
	}
}

// TestUnknownEnumNumber shows a number without a name, in a list and alone.
func TestUnknownEnumNumber(t *testing.T) {
	throttle := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 77)
	wire := protowire.AppendBytes(protowire.AppendTag(nil, 27, protowire.BytesType), throttle)
	got, info, err := newTranscoder(t, eventType).Append(nil, wire)
	if err != nil || string(got) != `{"process_throttle":{"type":77}}` || info.Unknown != 1 {
		t.Errorf("got %s, %+v, %v", got, info, err)
	}
}

// TestNewerDescriptorReadsOldEvents runs the recording through the newer program.
func TestNewerDescriptorReadsOldEvents(t *testing.T) {
	now, newer := newTranscoder(t, eventType), newTranscoder(t, newerEvents(t))
	for i, wire := range recording(t, "sample.binpb.gz") {
		want, _, err := now.Append(nil, wire)
		if err != nil {
			t.Fatal(err)
		}
		got, info, err := newer.Append(nil, wire)
		if err != nil || info != (transcode.Info{}) || !bytes.Equal(got, want) {
			t.Fatalf("event %d: %+v, %v\n got %s\nwant %s", i, info, err, got, want)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := transcode.Compile(eventType); err != nil {
			b.Fatal(err)
		}
	}
}
