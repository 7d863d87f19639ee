package datagram

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the examples of docs/frame.md anew")

const framePage = "../docs/frame.md"

// pageKey is the pre-shared key of the page's examples.
func pageKey() (secret [KeyBytes]byte) {
	for i := range secret {
		secret[i] = byte(i)
	}
	return secret
}

// example is a row of datagrams on the page.
type example struct {
	title, text     string
	datagram, first uint64 // numbers to begin with
	config          FrameConfig
	make            func(*Frame, *Batch)
}

var pageExamples = []example{
	{"Two events", "The third and fourth event of a stream, as JSON, not compressed.", 300, 3, FrameConfig{JSON: true}, packTwo},
	{"A long event", "An event of 300 bytes, in two datagrams of at most 256. The first is padded, because the header of later ones may be longer.",
		1, 1, FrameConfig{MaxDatagram: 256, Pad: true}, func(f *Frame, b *Batch) {
			_ = f.Pack(b, &Event{Number: 1, Wire: bytes.Repeat([]byte("0123456789"), 30)})
			f.Flush(b)
		}},
	{"The end of a stream", "An `agent_stats` with goodbye.", 128, 1001, FrameConfig{}, func(f *Frame, b *Batch) {
		f.PackStats(b, []byte(`{"event":"agent_stats"}`), true)
	}},
	{"Compressed with S2", "One event, compressed with the dictionary `tetracast, frames` of 17 bytes.", 1, 1, FrameConfig{Compression: CompressionS2}, packRepeating},
	{"Compressed with Zstandard", "The same event, with the same dictionary.", 1, 1, FrameConfig{Compression: CompressionZstd}, packRepeating},
	{"Sealed", "The first example, sealed with the key `000102...1f` and the salt `0102...10`.", 300, 3, FrameConfig{JSON: true, Key: NewKey(pageKey())}, packTwo},
	{"Sealed with a host's key", "The same, sealed with the key of the host `node-1` that is derived from that one.", 300, 3, FrameConfig{JSON: true, Key: NewKey(pageKey()).forHost("node-1")}, packTwo},
}

func packTwo(f *Frame, b *Batch) {
	_ = f.Pack(b, &Event{Number: 3, Line: []byte(`{"process_exec":{}}` + "\n")})
	_ = f.Pack(b, &Event{Number: 4, Line: []byte(`{"process_exit":{}}` + "\n")})
	f.Flush(b)
}

func packRepeating(f *Frame, b *Batch) {
	_ = f.Pack(b, &Event{Number: 1, Wire: []byte(strings.Repeat("tetracast, frames, ", 6))})
	f.Flush(b)
}

// pageDictionary is the dictionary of the page's examples.
func pageDictionary(t *testing.T) *Dictionary {
	d, err := NewDictionary([]byte("tetracast, frames"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestFramePage holds the page's examples to the code: our packer makes the
// datagrams there, and our reader and the second decoder find in them what the
// page says.
func TestFramePage(t *testing.T) {
	written, err := os.ReadFile(framePage)
	if err != nil {
		t.Fatal(err)
	}
	const heading = "## Examples\n"
	before, _, found := strings.Cut(string(written), heading)
	page := before + heading + pageOf(t)
	if *update {
		if err := os.WriteFile(framePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if page != string(written) {
		t.Errorf("%s (examples there: %v) does not have the examples that the code makes; go test ./datagram -run FramePage -update writes them anew", framePage, found)
	}
	// From here on the page is what counts.
	for _, part := range strings.Split(page, "\n### ")[1:] {
		title, _, _ := strings.Cut(part, "\n")
		var keys []*Key
		var secrets []string
		if strings.HasPrefix(title, "Sealed") {
			secret := pageKey()
			keys, secrets = []*Key{NewKey(secret)}, []string{hex.EncodeToString(secret[:])}
		}
		datagrams, says := extract(t, part)
		ours := decodeAll(t, NewFrameReader(FrameReaderConfig{Keys: keys, Dictionaries: []*Dictionary{pageDictionary(t)}}), datagrams)
		for i, want := range says {
			if !reflect.DeepEqual(ours[i], want) {
				t.Errorf("%s, datagram %d: ours is\n%v\nthe page says\n%v", title, i+1, ours[i], want)
			}
		}
		for i, got := range second(t, datagrams, secrets...) {
			if want := says[i]; want["compression"] != "none" {
				delete(want, "items")
			}
			if !reflect.DeepEqual(got, says[i]) {
				t.Errorf("%s, datagram %d: the second decoder's is\n%v\nthe page says\n%v", title, i+1, got, says[i])
			}
		}
	}
}

// pageOf renders the examples.
func pageOf(t *testing.T) string {
	var page strings.Builder
	key := NewKey(pageKey())
	salt := make([]byte, saltBytes)
	for i := range salt {
		salt[i] = byte(i + 1)
	}
	page.WriteString("\nMade from the code; a test keeps them so, and has the second decoder read them. What is behind `#` explains.\n")
	for _, e := range pageExamples {
		e.config.Stream, e.config.Dictionary = 0x0123456789abcdef, pageDictionary(t)
		f := newTestFrame(t, e.config)
		f.SetRecord(0x1122334455667788)
		f.header.Datagram, f.header.First, f.next = e.datagram, e.first, e.first
		f.SetSums(Sums{Seen: e.first + 8, Excluded: 2, Dropped: 1})
		var b Batch
		e.make(f, &b)
		fmt.Fprintf(&page, "\n### %s\n\n%s\n", e.title, e.text)
		if e.config.Key != nil {
			stream := e.config.Key.derive(salt, "tetracast frame 1 stream key\x01\x23\x45\x67\x89\xab\xcd\xef", 32)
			fmt.Fprintf(&page, "The key id is `%08x`, the stream key `%x`.\n", key.id, stream)
			if e.config.Key.host != "" {
				fmt.Fprintf(&page, "The host's key is `%x`.\n", e.config.Key.secret)
			}
		}
		r := NewFrameReader(FrameReaderConfig{Dictionaries: []*Dictionary{pageDictionary(t)}})
		if e.config.Key != nil {
			r = NewFrameReader(FrameReaderConfig{Keys: []*Key{key}})
		}
		objects := decodeAll(t, r, b.Datagrams)
		for i, d := range b.Datagrams {
			object, err := json.Marshal(objects[i])
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&page, "\n```hex\n%s```\n```json\n%s\n```\n", annotate(t, d), object)
		}
	}
	return page.String()
}

// annotate writes a datagram with the names of its fields.
func annotate(t *testing.T, d []byte) string {
	var out strings.Builder
	field := func(n int, name string) {
		for first := true; n > 0; first = false {
			row := min(n, 24)
			if out.WriteString(fmt.Sprintf("% x", d[:row])); first {
				out.WriteString(" # " + name)
			}
			out.WriteString("\n")
			d = d[row:]
			n -= row
		}
	}
	var h Header
	check := crcBytes
	if d[atFlags]&flagSealed != 0 {
		check = tagBytes
	}
	start, _, err := parseHeader(d[:len(d)-check], &h)
	if err != nil {
		t.Fatal(err)
	}
	body, named := len(d)-start-check, d[atFlags]&flagHost != 0
	field(2, "magic")
	field(1, "version")
	field(1, "flags")
	field(1, "content")
	field(8, "stream")
	field(8, "record")
	field(2, "padding")
	if h.HasDictionary {
		field(4, "dictionary")
	}
	if h.Sealed {
		field(4, "key")
		field(16, "salt")
	}
	if named {
		field(1+int(d[0]), "host")
	}
	for _, v := range []struct {
		name  string
		value uint64
	}{{"datagram", h.Datagram}, {"first", h.First}, {"count", uint64(h.Count)}, {"excluded", h.Excluded}, {"dropped", h.Dropped}, {"refused", h.Refused}} {
		field(uvarintSize(v.value), fmt.Sprintf("%s %d", v.name, v.value))
	}
	field(uvarintSize(uint64(h.ahead())<<1), fmt.Sprintf("seen %d, as %d more", h.Seen, h.ahead()))
	if h.Fragment.Total > 0 {
		field(uvarintSize(uint64(h.Fragment.Index)), "index")
		field(uvarintSize(uint64(h.Fragment.Total)), "total")
	}
	if h.Sealed {
		field(body, "body, encrypted")
		field(tagBytes, "tag")
	} else {
		field(body-h.padding, "body")
		field(h.padding, "padding")
		field(crcBytes, "CRC-32C")
	}
	return out.String()
}

// extract returns the datagrams of an example on the page, and what it says of
// each.
func extract(t *testing.T, part string) (datagrams [][]byte, says []map[string]any) {
	t.Helper()
	for i, block := range strings.Split(part, "```") {
		kind, text, _ := strings.Cut(block, "\n")
		switch {
		case i%2 == 0:
		case kind == "hex":
			var digits strings.Builder
			for line := range strings.Lines(text) {
				row, _, _ := strings.Cut(line, "#")
				digits.WriteString(strings.Join(strings.Fields(row), ""))
			}
			d, err := hex.DecodeString(digits.String())
			if err != nil {
				t.Fatal(err)
			}
			datagrams = append(datagrams, d)
		case kind == "json":
			var object map[string]any
			if err := json.Unmarshal([]byte(text), &object); err != nil {
				t.Fatal(err)
			}
			says = append(says, object)
		}
	}
	if len(datagrams) == 0 || len(datagrams) != len(says) {
		t.Fatalf("%d datagrams, %d objects in\n%s", len(datagrams), len(says), part)
	}
	return datagrams, says
}

// refusals are the names of the page for our errors.
var refusals = map[error]string{ErrNotFrame: "not_a_frame", ErrVersion: "unknown_version", ErrFlag: "unknown_flag", ErrHeader: "bad_header",
	ErrNotSealed: "not_sealed", ErrUnknownKey: "unknown_key", ErrCheck: "bad_check"}

// decodeAll says of each datagram what the second decoder would.
func decodeAll(t *testing.T, r *FrameReader, datagrams [][]byte) []map[string]any {
	t.Helper()
	var objects []map[string]any
	for _, d := range datagrams {
		var h Header
		body, err := r.Open(d, &h)
		if err != nil {
			objects = append(objects, map[string]any{"refused_as": refusals[err]})
			continue
		}
		o := map[string]any{
			"kind": []string{"", "events", "agent_init", "agent_stats"}[h.Kind], "compression": h.Compression.String(),
			"sealed": h.Sealed, "json": h.JSON, "goodbye": h.Goodbye, "stream": fmt.Sprintf("%016x", h.Stream), "record": fmt.Sprintf("%016x", h.Record),
			"padding": h.padding, "datagram": h.Datagram, "first": h.First, "count": h.Count,
			"excluded": h.Excluded, "dropped": h.Dropped, "refused": h.Refused, "seen": h.Seen,
		}
		if h.HasDictionary {
			o["dictionary"] = fmt.Sprintf("%08x", h.Dictionary)
		}
		if h.Sealed {
			o["key"], o["salt"] = fmt.Sprintf("%08x", h.KeyID), hex.EncodeToString(h.salt[:])
		}
		if h.Host != "" {
			o["host"] = h.Host
		}
		if h.Fragment.Total > 0 {
			o["index"], o["total"] = h.Fragment.Index, h.Fragment.Total
		}
		items := []string{}
		switch err := r.Read(&h, body, testTime, func(_ uint64, event []byte) { items = append(items, hex.EncodeToString(event)) }); {
		case err == nil && len(items) > 0:
			o["items"] = items
		case errors.Is(err, ErrBroken):
			o["items"], o["dropped_as"] = nil, "broken"
		case err != nil:
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	return normal(t, objects)
}

// normal gives values the types that they have after a way through JSON.
func normal(t *testing.T, objects []map[string]any) (out []map[string]any) {
	t.Helper()
	for _, o := range objects {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		out = append(out, object)
	}
	return out
}

// second has the second decoder decode the datagrams.
func second(t *testing.T, datagrams [][]byte, secrets ...string) (objects []map[string]any) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: the second decoder needs python3, which is not here")
	}
	var in, errors bytes.Buffer
	for _, d := range datagrams {
		fmt.Fprintf(&in, "%x\n", d)
	}
	cmd := exec.Command(python, append([]string{"-B", "testdata/frame.py"}, secrets...)...)
	cmd.Stdin, cmd.Stderr = &in, &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errors.String())
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var object map[string]any
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
	if len(objects) != len(datagrams) {
		t.Fatalf("the second decoder gave %d objects for %d datagrams:\n%s", len(objects), len(datagrams), errors.String())
	}
	return objects
}

// TestSecondDecoder: two decoders, written apart, say the same of good frames
// and of frames that were changed in any way, with a checksum that fits.
func TestSecondDecoder(t *testing.T) {
	sample := events(messages(t)[:60])
	random := rand.New(rand.NewPCG(3, 4))
	check := func(key *Key, secrets ...string) {
		t.Helper()
		f := newTestFrame(t, FrameConfig{Stream: 5, MaxDatagram: 1232, Key: key, Pad: true})
		var b Batch
		for i := range sample {
			if err := f.Pack(&b, &sample[i]); err != nil {
				t.Fatal(err)
			}
		}
		f.PackRecord(&b, []byte("{}\n"))
		f.PackStats(&b, []byte("{}\n"), true)
		datagrams := b.Datagrams
		if key != nil {
			datagrams = datagrams[len(datagrams)-15:] // AES in Python takes its time
		}
		for _, d := range datagrams {
			for range 20 {
				if key != nil && random.IntN(20) > 0 {
					continue
				}
				changed := bytes.Clone(d)
				at := random.IntN(min(len(d), 60))
				if random.IntN(8) == 0 {
					changed = changed[:at+4]
				} else {
					changed[at] = byte(random.Uint32()) >> random.IntN(8)
				}
				changed[0], changed[2] = d[0], d[2]
				if random.IntN(5) > 0 && len(changed) > crcBytes {
					changed[1] = d[1]
					end := len(changed) - crcBytes
					sum := crc32.Checksum(changed[:end], castagnoli)
					changed = append(changed[:end], byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
				}
				if len(changed) > atContent && (changed[atContent]>>4 != 0 || changed[atFlags]&flagFragment != 0) {
					continue // the second decoder does not decompress, and joins whatever comes
				}
				datagrams = append(datagrams, changed)
			}
		}
		config := FrameReaderConfig{}
		if key != nil {
			config.Keys = []*Key{NewKey(pageKey())} // from which a host's is derived
		}
		ours, theirs := decodeAll(t, NewFrameReader(config), datagrams), second(t, datagrams, secrets...)
		seen := map[any]int{}
		for i := range ours {
			seen[ours[i]["refused_as"]]++
			if !reflect.DeepEqual(ours[i], theirs[i]) {
				t.Fatalf("datagram %x\nours   %v\ntheirs %v", datagrams[i], ours[i], theirs[i])
			}
		}
		t.Logf("sealed %v: %d datagrams: %v", key != nil, len(datagrams), seen)
	}
	check(nil)
	secret := pageKey()
	check(NewKey(secret), hex.EncodeToString(secret[:]))
	check(NewKey(secret).forHost("node-1.example"), hex.EncodeToString(secret[:]))
}
