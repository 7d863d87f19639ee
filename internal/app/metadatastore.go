package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tetracast/datagram"
	"tetracast/metadata"
)

// The defaults of [SharingConfig].
const (
	DefaultMetadataListen = "127.0.0.1:7517"
	DefaultMetadataExpiry = 24 * time.Hour
)

// memoryEntries bounds the store in memory. With the longest records that are
// shared it takes 64 MiB, with usual ones 2 MiB.
const memoryEntries = 4096

// SharingConfig says with whom a collector shares who sends which stream.
type SharingConfig struct {
	Store   string   // auto, embedded, memory, none, or nats:// or tls:// URLs
	Listen  string   // host:port of the embedded server's cluster
	Peers   []string // host:port of others'
	KeyFile string   // empty: none
	Expiry  time.Duration

	Bucket          string
	CredentialsFile string // empty: none
	TLS             TLSConfig

	// Open opens a store in NATS. It is given by the command, so that a program
	// which only exports does not hold a NATS server. Nil: there is none.
	Open func(*SharingConfig, *slog.Logger) (RunningStore, error)
	// StateDir is that of the command; the embedded server's is below it.
	StateDir string
}

// RunningStore is a store that works while Run does.
type RunningStore interface {
	metadata.Store
	Run(ctx context.Context) error
}

func (c *SharingConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Store, "metadata-store", "auto", "where collectors share who sends: embedded, a NATS server in this process; memory, shared with nobody; none; or that of a NATS elsewhere, nats://HOST[:PORT],... or tls://; auto: embedded with --metadata-peers or --state-dir, else memory")
	flags.StringVar(&c.Listen, "metadata-listen", DefaultMetadataListen, "TCP address where the embedded servers of other collectors connect, host:port; used with --metadata-peers")
	flags.StringSliceVar(&c.Peers, "metadata-peers", nil, "--metadata-listen of the collectors to share with, host:port,...; this one's own may be among them")
	flags.StringVar(&c.KeyFile, "metadata-key-file", "", "take only peers that have a key in this file, as tetracast key new makes it, and encrypt what is said to them; --metadata-listen on more than loopback wants it")
	flags.DurationVar(&c.Expiry, "metadata-expiry", DefaultMetadataExpiry, "how long an agent that is silent is remembered; 0: for ever")
	flags.StringVar(&c.Bucket, "metadata-bucket", "", "name of the key-value bucket; empty: tetracast_metadata")
	flags.StringVar(&c.CredentialsFile, "metadata-credentials", "", "credentials file for a NATS elsewhere, a user's JWT and key as nsc writes them")
	c.TLS.addFlagsFor(flags, "metadata-", "the NATS server")
}

// The stores that are no URL.
const (
	storeAuto     = "auto"
	storeEmbedded = "embedded"
	storeMemory   = "memory"
	storeNone     = "none"
)

const storeHint = "auto is the default; --metadata-peers makes the collectors' own servers share, nats://host:port uses a NATS that is there"

// Embedded says whether the store is a server in this process.
func (c *SharingConfig) Embedded() bool { return c.Store == storeEmbedded }

// Dir is the folder of the embedded server.
func (c *SharingConfig) Dir() string { return filepath.Join(c.StateDir, "metadata") }

// Secrets returns what keeps others away from the embedded server; nil: nothing.
func (c *SharingConfig) Secrets() (secrets [][datagram.KeyBytes]byte, err error) {
	if c.KeyFile == "" {
		return nil, nil
	}
	keys, err := readMasterKeys(c.KeyFile)
	for _, key := range keys {
		secrets = append(secrets, key.Derive("metadata peers"))
	}
	return secrets, err
}

// ClientTLS returns what the flags say about a server elsewhere; nil: nothing.
func (c *SharingConfig) ClientTLS() (*tls.Config, error) {
	config, err := c.TLS.load()
	if err != nil {
		return nil, Usage(err, "the --metadata-tls flags are for a NATS elsewhere; peers of our own use --metadata-key-file")
	}
	return config, nil
}

// directory opens the store. The directory is nil if there shall be none; run is
// nil if the store needs nothing to run.
func (c *SharingConfig) directory(log *slog.Logger) (directory *metadata.Directory, run func(context.Context), err error) {
	if err := c.resolve(); err != nil {
		return nil, nil, err
	}
	switch {
	case c.Store == storeNone:
		return nil, nil, nil
	case c.Store == storeMemory:
		return metadata.NewDirectory(metadata.NewMemoryStore(memoryEntries, c.Expiry), c.Expiry), nil, nil
	case c.Open == nil:
		return nil, nil, Usage(fmt.Errorf("app: --metadata-store %s: this program holds no NATS", c.Store), "memory and none need none")
	}
	store, err := c.Open(c, log)
	if err != nil {
		return nil, nil, err
	}
	directory = metadata.NewDirectory(store, c.Expiry)
	return directory, func(ctx context.Context) {
		if err := store.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			log.Error("The metadata is no longer shared", "cause", err)
			<-ctx.Done()
		}
		s := directory.Stats()
		log.Info("The metadata was shared", "hits", s.Hits, "misses", s.Misses, "puts", s.Puts, "dropped", s.Dropped, "errors", s.Errors, "bad_entries", s.Bad)
	}, nil
}

// resolve says what auto means, and refuses what does not fit together.
func (c *SharingConfig) resolve() error {
	auto := c.Store == storeAuto || c.Store == ""
	switch {
	case auto && (len(c.Peers) > 0 || c.StateDir != ""):
		c.Store = storeEmbedded
	case auto:
		c.Store = storeMemory
	}
	remote := strings.HasPrefix(c.Store, "nats://") || strings.HasPrefix(c.Store, "tls://")
	switch {
	case c.Expiry < 0:
		return Usage(fmt.Errorf("app: --metadata-expiry %v is negative", c.Expiry), "24h is the default, 0 is for ever")
	case !remote && c.Store != storeEmbedded && c.Store != storeMemory && c.Store != storeNone:
		return Usage(fmt.Errorf("app: --metadata-store %q, want auto, embedded, memory, none or nats://host:port", c.Store), storeHint)
	case len(c.Peers) > 0 && c.Store != storeEmbedded:
		return Usage(fmt.Errorf("app: --metadata-peers are of the embedded servers, but --metadata-store is %s", c.Store), storeHint)
	case c.CredentialsFile != "" && !remote, c.TLS.wanted() && !remote:
		return Usage(fmt.Errorf("app: --metadata-credentials and --metadata-tls flags are for a NATS elsewhere, but --metadata-store is %s", c.Store), storeHint)
	case c.KeyFile != "" && len(c.Peers) == 0:
		return Usage(errors.New("app: --metadata-key-file is for peers, but there are no --metadata-peers"), storeHint)
	case c.Store == storeEmbedded && c.StateDir == "":
		return Usage(errors.New("app: the embedded metadata server has no folder"), "--state-dir names one; a server that forgot what it had agreed to would mislead its peers")
	}
	return nil
}
