package main

import (
	"net"
	"syscall"
	"testing"
	"time"

	"tetracast/ledger"
)

// TestDTLSIsJunk: the beginning of a DTLS handshake (RFC 9147, section 5) is a datagram
// that nobody can decode: counted, and not answered.
func TestDTLSIsJunk(t *testing.T) {
	collect := startCollect(t)
	conn, err := net.Dial("udp4", collect.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 1, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 42, 0xfe, 0xfd}, make([]byte, 40)...)
	const times = 100
	for range times {
		if _, err := conn.Write(hello); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1500)); err == nil {
		t.Errorf("it answered with %d bytes", n)
	}
	_ = collect.cmd.Process.Signal(syscall.SIGTERM)
	collect.wait(10 * time.Second)
	account := readJSON[ledger.Collector](t, collect.account)
	if account.Undecodable.Total() != times || account.Received != 0 {
		t.Errorf("undecodable %v, received %d", account.Undecodable, account.Received)
	}
}
