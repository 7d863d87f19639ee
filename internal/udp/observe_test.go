package udp

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestObserved(t *testing.T) {
	if _, err := SndbufErrors(); err != nil {
		t.Error(err)
	}
	f := func(text, prefix, name string, want uint64, wantErr error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "snmp")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := counter(path, prefix, name); got != want || !errors.Is(err, wantErr) {
			t.Errorf("%s %s: %d, %v", prefix, name, got, err)
		}
	}
	const snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams SndbufErrors InCsumErrors\nUdp: 10 42 3\nUdpLite: SndbufErrors\nUdpLite: 9\n"
	f(snmp, "Udp:", "SndbufErrors", 42, nil)
	f(snmp, "Udp:", "MemErrors", 0, errNoCounter)
	f("Udp6InDatagrams 1\nUdp6SndbufErrors                	7\n", "", "Udp6SndbufErrors", 7, nil)
	f("", "Udp:", "SndbufErrors", 0, errNoCounter)
}
