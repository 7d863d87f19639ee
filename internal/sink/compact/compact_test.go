package compact

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/sink"
)

var update = flag.Bool("update", false, "write the golden files anew")

// recording returns the sample recording of the shared corpus, which lies beside
// the module or where TETRACAST_CORPUS says.
func recording(t testing.TB) []byte {
	t.Helper()
	folder := cmp.Or(os.Getenv("TETRACAST_CORPUS"), filepath.Join("..", "..", "..", "..", "shared", "corpus"))
	zipped, err := os.ReadFile(filepath.Join(folder, "sample.binpb.gz"))
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: no sample recording: %v", err)
	}
	return zipped
}

// sampleLines returns the built-in recording as the JSON lines that a collector
// receives.
func sampleLines(t testing.TB) *sink.Batch {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(recording(t)))
	if err != nil {
		t.Fatal(err)
	}
	in, b := bufio.NewReader(unzipped), new(sink.Batch)
	for {
		size, err := binary.ReadUvarint(in)
		if err == io.EOF {
			return b
		}
		wire := make([]byte, size)
		if _, err := io.ReadFull(in, wire); err != nil {
			t.Fatal(err)
		}
		var event tetragon.GetEventsResponse
		if err := proto.Unmarshal(wire, &event); err != nil {
			t.Fatal(err)
		}
		line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&event)
		if err != nil {
			t.Fatal(err)
		}
		b.Add(line)
	}
}

// show returns the lines that the sink makes of a batch.
func show(t testing.TB, b *sink.Batch, options Options) string {
	t.Helper()
	var out bytes.Buffer
	s := New(sink.NewLines(&out), options)
	if n, err := s.Write(b); n != b.Len() || err != nil {
		t.Fatalf("%d of %d lines, %v", n, b.Len(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestSampleGolden(t *testing.T) {
	const path = "testdata/sample.txt"
	got := show(t, sampleLines(t), Options{})
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	if len(gotLines) != len(wantLines) {
		t.Fatalf("%d lines, want %d", len(gotLines), len(wantLines))
	}
	for i := range gotLines {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("line %d\n%s\nwant\n%s", i+1, gotLines[i], wantLines[i])
		}
	}
}

func TestEveryEventIsOnePrintableLine(t *testing.T) {
	b := sampleLines(t)
	for _, options := range []Options{{}, {Color: true}, {Time: true}} {
		text := show(t, b, options)
		if n := strings.Count(text, "\n"); n != b.Len() {
			t.Errorf("%+v: %d lines for %d events", options, n, b.Len())
		}
		for line := range strings.Lines(text) {
			wantPrintable(t, strings.TrimSuffix(line, "\n"), options.Color)
			if strings.Contains(line, "❔") {
				t.Errorf("an event of the sample is unknown: %s", line)
			}
		}
	}
}

// wantPrintable fails if a terminal would do anything with the line but show it.
func wantPrintable(t *testing.T, line string, colored bool) {
	t.Helper()
	if colored {
		for _, c := range []colour{red, green, yellow, blue, magenta, cyan} {
			line = strings.ReplaceAll(line, "\x1b["+string(c)+"m", "")
		}
		line = strings.ReplaceAll(line, "\x1b[0m", "")
	}
	if !utf8.ValidString(line) {
		t.Errorf("invalid UTF-8: %q", line)
	}
	for _, r := range line {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u202e' || r == '\u2066' {
			t.Errorf("%U reaches the terminal: %q", r, line)
			return
		}
	}
}

func TestLines(t *testing.T) {
	f := func(object, want string) {
		t.Helper()
		b := new(sink.Batch)
		b.Add([]byte(object))
		got := show(t, b, Options{})
		if got != want+"\n" {
			t.Errorf("%s\n got %s\nwant %s", object, got, want)
		}
		wantPrintable(t, strings.TrimSuffix(got, "\n"), false)
	}
	f(`{"process_exec":{"process":{"binary":"/usr/bin/curl","arguments":"https://example.com"}},"node_name":"n"}`,
		"🚀 process n /usr/bin/curl https://example.com")
	f(`{"process_exit":{"process":{"binary":"/bin/a b","pod":{"namespace":"default","name":"web-0"}},"signal":"SIGKILL"},"node_name":"n"}`,
		`💥 exit    default/web-0 "/bin/a b" SIGKILL`)
	f(`{"process_exit":{"process":{"pid":7},"status":3},"node_name":"n"}`, "💥 exit    n pid 7 3")
	f(`{"process_exit":{},"node_name":"n"}`, "💥 exit    n pid 0 0")
	f(`{"process_kprobe":{"process":{"binary":"/b"},"function_name":"security_file_open","args":[{"file_arg":{"path":"/etc/shadow"}}],"action":"KPROBE_ACTION_SIGKILL","policy_name":"deny"},"node_name":"n"}`,
		"❓ kprobe  n /b security_file_open /etc/shadow SIGKILL (deny)")
	f(`{"process_kprobe":{"process":{"binary":"/b"},"function_name":"tcp_connect","args":[{"sock_arg":{"family":"AF_INET6","protocol":"IPPROTO_TCP","saddr":"::1","sport":5,"daddr":"2001:db8::1","dport":443}}],"action":"KPROBE_ACTION_POST"},"node_name":"n"}`,
		"🔌 connect n /b tcp [::1]:5 -> [2001:db8::1]:443")
	f(`{"process_kprobe":{"process":{"binary":"/b"},"function_name":"__arm64_sys_write","args":[{"file_arg":{"path":"/dev/tty"}},{"bytes_arg":"eA=="},{"size_arg":"1"}]},"node_name":"n"}`,
		"📝 write   n /b /dev/tty 1 bytes")
	// Hostile fields.
	f(`{"process_exec":{"process":{"binary":"/tmp/\u001b[2J","arguments":"a\nb\u202ec"}},"node_name":"\u0007"}`,
		`🚀 process "\a" "/tmp/\x1b[2J" "a\nb\u202ec"`)
	f(`{"process_exec":{"process":{"binary":"/b","arguments":"`+strings.Repeat("ä", 400)+`"}},"node_name":"n"}`,
		"🚀 process n /b "+strings.Repeat("ä", 256)+"...(288 bytes more)")
	// What is not known.
	f(`{"process_teleport":{"to":"\u001b]0;x"},"node_name":"n"}`, `❔ process_teleport {"process_teleport":{"to":"\u001b]0;x"},"node_name":"n"}`)
	f(`{"process_exec":{"process":{"pid":"seven"}}}`, `❔ process_exec {"process_exec":{"process":{"pid":"seven"}}}`)
	f(`{"tetracast_undecoded":"AAAA","stream":"00000000000000ff"}`, `❔ tetracast_undecoded {"tetracast_undecoded":"AAAA","stream":"00000000000000ff"}`)
	f(`{"rate_limit_info":{"number_of_dropped_process_events":"12"},"node_name":"n"}`, "🧬 limited 12 events left out by Tetragon's export rate limit")
	// Agents.
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_init","tetragon_version":"v1.7.0","hostname":"node-1","kernel_version":"6.12.1","pid":42,"udp_destination":"h:7514"}`,
		"📡 agent_init node-1 tetragon v1.7.0 kernel 6.12.1 pid 42 -> h:7514")
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","hostname":"node-1","seen":9,"sent":6,"excluded":1,"refused":1,"dropped":{"queue_full_process":1,"oversize":1}}`,
		"📊 agent_stats node-1 seen 9 excluded 1 sent 6 refused 1 dropped oversize 1 dropped queue_full_process 1")
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_silent","hostname":"node-1","stream":"aa","last_heard":"2025-12-31T23:55:00Z","silent_seconds":300}`,
		"🔇 agent_silent node-1 silent for 5m0s last heard 2025-12-31T23:55:00Z")
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_back","hostname":"node-2","stream":"aa","last_heard":null,"silent_seconds":90}`,
		"🔊 agent_back node-2 silent for 1m30s never heard before")
	f(`{"@timestamp":"2026-01-01T00:00:00Z","event":7}`, `❔ @timestamp {"@timestamp":"2026-01-01T00:00:00Z","event":7}`)
}

func TestTimeAndColor(t *testing.T) {
	b := new(sink.Batch)
	b.Add([]byte(`{"process_exec":{"process":{"binary":"/b","cap":{"effective":["CAP_SYS_ADMIN"]}}},"node_name":"n","time":"2026-01-02T03:04:05.000000006Z"}`))
	line := "2026-01-02T03:04:05.000000006Z 🚀 process n /b"
	want := line + strings.Repeat(" ", capsColumn-utf8.RuneCountInString(line)) + " 🛑 CAP_SYS_ADMIN\n"
	if got := show(t, b, Options{Time: true}); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	want = "🚀 \x1b[34mprocess\x1b[0m \x1b[32mn\x1b[0m \x1b[35m/b\x1b[0m"
	if got := show(t, b, Options{Color: true}); !strings.HasPrefix(got, want) {
		t.Errorf("%q\nwant %q at its beginning", got, want)
	}
}

func TestFailureBelowIsPassedOn(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	defer full.Close()
	s, b := New(sink.NewLines(full), Options{}), new(sink.Batch)
	b.Add([]byte(`{"process_exec":{}}`))
	if n, err := s.Write(b); n != 0 || err == nil {
		t.Errorf("%d lines, %v; want 0 and an error", n, err)
	}
}

func FuzzLine(f *testing.F) {
	for i, b := 0, sampleLines(f); i < b.Len(); i += 40 {
		f.Add(bytes.TrimSuffix(b.Line(i), []byte{'\n'}))
	}
	f.Add([]byte("{\"@timestamp\":\"\x1b\",\"event\":\"agent_init\"}"))
	f.Fuzz(func(t *testing.T, object []byte) {
		b := new(sink.Batch)
		b.Add(object)
		got := show(t, b, Options{Time: true})
		if strings.Count(got, "\n") != 1 {
			t.Fatalf("%q became %d lines", object, strings.Count(got, "\n"))
		}
		wantPrintable(t, strings.TrimSuffix(got, "\n"), false)
	})
}

func BenchmarkCompact(b *testing.B) {
	lines := sampleLines(b)
	s := New(sink.NewLines(io.Discard), Options{})
	b.ReportAllocs()
	b.SetBytes(int64(len(lines.Text)))
	for b.Loop() {
		if _, err := s.Write(lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines.Len()), "ns/event")
}
