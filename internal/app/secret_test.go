package app

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"tetracast/internal/readfile"
)

// TestSecretsAreHidden: neither an error, nor a line of the log, nor config print shows the
// password or token of an address, also of one that is none.
func TestSecretsAreHidden(t *testing.T) {
	for _, address := range []string{
		"nats://user:hunter2@nats-1:4222", "nats://hunter2@nats-1:4222", "tls://user:hunter2@nats-1:4222,tls://other:hunter2@nats-2",
		"nats://user:hun/hunter2@nats-1", "nats://user:hunter2@@nats-1", "nats://user:a:hunter2@nats-1:4222x", "nats://:hunter2@", "nats://user:hunter2@[::1",
		"http://user:hunter2@nats-1",
	} {
		var log bytes.Buffer
		c := SharingConfig{Store: address}
		err := c.resolve()
		if err == nil {
			err = errors.New("natsstore: server " + address + " is away")
		}
		Report(&log, err)
		logger, logErr := Streams{Err: &log}.logger(LogConfig{})
		if logErr != nil {
			t.Fatal(logErr)
		}
		logger.Warn("Not connected", "server", address, "cause", err, slog.Group("in", "url", address))
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		c.addFlags(flags)
		if err := flags.Set("metadata-store", address); err != nil {
			t.Fatal(err)
		}
		if err := PrintConfig("collect", flags, Origins{}, Streams{Out: &log}); err != nil {
			t.Fatal(err)
		}
		if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, hidden) {
			t.Errorf("%s:\n%s", address, text)
		}
	}
	for _, text := range []string{"unix:///run/tetragon.sock", "udp://host:1?a=b", "mail root@host about nats://host", "frame://collector:7514"} {
		if got := withoutPasswords(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// TestForeignErrors: what a server or a datagram said cannot act on the terminal that
// an error or the log is printed on, nor fill it.
func TestForeignErrors(t *testing.T) {
	var out bytes.Buffer
	err := errors.New("source: the server says: \x1b[2J\x1b[1;1Hall is well\r\u202e" + strings.Repeat("x", 200_000))
	Report(&out, Failed(errors.New("a\x1b[31m\nb"), "hint\x07"))
	for _, format := range []string{"text", "json"} {
		log, logErr := Streams{Err: &out}.logger(LogConfig{Format: format})
		if logErr != nil {
			t.Fatal(logErr)
		}
		log.Warn("The subscription broke", "cause", err, "host", "n\x1b[2J\nlevel=ERROR")
	}
	text := out.String()
	if strings.ContainsAny(text, "\x1b\x07\r") || strings.Contains(text, "\nlevel") || len(text) > 8192 {
		t.Errorf("%d bytes: %.2000q", len(text), text)
	}
	if !strings.Contains(text, `tetracast: a\x1b[31m; b`) {
		t.Errorf("the error is not there: %.200q", text)
	}
}

// TestKeyFileOfOthers: a key that others may read is refused, and told how to mend.
func TestKeyFileOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	var log bytes.Buffer
	if err := NewKey(path, Streams{Err: &log}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := readKeys(path)
	if !errors.Is(err, readfile.ErrOpenToOthers) || !strings.Contains(hintOf(err), "chmod 600 "+path) {
		t.Errorf("%v; hint %q", err, hintOf(err))
	}
}

// TestDeriveKey: the key of a host is of its owner alone, and a collector does not take it.
func TestDeriveKey(t *testing.T) {
	folder := t.TempDir()
	master, host := filepath.Join(folder, "master"), filepath.Join(folder, "host")
	var log bytes.Buffer
	streams := Streams{Err: &log}
	if err := errors.Join(NewKey(master, streams), DeriveKey(master, "node-1", host, streams)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(host); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	keys, err := readKeys(host)
	if err != nil || len(keys) != 1 || keys[0].Host() != "node-1" {
		t.Fatalf("%v, %v", keys, err)
	}
	if _, err := readMasterKeys(host); err == nil {
		t.Error("a collector takes a host's key")
	}
	if err := DeriveKey(host, "node-2", filepath.Join(folder, "other"), streams); err == nil {
		t.Error("a host's key makes another host's")
	}
	if err := DeriveKey(master, "a b", filepath.Join(folder, "other"), streams); err == nil {
		t.Error("a key of no host")
	}
	exporting := FrameConfig{Compression: "s2", Payload: "protobuf", KeyFile: host}
	if _, err := exporting.load(); err == nil || !strings.Contains(hintOf(err), "NODE_NAME") {
		t.Errorf("another host's key: %v", err)
	}
}

// TestSecondDocument: what stands behind a second beginning of a configuration file would be
// ignored; it is an error.
func TestSecondDocument(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.String("listen", "", "")
	read := func(text string) error {
		path := filepath.Join(t.TempDir(), "tetracast.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFiles(path, "collect", flags, []string{"collect"})
		return err
	}
	for _, text := range []string{"", "# nothing\n", "---\ncollect:\n  listen: a:1\n", "collect: {listen: a:1}\n"} {
		if err := read(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"collect: {listen: a:1}\n---\ncollect: {listen: b:2}\n", "---\n---\ncollect: {listen: b:2}\n", "collect: {listen: a:1}\n---\n{", strings.Repeat("#", maxConfigBytes+1)} {
		if err := read(text); err == nil {
			t.Errorf("%.60q is read", text)
		}
	}
}
