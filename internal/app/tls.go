package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/spf13/pflag"
)

// TLSConfig has the names and the meaning of tetra's TLS flags. Its zero value
// is plain text.
type TLSConfig struct {
	CAFiles    []string
	CertFile   string
	KeyFile    string
	ServerName string
	SkipVerify bool

	prefix string // of the flags' names
}

func (c *TLSConfig) addFlags(flags *pflag.FlagSet) { c.addFlagsFor(flags, "", "Tetragon") }

// addFlagsFor declares the flags for the connection to another server.
func (c *TLSConfig) addFlagsFor(flags *pflag.FlagSet, prefix, server string) {
	c.prefix = prefix
	flags.StringSliceVar(&c.CAFiles, prefix+"tls-ca-cert-files", nil, "certificates of the authorities that may have signed "+server+"'s")
	flags.StringVar(&c.CertFile, prefix+"tls-cert-file", "", "certificate of this client, for mutual TLS")
	flags.StringVar(&c.KeyFile, prefix+"tls-key-file", "", "key of this client's certificate")
	flags.StringVar(&c.ServerName, prefix+"tls-server-name", "", "name to expect in "+server+"'s certificate")
	flags.BoolVar(&c.SkipVerify, prefix+"tls-skip-verify", false, "use TLS, but take any certificate: anybody can pose as "+server)
}

// wanted says whether any flag asks for TLS.
func (c *TLSConfig) wanted() bool {
	return len(c.CAFiles) > 0 || c.CertFile != "" || c.KeyFile != "" || c.ServerName != "" || c.SkipVerify
}

// load reads the files. It returns nil if no flag asks for TLS.
func (c *TLSConfig) load() (*tls.Config, error) {
	if !c.wanted() {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.SkipVerify}
	if len(c.CAFiles) > 0 {
		var err error
		if config.RootCAs, err = readAuthorities(c.prefix+"tls-ca-cert-files", c.CAFiles); err != nil {
			return nil, err
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, fmt.Errorf("app: --%stls-cert-file %q and --%stls-key-file %q: want both or none", c.prefix, c.CertFile, c.prefix, c.KeyFile)
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("app: --%stls-cert-file and --%stls-key-file: %w", c.prefix, c.prefix, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// readAuthorities reads the certificates of authorities, which a flag names.
func readAuthorities(flag string, paths []string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("app: --%s: %w", flag, err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("app: --%s: %s holds no certificate in PEM form", flag, path)
		}
	}
	return pool, nil
}
