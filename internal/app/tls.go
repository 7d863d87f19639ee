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
}

func (c *TLSConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&c.CAFiles, "tls-ca-cert-files", nil, "certificates of the authorities that may have signed Tetragon's")
	flags.StringVar(&c.CertFile, "tls-cert-file", "", "certificate of this client, for mutual TLS")
	flags.StringVar(&c.KeyFile, "tls-key-file", "", "key of this client's certificate")
	flags.StringVar(&c.ServerName, "tls-server-name", "", "name to expect in Tetragon's certificate")
	flags.BoolVar(&c.SkipVerify, "tls-skip-verify", false, "use TLS, but take any certificate: anybody can pose as Tetragon")
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
		config.RootCAs = x509.NewCertPool()
	}
	for _, path := range c.CAFiles {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("app: --tls-ca-cert-files: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("app: --tls-ca-cert-files: %s holds no certificate in PEM form", path)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, fmt.Errorf("app: --tls-cert-file %q and --tls-key-file %q: want both or none", c.CertFile, c.KeyFile)
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("app: --tls-cert-file and --tls-key-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
