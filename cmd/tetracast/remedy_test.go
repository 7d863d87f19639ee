package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tetracast/internal/corpus"
	"tetracast/internal/replay"
	"tetracast/ledger"
)

// TestFeedback: policies on tcp_sendmsg and udp_sendmsg, with Tetragon on TCP: each of its
// sends to export is an event, and each datagram of export's. The receiver here counts by
// itself: it gets each recorded event once and nothing of the feedback, and with the
// defaults Tetragon is left in peace soon. Without the remedy it is kept busy, but still
// nothing of it is exported.
func TestFeedback(t *testing.T) {
	f := func(remedies string, goesOn bool) {
		t.Helper()
		receiver, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = receiver.Close() }()
		_ = receiver.(*net.UDPConn).SetReadBuffer(16 << 20)
		server, address := serveTCP(t, replay.Config{Feedback: true})
		account := filepath.Join(t.TempDir(), "export.json")
		export := run(t, "export", "--server-address", address, "--udp-destination", receiver.LocalAddr().String(), "--account", account, "--remedies", remedies)
		datagram, err := proto.Marshal(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{
			Process:      &tetragon.Process{Pid: wrapperspb.UInt32(uint32(export.cmd.Process.Pid)), Binary: "/usr/bin/tetracast"},
			FunctionName: "udp_sendmsg", Action: tetragon.KprobeAction_KPROBE_ACTION_POST, PolicyName: "feedback"}}})
		if err != nil {
			t.Fatal(err)
		}
		var events, fed atomic.Int64
		var receiving sync.WaitGroup
		receiving.Go(func() {
			buffer := make([]byte, 65536)
			for {
				n, _, err := receiver.ReadFrom(buffer)
				if err != nil {
					return
				}
				server.Inject(datagram)
				switch line := buffer[:n]; {
				case bytes.Contains(line, []byte(`"policy_name":"feedback"`)):
					fed.Add(1)
				case bytes.HasPrefix(line, []byte(`{"process_`)):
					events.Add(1)
				}
			}
		})
		waitFor(t, export, "all events", func() bool { return events.Load() == corpus.SampleEvents })
		export.waitLog("every event that Tetragon sends to this exporter over TCP is one more event")
		time.Sleep(time.Second)
		before, _ := server.Felt()
		cpu := cpuTime(t, export.cmd.Process.Pid)
		time.Sleep(2 * time.Second)
		after, _ := server.Felt()
		t.Logf("--remedies %s: %d events of its own sends in 2 s, for which export took %v of CPU", remedies, after-before, cpuTime(t, export.cmd.Process.Pid)-cpu)
		if looping := after-before > 100; looping != goesOn {
			t.Errorf("--remedies %s: %d events of its own sends in 2 s", remedies, after-before)
		}
		_ = export.cmd.Process.Signal(syscall.SIGTERM)
		export.wait(5 * time.Second)
		_ = receiver.Close()
		receiving.Wait()
		a := readJSON[ledger.Exporter](t, account)
		if err := a.Check(); err != nil || a.Excluded < 100+corpus.SampleEvents || a.Seen != a.Excluded+corpus.SampleEvents {
			t.Errorf("seen %d, excluded %d, %v", a.Seen, a.Excluded, err)
		}
		if events.Load() != corpus.SampleEvents || fed.Load() != 0 {
			t.Errorf("--remedies %s: %d events and %d of the feedback came", remedies, events.Load(), fed.Load())
		}
	}
	f("auto", false)
	f("none", true)
}

// cpuTime is what the threads of a process have used of the CPUs.
func cpuTime(t *testing.T, pid int) (used time.Duration) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		var ns int64
		if text, err := os.ReadFile(path); err == nil { // else the thread has ended
			_, _ = fmt.Sscan(string(text), &ns)
		}
		used += time.Duration(ns)
	}
	return used
}

// TestNotUTF8: a control group's name that is not UTF-8, in every 50th event; with the
// defaults two events are lost with the two breaks, and the account says what is left out.
func TestNotUTF8(t *testing.T) {
	folder := t.TempDir()
	address := "unix://" + filepath.Join(folder, "tetragon.sock")
	account := filepath.Join(folder, "export.json")
	server := run(t, "replay", "--server-address", address, "--not-utf8", "50")
	server.waitLog("msg=Serving ")
	collect := startCollect(t)
	export := run(t, "export", "--server-address", address, "--udp-destination", "frame://"+collect.address, "--account", account)
	server.wait(30 * time.Second)
	_ = export.cmd.Process.Signal(syscall.SIGTERM)
	export.wait(5 * time.Second)
	a := readJSON[ledger.Exporter](t, account)
	if a.Seen != corpus.SampleEvents-2 || a.SubscriptionBreaks < 2 || a.SubscriptionBreaks > 3 || strings.Join(a.LeftOut, " ") != "process.docker parent.docker ancestors.docker" {
		t.Errorf("seen %d, breaks %d, left out %v", a.Seen, a.SubscriptionBreaks, a.LeftOut)
	}
	if log := export.log.String(); !strings.Contains(log, "asked for without process.docker, parent.docker, ancestors.docker") {
		t.Errorf("the account as text does not say it:\n%s", log)
	}
}

// TestSocketBeside: a Tetragon 1.8 on TCP is spoken to on the socket that it serves
// beside, also by doctor.
func TestSocketBeside(t *testing.T) {
	folder := t.TempDir()
	info, socket := filepath.Join(folder, "tetragon-info.json"), filepath.Join(folder, "tetragon.sock")
	server := run(t, "replay", "--as", "1.8", "--server-address", "127.0.0.1:0", "--unix-socket", socket, "--info-file", info, "--loop", "--rate", "100")
	server.waitLog("msg=Serving ")
	export := run(t, "export", "--info-file", info, "--udp-destination", freeUDP(t))
	if log := export.waitLog("Subscribed"); !strings.Contains(log, "address=unix://"+socket) || !strings.Contains(log, "tetragon_version=v1.8") {
		t.Errorf("%s", log)
	}
}

// TestRenewedCertificates: mutual TLS. The certificates of both sides, and the authority,
// are renewed while export runs; after the next break it comes back with the new ones. A
// client without a certificate stays out.
func TestRenewedCertificates(t *testing.T) {
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	issue := func() {
		t.Helper()
		ca := issueCertificate(t, folder, "ca", nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
		issueCertificate(t, folder, "server", ca, &x509.Certificate{DNSNames: []string{"tetragon.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		issueCertificate(t, folder, "client", ca, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	}
	issue()
	at := "127.0.0.1:0"
	play := func() *process {
		t.Helper()
		server := run(t, "replay", "--as", "1.8", "--unix-socket", "", "--server-address", at, "--loop", "--rate", "100",
			"--server-tls-cert-file", file("server.pem"), "--server-tls-key-file", file("server.key"), "--server-tls-client-ca-files", file("ca.pem"))
		at = regexp.MustCompile(`msg=Serving address=(\S+)`).FindStringSubmatch(server.waitLog("msg=Serving "))[1]
		return server
	}
	server := play()
	export := run(t, "export", "--server-address", at, "--udp-destination", freeUDP(t), "--tls-server-name", "tetragon.test",
		"--tls-ca-cert-files", file("ca.pem"), "--tls-cert-file", file("client.pem"), "--tls-key-file", file("client.key"))
	export.waitLog("Subscribed")
	issue()
	_ = server.cmd.Process.Signal(syscall.SIGTERM)
	server.wait(10 * time.Second)
	play()
	waitFor(t, export, "a second subscription", func() bool { return strings.Count(export.log.String(), "msg=\"Subscribed") == 2 })
	stranger := run(t, "export", "--server-address", at, "--udp-destination", freeUDP(t), "--tls-server-name", "tetragon.test", "--tls-ca-cert-files", file("ca.pem"), "--fail-fast")
	if code := stranger.wait(30 * time.Second); code != 1 {
		t.Errorf("without a certificate: exit code %d", code)
	}
}

// issued is a certificate with its key.
type issued struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issueCertificate writes NAME.pem and NAME.key, signed by an authority; nil: by itself.
func issueCertificate(t *testing.T, folder, name string, by *issued, template *x509.Certificate) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by = &issued{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(folder, path), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &issued{certificate, key}
}

// serveTCP plays a recording on a free port of the loopback.
func serveTCP(t *testing.T, config replay.Config) (server *replay.Server, address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	_ = free.Close()
	server, _ = serve(t, address, config)
	return server, address
}
