package natsstore

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// peerName is what peers call each other in certificates.
const peerName = "tetracast-metadata"

// peerTLS returns what lets only those connect who have one of the secrets, and
// encrypts. Each secret is the key of an authority that nobody else has; a peer
// makes itself a certificate of the first. Both sides show one, so the secret
// itself never leaves a process, and with two of them one can be replaced by the
// other.
func peerTLS(secrets [][ed25519.SeedSize]byte) (*tls.Config, error) {
	// No clock is trusted: who has the secret is a peer.
	valid := x509.Certificate{
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true,
	}
	authorities := x509.NewCertPool()
	var first *x509.Certificate
	for _, secret := range secrets {
		key := ed25519.NewKeyFromSeed(secret[:])
		authority := valid
		authority.SerialNumber, authority.Subject = big.NewInt(1), pkix.Name{CommonName: peerName}
		authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
		der, err := x509.CreateCertificate(rand.Reader, &authority, &authority, key.Public(), key)
		if err != nil {
			return nil, fmt.Errorf("natsstore: making an authority of the secret: %w", err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("natsstore: reading the authority: %w", err)
		}
		authorities.AddCert(made)
		if first == nil {
			first = made
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("natsstore: making a key: %w", err)
	}
	peer := valid
	peer.SerialNumber, peer.Subject, peer.DNSNames = big.NewInt(2), pkix.Name{CommonName: peerName + " peer"}, []string{peerName}
	peer.KeyUsage = x509.KeyUsageDigitalSignature
	peer.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, &peer, first, public, ed25519.NewKeyFromSeed(secrets[0][:]))
	if err != nil {
		return nil, fmt.Errorf("natsstore: making a certificate: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: peerName,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		RootCAs:      authorities, ClientCAs: authorities, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}
