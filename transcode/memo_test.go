package transcode_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"tetracast/transcode"
)

// TestMemoOfOtherDescriptors: the memo says what the transcoder says without it,
// whatever the descriptor. Types are drawn at random around a tetragon.Process, for
// where a process may stand decides what pieces a message is made of.
func TestMemoOfOtherDescriptors(t *testing.T) {
	found := uint64(0)
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		md := randomTypes(t, random)
		program, err := transcode.Compile(md)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		memo, plain := program.NewTranscoder(transcode.Options{CacheBytes: 1 << 20}), program.NewTranscoder(transcode.Options{})
		var events [][]byte
		for range 4 {
			events = append(events, randomMessage(random, md, 0))
		}
		for range 20 {
			wire := events[random.IntN(len(events))]
			want, _, wantErr := plain.Append(nil, wire)
			got, _, err := memo.Append(nil, wire)
			if (err == nil) != (wantErr == nil) || string(got) != string(want) {
				t.Fatalf("seed %d: %s, %v; without the memo %s, %v", seed, got, err, want, wantErr)
			}
		}
		found += memo.CacheStats().Found
		if n := plain.CacheStats().Looks; n != 0 {
			t.Fatalf("the transcoder without a memo looked %d times", n)
		}
	}
	if found == 0 {
		t.Error("the memo found nothing: nothing was tested")
	}
}

// randomTypes returns a type of a few that hold each other, of which one is called
// tetragon.Process.
func randomTypes(t *testing.T, random *rand.Rand) protoreflect.MessageDescriptor {
	t.Helper()
	names := []string{"Root", "A", "B", "Process", "C"}
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("x.proto"), Package: proto.String("tetragon"), Syntax: proto.String("proto3")}
	for _, name := range names {
		m := &descriptorpb.DescriptorProto{Name: proto.String(name)}
		for n := range 1 + random.IntN(4) {
			f := &descriptorpb.FieldDescriptorProto{
				Name: proto.String(fmt.Sprintf("f%d", n)), Number: proto.Int32(int32(n + 1)),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			}
			if random.IntN(4) == 0 {
				f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			}
			if random.IntN(3) > 0 {
				f.Type = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum()
				f.TypeName = proto.String(".tetragon." + names[1+random.IntN(len(names)-1)])
			}
			m.Field = append(m.Field, f)
		}
		file.MessageType = append(file.MessageType, m)
	}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Messages().ByName("Root")
}

// randomMessage encodes a message of that type, of strings long enough for the memo.
func randomMessage(random *rand.Rand, md protoreflect.MessageDescriptor, depth int) []byte {
	var wire []byte
	for i := range md.Fields().Len() {
		f := md.Fields().Get(i)
		times := random.IntN(2)
		if f.IsList() {
			times = random.IntN(3)
		}
		for range times {
			value := []byte(fmt.Sprintf("%060d", random.IntN(3)))
			if f.Message() != nil {
				if depth == 5 {
					continue
				}
				value = randomMessage(random, f.Message(), depth+1)
			}
			wire = protowire.AppendTag(wire, f.Number(), protowire.BytesType)
			wire = protowire.AppendBytes(wire, value)
		}
	}
	return wire
}
