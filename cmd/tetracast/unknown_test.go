package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"tetracast/internal/replay"
	"tetracast/ledger"
)

// unknownEvents are two events of the kind 402, as a commercial Tetragon has it, the
// second longer than a datagram.
func unknownEvents() (events [][]byte, recording []byte) {
	for _, size := range []int{20, 100_000} {
		var process, member, event []byte
		process = protowire.AppendTag(process, 5, protowire.BytesType)
		process = protowire.AppendString(process, strings.Repeat("x", size))
		member = protowire.AppendTag(member, 1, protowire.BytesType)
		member = protowire.AppendBytes(member, process)
		event = protowire.AppendTag(event, 402, protowire.BytesType)
		event = protowire.AppendBytes(event, member)
		event = protowire.AppendTag(event, 1000, protowire.BytesType)
		event = protowire.AppendString(event, "node-a")
		events = append(events, event)
		recording = binary.AppendUvarint(recording, uint64(len(event)))
		recording = append(recording, event...)
	}
	return events, recording
}

// TestUnknownKind: an event of a kind that this release does not know gets one answer
// in all formats: its outer fields, its number, and its bytes, of which a form that
// fits has the beginning. It is warned of once, and counted.
func TestUnknownKind(t *testing.T) {
	events, recording := unknownEvents()
	path := filepath.Join(t.TempDir(), "unknown.binpb")
	if err := os.WriteFile(path, recording, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"json", "ndjson", "gelf", "syslog", "frame"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			account, tetragon := filepath.Join(folder, "export.json"), "unix://"+filepath.Join(folder, "tetragon.sock")
			serve(t, tetragon, replay.Config{Recording: path})
			collect := startCollect(t, "--exit-idle", "500ms")
			export := run(t, "export", "--server-address", tetragon, "--reconnect=false", "--udp-destination", format+"://"+collect.address, "--account", account)
			for _, p := range []*process{export, collect.process} {
				if code := p.wait(time.Minute); code != 0 {
					t.Errorf("%s exited with %d", p.name, code)
				}
			}
			r := read(t, collect, account)
			if r.exporter.Seen != 2 || r.exporter.UnknownKinds != 2 || len(r.events) != 2 {
				t.Fatalf("seen %d, unknown kinds %d, arrived %d", r.exporter.Seen, r.exporter.UnknownKinds, len(r.events))
			}
			if n := strings.Count(export.log.String(), "Events of a kind that this release does not know"); n != 1 {
				t.Errorf("export warns %d times", n)
			}
			if format == "frame" && strings.Count(collect.log.String(), "Events of a kind that this release does not know") != 1 {
				t.Error("collect does not warn once")
			}
			prefix := ""
			if format == "gelf" {
				prefix = "_"
			}
			for i, line := range r.events {
				var got map[string]any
				if err := json.Unmarshal([]byte(line), &got); err != nil {
					t.Fatal(err)
				}
				text, _ := got[prefix+"tetracast_undecoded"].(string)
				wire, err := base64.StdEncoding.DecodeString(text)
				whole := bytes.Equal(wire, events[i])
				if err != nil || !bytes.HasPrefix(events[i], wire) || len(wire) < 30 || !whole && (i == 0 || format == "frame") {
					t.Errorf("event %d: %v, %d bytes of %d: %.200s", i, err, len(wire), len(events[i]), line)
				}
				if got[prefix+"tetracast_kind"] != 402.0 || got[prefix+"node_name"] != "node-a" {
					t.Errorf("event %d: %.200s", i, line)
				}
			}
		})
	}
}

// TestUnknownKindAsJSON: the same by the other door, where the event has a name and is
// whole: it is sent as it is, warned of once, and counted.
func TestUnknownKindAsJSON(t *testing.T) {
	const event = `{"process_connect":{"process":{"binary":"/usr/bin/curl"}},"node_name":"node-a","time":"2026-03-15T00:06:31.5Z"}` + "\n"
	for _, format := range []string{"json", "ndjson", "gelf", "syslog", "frame"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			account := filepath.Join(t.TempDir(), "export.json")
			collect := startCollect(t, "--exit-idle", "500ms")
			export := runWith(t, strings.NewReader(event+event), "export", "--source", "-", "--udp-destination", format+"://"+collect.address, "--account", account)
			for _, p := range []*process{export, collect.process} {
				if code := p.wait(time.Minute); code != 0 {
					t.Errorf("%s exited with %d", p.name, code)
				}
			}
			sent := readJSON[ledger.Exporter](t, account)
			if sent.Seen != 2 || sent.UnknownKinds != 2 || strings.Count(export.log.String(), "does not know") != 1 {
				t.Errorf("seen %d, unknown kinds %d:\n%s", sent.Seen, sent.UnknownKinds, export.log.String())
			}
			for _, got := range read(t, collect, account).events {
				if format == "gelf" {
					if !strings.Contains(got, `"_event_type":"process_connect"`) || !strings.Contains(got, `"_process.binary":"/usr/bin/curl"`) {
						t.Error(got)
					}
				} else if got != event {
					t.Errorf("got %s", got)
				}
			}
		})
	}
}
