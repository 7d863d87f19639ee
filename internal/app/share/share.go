// Package share opens the metadata stores that need a NATS client or server. It is
// apart from package app, so that a program which only exports holds neither.
package share

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"tetracast/internal/app"
	"tetracast/metadata/natsstore"
)

// Open opens the store that the configuration names: a server in this process, or
// servers elsewhere.
func Open(c *app.SharingConfig, log *slog.Logger) (app.RunningStore, error) {
	config := natsstore.Config{Bucket: c.Bucket, Expiry: c.Expiry, Log: log}
	var err error
	if c.Embedded() {
		config.Server, err = embedded(c, log)
	} else {
		config.URL, config.CredentialsFile = c.Store, c.CredentialsFile
		config.TLS, err = c.ClientTLS()
	}
	if err != nil {
		return nil, err
	}
	store, err := natsstore.New(config)
	if err != nil {
		return nil, app.Usage(fmt.Errorf("app: --metadata-store: %w", err), "docs/metadata-store.md has an example")
	}
	return store, nil
}

func embedded(c *app.SharingConfig, log *slog.Logger) (*natsstore.Server, error) {
	config := natsstore.ServerConfig{Dir: c.Dir(), Log: log}
	if len(c.Peers) > 0 {
		host, err := os.Hostname()
		if err != nil {
			return nil, app.Failed(fmt.Errorf("app: the collector's name among its peers: %w", err), "a host must have a name of its own")
		}
		_, port, _ := net.SplitHostPort(c.Listen) // checked below
		config.Name, config.Listen, config.Peers = host+"-"+port, c.Listen, c.Peers
		if config.Secrets, err = c.Secrets(); err != nil {
			return nil, err
		}
	}
	server, err := natsstore.NewServer(config)
	var taken *net.OpError
	switch {
	case errors.Is(err, natsstore.ErrOpenToAll):
		return nil, app.Usage(fmt.Errorf("app: --metadata-listen: %w", err), "--metadata-key-file FILE, the same on all collectors, keeps others away; tetracast key new FILE makes one")
	case errors.As(err, &taken):
		return nil, app.Failed(fmt.Errorf("app: --metadata-listen: %w", err), "is another collector running? --metadata-listen takes another address")
	case err != nil:
		return nil, app.Usage(fmt.Errorf("app: --metadata-listen and --metadata-peers: %w", err), "docs/metadata-store.md has an example")
	}
	return server, nil
}
