package transcode_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"tetracast/internal/corpus"
	"tetracast/transcode"
)

// eventType is the message type that most tests are about.
var eventType = (*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor()

func newTranscoder(t testing.TB, md protoreflect.MessageDescriptor) *transcode.Transcoder {
	t.Helper()
	program, err := transcode.Compile(md)
	if err != nil {
		t.Fatal(err)
	}
	return program.NewTranscoder(transcode.Options{})
}

// withMemo makes a transcoder with a memo so small that it overwrites itself.
func withMemo(t testing.TB) *transcode.Transcoder {
	t.Helper()
	program, err := transcode.Compile(eventType)
	if err != nil {
		t.Fatal(err)
	}
	return program.NewTranscoder(transcode.Options{CacheBytes: 256 << 10})
}

// oracle is the JSON that protojson makes of wire.
func oracle(m proto.Message, wire []byte) ([]byte, error) {
	if err := proto.Unmarshal(wire, m); err != nil {
		return nil, err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, text)
	return compact.Bytes(), err
}

// recording reads the messages of a recording: of the built-in sample, or of a
// file of the large corpus.
func recording(t testing.TB, name string) [][]byte {
	t.Helper()
	events, err := readRecording(name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED, NOT TESTED: the recording %s is not here; TETRACAST_CORPUS names its folder", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func readRecording(name string) (events [][]byte, err error) {
	data := corpus.Sample()
	if name != "sample.binpb.gz" {
		path, ok := corpus.Path(name)
		if !ok {
			return nil, fs.ErrNotExist
		}
		if data, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	switch filepath.Ext(name) {
	case ".gz":
		var r io.Reader
		if r, err = gzip.NewReader(bytes.NewReader(data)); err == nil {
			data, err = io.ReadAll(r)
		}
	case ".zst":
		var r *zstd.Decoder
		if r, err = zstd.NewReader(nil); err == nil {
			data, err = r.DecodeAll(data, nil)
		}
	}
	for err == nil && len(data) > 0 {
		size, n := binary.Uvarint(data)
		if n <= 0 || size > uint64(len(data)-n) {
			return nil, fmt.Errorf("recording %s is cut off", name)
		}
		events = append(events, data[n:n+int(size)])
		data = data[n+int(size):]
	}
	return events, err
}

func TestRecordingsEqualProtojson(t *testing.T) {
	f := func(name string) {
		t.Run(name, func(t *testing.T) {
			tc := newTranscoder(t, eventType)
			memo := withMemo(t)
			var dst []byte
			var event tetragon.GetEventsResponse
			for i, wire := range recording(t, name) {
				want, err := oracle(&event, wire)
				if err != nil {
					t.Fatal(err)
				}
				got, info, err := tc.Append(dst[:0], wire)
				if err != nil || info != (transcode.Info{}) {
					t.Fatalf("event %d: info %+v, error %v", i, info, err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("event %d\n got %s\nwant %s", i, got, want)
				}
				dst = got
				for range 3 { // seen, stored, found
					if again, info, err := memo.Append(nil, wire); err != nil || info != (transcode.Info{}) || !bytes.Equal(again, want) {
						t.Fatalf("event %d with the memo: %+v, %v\n got %s\nwant %s", i, info, err, again, want)
					}
				}
			}
		})
	}
	f("sample.binpb.gz")
	f("k8s.binpb")
	if !testing.Short() {
		f("events.binpb.zst")
	}
}

// TestSummary compares Scan with the typed event.
func TestSummary(t *testing.T) {
	for _, name := range []string{"sample.binpb.gz", "k8s.binpb"} {
		for i, wire := range recording(t, name) {
			var event tetragon.GetEventsResponse
			if err := proto.Unmarshal(wire, &event); err != nil {
				t.Fatal(err)
			}
			got, err := transcode.Scan(wire)
			if err != nil {
				t.Fatal(err)
			}
			if want := event.EventType().String(); wantKind(&event) != got.Kind.String() {
				t.Fatalf("event %d: kind %s, want %s", i, got.Kind, want)
			}
			equal := func(what string, got []byte, want string) {
				if string(got) != want {
					t.Errorf("event %d: %s %q, want %q", i, what, got, want)
				}
			}
			equal("node", got.Node, event.NodeName)
			if got.HasTime && (got.Seconds != event.Time.Seconds || got.Nanos != event.Time.Nanos) {
				t.Errorf("event %d: time %d.%d", i, got.Seconds, got.Nanos)
			}
			type withProcess interface{ GetProcess() *tetragon.Process }
			type withPolicy interface {
				GetPolicyName() string
				GetAction() tetragon.KprobeAction
			}
			member := member(&event)
			if m, ok := member.(withProcess); ok {
				p := m.GetProcess()
				equal("exec_id", got.ExecID, p.GetExecId())
				equal("binary", got.Binary, p.GetBinary())
				equal("docker", got.Docker, p.GetDocker())
				equal("pod namespace", got.PodNamespace, p.GetPod().GetNamespace())
				equal("pod name", got.PodName, p.GetPod().GetName())
				equal("pod uid", got.PodUID, p.GetPod().GetUid())
				if got.PID != p.GetPid().GetValue() || got.HasPID != (p.GetPid() != nil) {
					t.Errorf("event %d: pid %d", i, got.PID)
				}
			}
			if m, ok := member.(withPolicy); ok {
				equal("policy", got.Policy, m.GetPolicyName())
				if got.Action != transcode.Action(m.GetAction()) {
					t.Errorf("event %d: action %d", i, got.Action)
				}
			}
			switch m := member.(type) {
			case *tetragon.ProcessKprobe:
				equal("function", got.Function, m.FunctionName)
			case *tetragon.ProcessLsm:
				equal("function", got.Function, m.FunctionName)
			case *tetragon.ProcessTracepoint:
				equal("subsystem", got.Subsystem, m.Subsys)
				equal("event", got.Function, m.Event)
			case *tetragon.ProcessUprobe:
				equal("symbol", got.Function, m.Symbol)
			case *tetragon.ProcessUsdt:
				equal("name", got.Function, m.Name)
			}
		}
	}
}

// member returns the member of the oneof that is set.
func member(event *tetragon.GetEventsResponse) any {
	fd := event.ProtoReflect().WhichOneof(eventType.Oneofs().Get(0))
	return event.ProtoReflect().Get(fd).Message().Interface()
}

func wantKind(event *tetragon.GetEventsResponse) string {
	return string(event.ProtoReflect().WhichOneof(eventType.Oneofs().Get(0)).Name())
}

// generator makes the wire bytes of random messages: any field in any order,
// any number of times, with odd values, unknown fields among them.
type generator struct {
	*rand.Rand
	ordered bool // as a marshaller does: each field once, in order
}

func (g *generator) message(md protoreflect.MessageDescriptor, depth int) []byte {
	var b []byte
	fields := md.Fields()
	add := func(fd protoreflect.FieldDescriptor) {
		if depth > 0 || fd.Message() == nil {
			b = g.field(b, fd, depth-1)
		}
	}
	if g.ordered {
		share := 1 + g.IntN(4)
		for i := range fields.Len() {
			if g.IntN(share) == 0 {
				add(fields.Get(i))
			}
		}
		return b
	}
	for range g.IntN(8) {
		if fields.Len() > 0 {
			add(fields.Get(g.IntN(fields.Len())))
		}
		if g.IntN(16) == 0 {
			b = protowire.AppendTag(b, protowire.Number(3000+g.IntN(1<<28)), protowire.BytesType)
			b = protowire.AppendBytes(b, []byte("unknown"))
		}
		if g.IntN(32) == 0 {
			b = protowire.AppendTag(b, 999, protowire.StartGroupType)
			b = protowire.AppendTag(b, 7, protowire.VarintType)
			b = protowire.AppendVarint(b, g.Uint64())
			b = protowire.AppendTag(b, 999, protowire.EndGroupType)
		}
	}
	return b
}

func (g *generator) field(b []byte, fd protoreflect.FieldDescriptor, depth int) []byte {
	count := 1
	if fd.IsList() || fd.IsMap() {
		count = g.IntN(4)
	}
	if fd.IsList() && fd.Message() == nil && fd.Kind() != protoreflect.StringKind && fd.Kind() != protoreflect.BytesKind &&
		(g.ordered || g.IntN(2) == 0) {
		var packed []byte
		first := g.IntN(50)
		for i := range g.IntN(50) {
			if fd.Kind() == protoreflect.EnumKind && g.IntN(8) > 0 {
				packed = protowire.AppendVarint(packed, uint64(first+i))
			} else {
				packed = g.scalar(packed, fd)
			}
		}
		return protowire.AppendBytes(protowire.AppendTag(b, fd.Number(), protowire.BytesType), packed)
	}
	for range count {
		switch fd.Kind() {
		case protoreflect.MessageKind:
			b = protowire.AppendTag(b, fd.Number(), protowire.BytesType)
			b = protowire.AppendBytes(b, g.message(fd.Message(), depth))
		case protoreflect.StringKind, protoreflect.BytesKind:
			b = protowire.AppendTag(b, fd.Number(), protowire.BytesType)
			b = g.scalar(b, fd)
		case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
			b = g.scalar(protowire.AppendTag(b, fd.Number(), protowire.Fixed32Type), fd)
		case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
			b = g.scalar(protowire.AppendTag(b, fd.Number(), protowire.Fixed64Type), fd)
		default:
			b = g.scalar(protowire.AppendTag(b, fd.Number(), protowire.VarintType), fd)
		}
	}
	return b
}

// scalar appends a value without its tag.
func (g *generator) scalar(b []byte, fd protoreflect.FieldDescriptor) []byte {
	numbers := []uint64{0, 1, 9, 10, 99, 100, 127, 128, 1 << 14, math.MaxInt32, math.MaxUint32, 1 << 32, math.MaxInt64, math.MaxUint64, g.Uint64() >> g.IntN(64)}
	x := numbers[g.IntN(len(numbers))]
	switch fd.Kind() {
	case protoreflect.StringKind:
		texts := []string{"", "a", "plain", "/usr/bin/env", "seven 7", "exactly8", "with \"quotes\" and \\", "\x00\x01\x1f\x7f", "\b\f\n\r\t",
			"grüße, 世界 \U0001F600", "\u2028\u2029\uFFFD", string(make([]byte, g.IntN(100)))}
		return protowire.AppendString(b, texts[g.IntN(len(texts))])
	case protoreflect.BytesKind:
		v := make([]byte, g.IntN(40))
		for i := range v {
			v[i] = byte(g.Uint32())
		}
		return protowire.AppendBytes(b, v)
	case protoreflect.BoolKind:
		return protowire.AppendVarint(b, x&1)
	case protoreflect.EnumKind:
		return protowire.AppendVarint(b, uint64(int64(g.IntN(60)-2)))
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.AppendFixed32(b, uint32(x))
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.AppendFixed64(b, x)
	case protoreflect.Int64Kind, protoreflect.Int32Kind:
		if md := fd.Parent().FullName(); md == "google.protobuf.Timestamp" || md == "google.protobuf.Duration" {
			times := []int64{math.MaxInt64, 1 << 56, 0, 1, -1, 1700000000, -62135596800, 253402300799, 253402300800, 999999999, 1000, 120000000, -5}
			return protowire.AppendVarint(b, uint64(times[g.IntN(len(times))]))
		}
	}
	return protowire.AppendVarint(b, x)
}

// TestRandomMessages compares with protojson over every message type of the
// API that an event reaches, and every other one that it declares.
func TestRandomMessages(t *testing.T) {
	g := &generator{Rand: rand.New(rand.NewPCG(1, 2))}
	var types []protoreflect.MessageDescriptor
	for _, file := range []protoreflect.FileDescriptor{tetragon.File_tetragon_events_proto, tetragon.File_tetragon_tetragon_proto, tetragon.File_tetragon_sensors_proto} {
		for i := range file.Messages().Len() {
			types = append(types, file.Messages().Get(i))
		}
	}
	types = append(types, eventType, eventType, eventType, eventType)
	agreed, refused := 0, 0
	for _, md := range types {
		tc := newTranscoder(t, md)
		var dst []byte
		for round := range 400 {
			g.ordered = round%2 == 0
			wire := g.message(md, 7)
			m := newMessage(t, md)
			want, wantErr := oracle(m, wire)
			got, _, err := tc.Append(append(dst[:0], "kept"...), wire)
			if wantErr != nil {
				refused++
				if err != nil && string(got) != "kept" {
					t.Fatalf("%s: a failed call returned %q", md.FullName(), got)
				}
				if err == nil && !json.Valid(got[4:]) {
					t.Fatalf("%s: invalid JSON %s", md.FullName(), got)
				}
				continue
			}
			if errors.Is(err, transcode.ErrUnsupported) && (md.ParentFile() != eventType.ParentFile() || md.Name() == "FieldFilter" || md.Name() == "GetEventsRequest") {
				continue // requests and answers hold a FieldMask or a Value; no event does
			}
			agreed++
			if err != nil || !bytes.Equal(got[4:], want) {
				t.Fatalf("%s: wire %x: error %v\n got %s\nwant %s", md.FullName(), wire, err, got[4:], want)
			}
			dst = got
		}
	}
	if agreed < 10*refused || agreed < 1000 {
		t.Errorf("only %d messages agreed and %d were refused by protojson", agreed, refused)
	}
}

func TestRepairsInvalidUTF8(t *testing.T) {
	tc := newTranscoder(t, eventType)
	f := func(text, want string, repaired int) {
		wire := protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), text)
		got, info, err := tc.Append(nil, wire)
		if err != nil || string(got) != `{"node_name":"`+want+`"}` || info.Repaired != repaired {
			t.Errorf("%q: got %s, %+v, %v, want %s repaired %d times", text, got, info, err, want, repaired)
		}
	}
	f("docker-\xff\xfe-x", "docker-\uFFFD-x", 1)
	f("\xff", "\uFFFD", 1)
	f("a\xc3", "a\uFFFD", 1)
	f("\xed\xa0\x80", "\uFFFD", 1) // a surrogate
	f("long enough \xf0\x9f\x98 to be copied by words \xfe\"", "long enough \uFFFD to be copied by words \uFFFD\\\"", 2)
	f("\uFFFD stays", "\uFFFD stays", 0)
}

func TestMalformed(t *testing.T) {
	tc := newTranscoder(t, eventType)
	for _, wire := range recording(t, "sample.binpb.gz")[:50] {
		for cut := range wire {
			dst, info, err := tc.Append([]byte("kept"), wire[:cut])
			if err == nil && !json.Valid(dst[4:]) {
				t.Fatalf("invalid JSON of %x", wire[:cut])
			}
			if err != nil && (string(dst) != "kept" || info != (transcode.Info{})) {
				t.Fatalf("a failed call returned %q, %+v", dst, info)
			}
		}
	}
}

// TestAppendDoesNotAllocate holds for every event, once the transcoder is warm:
// the largest of the corpus has 330,771 bytes.
func TestAppendDoesNotAllocate(t *testing.T) {
	f := func(name string) {
		t.Run(name, func(t *testing.T) {
			events := recording(t, name)
			tc, memo := newTranscoder(t, eventType), withMemo(t)
			dst := make([]byte, 0, 1<<20)
			all := func() {
				for _, wire := range events {
					if _, _, err := tc.Append(dst, wire); err != nil {
						t.Fatal(err)
					}
					if _, _, err := memo.Append(dst, wire); err != nil {
						t.Fatal(err)
					}
					if _, err := transcode.Scan(wire); err != nil {
						t.Fatal(err)
					}
				}
			}
			all()
			if allocs := testing.AllocsPerRun(3, all); allocs != 0 {
				t.Errorf("%v allocations for %d events, want 0", allocs, len(events))
			}
		})
	}
	f("sample.binpb.gz")
	if !testing.Short() {
		f("events.binpb.zst")
	}
}

func newMessage(t *testing.T, md protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistryFind(md)
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

func protoregistryFind(md protoreflect.MessageDescriptor) (protoreflect.MessageType, error) {
	return protoregistry.GlobalTypes.FindMessageByName(md.FullName())
}
