package source_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"tetracast/internal/corpus"
	"tetracast/internal/replay"
	"tetracast/internal/source"
)

// TestFiltersInForce: given filters, else Tetragon's own from GetInfo, else from
// its configuration folder, else none, with one warning.
func TestFiltersInForce(t *testing.T) {
	conf := map[string]string{
		"export-allowlist": "{\"event_set\":[\"PROCESS_EXEC\"]}\n{\"event_set\":[\"PROCESS_KPROBE\"]}",
		"export-denylist":  `{"health_check":true}`,
		"field-filters":    `{"fields":"process.exec_id"}`,
	}
	folder := t.TempDir()
	for key, value := range conf {
		if err := os.WriteFile(filepath.Join(folder, key), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given, err := source.ParseFilters(`{"namespace":["default"]}`, "", "")
	if err != nil {
		t.Fatal(err)
	}
	f := func(server replay.Config, config source.Config, allow, deny, fields int, origin string, warnings int) {
		t.Helper()
		address := "unix://" + filepath.Join(t.TempDir(), "t.sock")
		played, _ := serve(t, address, server)
		var log bytes.Buffer
		var got source.Tetragon
		config.ServerAddress, config.Logger = address, slog.New(slog.NewTextHandler(&log, nil))
		config.Connected = func(found source.Tetragon) { got = found }
		s, err := source.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(context.Background(), func([][]byte) {}); err != nil {
			t.Fatal(err)
		}
		r := played.Request()
		if len(r.AllowList) != allow || len(r.DenyList) != deny || len(r.FieldFilters) != fields {
			t.Errorf("%s: asked for %d allowed, %d denied, %d fields; want %d, %d, %d", origin,
				len(r.AllowList), len(r.DenyList), len(r.FieldFilters), allow, deny, fields)
		}
		if !strings.Contains(got.FiltersOrigin, origin) || !strings.Contains(log.String(), "filters=") {
			t.Errorf("the origin is %q, want %q; log:\n%s", got.FiltersOrigin, origin, log.String())
		}
		if n := strings.Count(log.String(), "all events will come"); n != warnings {
			t.Errorf("%s: %d warnings, want %d", origin, n, warnings)
		}
	}
	f(replay.Config{Conf: conf}, source.Config{AutoFilters: true}, 2, 1, 1, "GetInfo", 0)
	f(replay.Config{Conf: conf}, source.Config{}, 0, 0, 0, "none, as asked", 0)
	f(replay.Config{Conf: conf}, source.Config{AutoFilters: true, Filters: given}, 1, 0, 0, "given", 0)
	f(replay.Config{Version: "v1.6.0"}, source.Config{AutoFilters: true, TetragonConfigDir: folder}, 2, 1, 1, folder, 0)
	f(replay.Config{Version: "v1.6.0"}, source.Config{AutoFilters: true}, 0, 0, 0, "cannot be read", 1)
	f(replay.Config{Version: "v1.6.0"}, source.Config{AutoFilters: true, TetragonConfigDir: t.TempDir()}, 0, 0, 0, "cannot be read", 1)
	none := t.TempDir()
	if err := os.WriteFile(filepath.Join(none, "server-address"), []byte("localhost:54321"), 0o600); err != nil {
		t.Fatal(err)
	}
	f(replay.Config{Version: "v1.6.0"}, source.Config{AutoFilters: true, TetragonConfigDir: none}, 0, 0, 0, "Tetragon's own export has none, says "+none, 0)
	f(replay.Config{Conf: map[string]string{"export-allowlist": "{"}}, source.Config{AutoFilters: true}, 0, 0, 0, "cannot be read", 1)
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	a := authority{t: t}
	pair := a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a authority) issue(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: "test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// TestTLS: mutual TLS on TCP; a server of another authority, or a server that
// wants a certificate, is no server.
func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	server := ours.issue(&x509.Certificate{DNSNames: []string{"tetragon.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	client := ours.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	serve(t, address, replay.Config{TLS: credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool()})})
	f := func(config *tls.Config, want string) {
		t.Helper()
		var speak func() (*tls.Config, error)
		if config != nil {
			speak = func() (*tls.Config, error) { return config, nil }
		}
		s, err := source.New(source.Config{ServerAddress: address, TLS: speak})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = s.Run(context.Background(), func(batch [][]byte) { n += len(batch) })
		if want == "" {
			if err != nil || n != corpus.SampleEvents {
				t.Errorf("%d events, %v", n, err)
			}
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) || n > 0 {
			t.Errorf("%d events, error %v, want %q", n, err, want)
		}
	}
	f(&tls.Config{RootCAs: theirs.pool(), ServerName: "tetragon.test", Certificates: []tls.Certificate{client}}, "unknown authority")
	f(&tls.Config{RootCAs: ours.pool(), ServerName: "other.test", Certificates: []tls.Certificate{client}}, "other.test")
	f(&tls.Config{RootCAs: ours.pool(), ServerName: "tetragon.test"}, "answers at none")
	f(nil, "source: ")
	f(&tls.Config{RootCAs: ours.pool(), ServerName: "tetragon.test", Certificates: []tls.Certificate{client}}, "")
}
