package line

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

const exec = `{"process_exec":{"process":{"exec_id":"bm9kZQ==","arguments":"-c \"{\\\"process_exec\\\":{}}\""}},"node_name":"n"}`

// half is how an event begins.
const half = `{"process_kprobe":{"process":{"exec_id":"bm9kZQ==","pod":{"pod_labels":{"process_exec":"x"}},"start_time":"2026-03-14T23:5`

func unwrap(u *Unwrapper, lines ...string) (events []string) {
	for _, l := range lines {
		for _, e := range u.Append(nil, []byte(l)) {
			events = append(events, string(e))
		}
		u.Release()
	}
	return events
}

func docker(text, stream string) string {
	line, err := json.Marshal(struct {
		Log    string `json:"log"`
		Stream string `json:"stream"`
		Time   string `json:"time"`
	}{text, stream, "2026-03-15T00:06:32.475152409Z"})
	if err != nil {
		panic(err)
	}
	return string(line)
}

func TestUnwrap(t *testing.T) {
	const at = "2026-03-15T00:06:32.475152409Z "
	for name, c := range map[string]struct {
		lines []string
		want  []string
	}{
		"Tetragon's own":             {[]string{exec}, []string{exec}},
		"another object":             {[]string{`{"a":1}`}, []string{`{"a":1}`}},
		"blank":                      {[]string{"", "  ", "\x00\x00"}, nil},
		"NULs before it":             {[]string{"\x00\x00\x00" + exec + "\r"}, []string{exec}},
		"NULs in between":            {[]string{half + "\x00\x00" + exec}, []string{half, exec}},
		"a half one before it":       {[]string{half + exec}, []string{half, exec}},
		"two halves before it":       {[]string{half + half + exec}, []string{half, half, exec}},
		"a half one behind it":       {[]string{exec + half}, []string{exec, half}},
		"the beginning of one":       {[]string{exec + `{"proc`}, []string{exec, `{"proc`}},
		"two":                        {[]string{exec + exec}, []string{exec, exec}},
		"a half one":                 {[]string{half}, []string{half}},
		"a half one with labels":     {[]string{half + `"}}`}, []string{half + `"}}`}},
		"in an envelope":             {[]string{`{"event":` + exec + `}`}, []string{`{"event":` + exec + `}`}},
		"a prefix":                   {[]string{"[pod/tetragon-x/export-stdout] " + exec}, []string{exec}},
		"a prefix of syslog":         {[]string{"Mar 15 00:06:32 node tetragon[7]: " + exec}, []string{exec}},
		"no event":                   {[]string{"level=info msg=hello"}, []string{"level=info msg=hello"}},
		"CRI":                        {[]string{at + "stdout F " + exec}, []string{exec}},
		"CRI with an offset":         {[]string{"2026-03-15T01:06:32.475152409+01:00 stdout F " + exec}, []string{exec}},
		"CRI with more tags":         {[]string{at + "stdout P:x " + exec[:20], at + "stdout F:y " + exec[20:]}, []string{exec}},
		"CRI in parts":               {[]string{at + "stdout P " + exec[:20], at + "stdout P " + exec[20:40], at + "stdout F " + exec[40:]}, []string{exec}},
		"CRI, an empty last part":    {[]string{at + "stdout P " + exec, at + "stdout F "}, []string{exec}},
		"CRI, parts with blanks":     {[]string{at + `stdout P {"a":" `, at + `stdout F  "}`}, []string{`{"a":"  "}`}},
		"CRI, streams mixed":         {[]string{at + "stdout P " + exec[:20], at + "stderr F oh", at + "stdout F " + exec[20:]}, []string{exec}},
		"CRI, what it says":          {[]string{at + "stderr F starting to print", at + "stdout F no event"}, []string{"no event"}},
		"CRI, blank":                 {[]string{at + "stdout F ", at + "stdout F"}, nil},
		"CRI, a half one":            {[]string{at + "stdout F " + half + at + "stdout F " + exec}, []string{half + at + "stdout F", exec}},
		"docker":                     {[]string{docker(exec+"\n", "stdout")}, []string{exec}},
		"docker in parts":            {[]string{docker(exec[:20], "stdout"), docker(exec[20:40], "stdout"), docker(exec[40:]+"\n", "stdout")}, []string{exec}},
		"docker, streams mixed":      {[]string{docker(exec[:20], "stdout"), docker("oh\n", "stderr"), docker(exec[20:]+"\n", "stdout")}, []string{exec}},
		"docker, a wrong escape":     {[]string{`{"log":"\x"}`}, []string{`{"log":"\x"}`}},
		"docker, behind the NULs":    {[]string{"\x00\x00" + docker(exec+"\n", "stdout")}, []string{exec}},
		"the runtime's time, no log": {[]string{"2026-03-15T00:06:32.475152409Z hello to all of you " + exec}, []string{exec}},
	} {
		u := Unwrapper{}
		got := unwrap(&u, c.lines...)
		for i := range got {
			got[i] = strings.TrimSpace(got[i])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if u.Open() {
			t.Errorf("%s: a part is left", name)
		}
	}
}

// TestUnwrapBatch: what was appended stays until it is released.
func TestUnwrapBatch(t *testing.T) {
	u := Unwrapper{}
	var batch [][]byte
	for i := range 1000 {
		batch = u.Append(batch, []byte(docker(fmt.Sprintf(`{"n":%d,"text":"%s"}`, i, strings.Repeat("x", i))+"\n", "stdout")))
	}
	for i, e := range batch {
		if !bytes.HasPrefix(e, fmt.Appendf(nil, `{"n":%d,`, i)) || !json.Valid(e) {
			t.Fatalf("event %d is %.40q", i, e)
		}
	}
}

// TestUnwrapBounds: parts without an end, and a line of nothing but beginnings, cost
// no more than their bounds.
func TestUnwrapBounds(t *testing.T) {
	u := Unwrapper{Limit: 100}
	part := "2026-03-15T00:06:32.475152409Z stdout P " + strings.Repeat("x", 60)
	last := "2026-03-15T00:06:32.475152409Z stdout F "
	if got := unwrap(&u, part, part, part, last+"x", last+exec); !slices.Equal(got, []string{exec}) || u.TooLong() != 1 || u.Held() != 0 {
		t.Errorf("too long: got %q, %d too long, %d bytes held", got, u.TooLong(), u.Held())
	}
	u = Unwrapper{}
	for range 2 * maxParts {
		unwrap(&u, "2026-03-15T00:06:32.475152409Z stdout P ")
	}
	if got := unwrap(&u, last+"x", last+exec); !slices.Equal(got, []string{exec}) || u.TooLong() != 1 {
		t.Errorf("too many: got %q, %d too long", got, u.TooLong())
	}
	if got := unwrap(&u, strings.Repeat(`{"process_exec":{`, 100_000)); len(got) > maxPieces+2 {
		t.Errorf("%d pieces of one line", len(got))
	}
}

func TestRateLimited(t *testing.T) {
	u := Unwrapper{}
	unwrap(&u, `{"rate_limit_info":{"number_of_dropped_process_events":"12"},"node_name":"n"}`, "x "+`{"rate_limit_info":{"number_of_dropped_process_events":"30"}}`)
	if u.RateLimited() != 42 {
		t.Errorf("%d events, want 42", u.RateLimited())
	}
}

// TestKinds: the events that a line is searched for are those of the API.
func TestKinds(t *testing.T) {
	events := (&tetragon.GetEventsResponse{}).ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
	var want, got []string
	for i := range events.Len() {
		want = append(want, string(events.Get(i).Name()))
	}
	for _, k := range kinds {
		got = append(got, string(k))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("kinds %q, want %q", got, want)
	}
}

// TestUnwrapAllocates: a line of Tetragon's own costs no memory, one of a container's
// log none once there is room.
func TestUnwrapAllocates(t *testing.T) {
	u := Unwrapper{}
	batch := make([][]byte, 0, 4)
	lines := [][]byte{[]byte(exec), []byte("2026-03-15T00:06:32.475152409Z stdout F " + exec), []byte(docker(exec+"\n", "stdout"))}
	if n := testing.AllocsPerRun(100, func() {
		batch = batch[:0]
		for _, l := range lines {
			batch = u.Append(batch, l)
		}
		u.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzUnwrap: no line makes more than it is long, and none is made of text inside a
// string.
func FuzzUnwrap(f *testing.F) {
	f.Add([]byte(half + exec))
	f.Add([]byte(docker(half+exec+"\n", "stdout")))
	f.Add([]byte("2026-03-15T00:06:32.475152409Z stdout P " + exec))
	f.Fuzz(func(t *testing.T, text []byte) {
		u := Unwrapper{Limit: 1000}
		if quoted, err := json.Marshal(string(text)); err == nil {
			whole := `{"process_exec":{"process":{"arguments":` + string(quoted) + `}}}`
			if got := unwrap(&u, whole); !slices.Equal(got, []string{whole}) {
				t.Fatalf("%q became %q", whole, got)
			}
			for _, e := range unwrap(&u, whole[:len(whole)-3]) {
				if json.Valid([]byte(e)) {
					t.Fatalf("an event was made of %q: %q", whole[:len(whole)-3], e)
				}
			}
		}
		for line := range bytes.SplitSeq(text, []byte{'\n'}) {
			n := 0
			for _, e := range u.Append(nil, line) {
				n += len(e)
			}
			if n > len(line)+u.Limit {
				t.Fatalf("%d bytes of a line of %d", n, len(line))
			}
			if u.Held() > u.Limit*streams {
				t.Fatalf("%d bytes are held", u.Held())
			}
			u.Release()
		}
	})
}

// FuzzDocker: the escapes are read as encoding/json reads them.
func FuzzDocker(f *testing.F) {
	f.Add(`a\"b\\c\/\n\t\r\b\f\u0041\ud83d\ude00\ud83d`)
	f.Fuzz(func(t *testing.T, text string) {
		got, rest, ok := appendUnquoted(nil, []byte(text+`"`))
		var want string
		if !utf8.ValidString(text) || json.Unmarshal([]byte(`"`+text+`"`), &want) != nil {
			return // such as a control character, or a quotation mark in the middle
		}
		if !ok || len(rest) > 0 || string(got) != want {
			t.Fatalf("%q became %q, want %q", text, got, want)
		}
	})
}

// FuzzSplit: however the text comes in pieces, its lines are the same.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), uint8(2))
	f.Add([]byte(strings.Repeat("x", 50)+"\ny\n"), uint8(7))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		const limit = 20
		var got, want []string
		s := Splitter{Limit: limit}
		for piece := range slices.Chunk(slices.Clone(text), int(size)+1) {
			for {
				line, behind, ok := s.Cut(piece)
				if !ok {
					break
				}
				got, piece = append(got, string(line)), behind
			}
			if s.Held() > limit {
				t.Fatalf("%d bytes are held", s.Held())
			}
		}
		got = append(got, string(s.End()))
		tooLong := uint64(0)
		for _, line := range strings.Split(string(text), "\n") {
			if len(line) > limit {
				tooLong++
				line = ""
			}
			want = append(want, line)
		}
		if !slices.Equal(got, want) || s.TooLong() != tooLong {
			t.Fatalf("got %q and %d too long, want %q and %d", got, s.TooLong(), want, tooLong)
		}
	})
}
