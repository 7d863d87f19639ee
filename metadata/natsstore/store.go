package natsstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"tetracast/metadata"
)

const (
	// DefaultBucket is the name of the bucket where none is given.
	DefaultBucket = "tetracast_metadata"
	// MaxBytes bounds the bucket, in bytes; the oldest entries make room. An agent
	// takes some 1.5 KB: its record, once under its digest and once for each stream.
	MaxBytes = 256 << 20

	callTimeout   = 2 * time.Second  // of one call of the store
	reconnectWait = time.Second      // between two tries to connect
	openWait      = time.Second      // between two tries to open the bucket
	checkInterval = 30 * time.Second // between two looks whether it is as it should be
)

// replicas are how many servers keep the bucket: three, so that one may die, or one
// where there are less than three. Two would stop when either of them does.
var replicas = []int{3, 1}

// ErrAway says that the store is not there at the moment.
var ErrAway = errors.New("natsstore: not connected")

// Config says where the bucket is. Either URL or Server must be set.
type Config struct {
	// URL names servers that somebody else runs, nats://host:port or tls://host:port,
	// separated by commas. A user and password in it are used.
	URL string
	// CredentialsFile holds a user's JWT and key, as nsc writes them. It is read at
	// each connect. Empty: none.
	CredentialsFile string
	// TLS is used for URL. Nil: as the scheme and the servers want, with the
	// authorities that the system knows.
	TLS *tls.Config

	// Server is in this process. Run starts and stops it.
	Server *Server

	// Bucket is made if it is not there. Empty: DefaultBucket.
	Bucket string
	// Expiry is the time after which an entry is forgotten, unless it is put again;
	// 0: never. A bucket of URL that is already there keeps its own.
	Expiry time.Duration
	// Log takes changes of state. nil: none.
	Log *slog.Logger
}

// Store is a [metadata.Store]. All methods are safe for concurrent use; they work
// while Run does.
type Store struct {
	config Config
	conn   atomic.Pointer[nats.Conn]
	bucket atomic.Pointer[jetstream.KeyValue]
}

var _ metadata.Store = (*Store)(nil)

// New checks the configuration. It connects to nothing.
func New(config Config) (*Store, error) {
	config.Bucket = cmp.Or(config.Bucket, DefaultBucket)
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if (config.URL == "") == (config.Server == nil) {
		return nil, errors.New("natsstore: want a URL or a server of our own")
	}
	if config.Expiry < 0 {
		return nil, fmt.Errorf("natsstore: expiry %v is negative", config.Expiry)
	}
	if config.Server == nil {
		if err := config.checkRemote(); err != nil {
			return nil, err
		}
	}
	return &Store{config: config}, nil
}

// checkRemote checks what the client library would only find out later.
func (c *Config) checkRemote() error {
	for server := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(server)
		if err != nil || u.Hostname() == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return fmt.Errorf("natsstore: server %q, want nats://host:port or tls://host:port", server)
		}
	}
	if c.CredentialsFile == "" {
		return nil
	}
	text, err := os.ReadFile(c.CredentialsFile)
	if err != nil {
		return fmt.Errorf("natsstore: reading the credentials: %w", err)
	}
	if !bytes.Contains(text, []byte("BEGIN NATS USER JWT")) || !bytes.Contains(text, []byte("BEGIN USER NKEY SEED")) {
		return fmt.Errorf("natsstore: %s holds no credentials, want a user's JWT and key as nsc writes them", c.CredentialsFile)
	}
	return nil
}

// Run starts the server, if the store has one, connects, and keeps the bucket in
// order, until ctx ends. An error says that the server of this process does not
// run; servers elsewhere are waited for.
func (s *Store) Run(ctx context.Context) error {
	var failed <-chan error
	if s.config.Server != nil {
		stop, err := s.config.Server.start()
		if err != nil {
			return err
		}
		defer stop()
		failed = s.config.Server.failed
	}
	conn, err := nats.Connect(s.config.URL, s.options()...)
	if err != nil {
		return fmt.Errorf("natsstore: connecting: %w", err)
	}
	defer conn.Close()
	s.conn.Store(conn)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(callTimeout))
	if err != nil {
		return fmt.Errorf("natsstore: %w", err)
	}
	var trouble string
	for {
		wait := openWait
		bucket, err := s.open(ctx, js)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && err.Error() != trouble:
			trouble = err.Error()
			s.config.Log.Info("The shared metadata cannot be reached yet", "cause", err)
		case err == nil:
			wait = checkInterval
			if s.bucket.Swap(&bucket) == nil || trouble != "" {
				s.config.Log.Info("The metadata is shared", "bucket", s.config.Bucket, "server", s.where(conn))
			}
			trouble = ""
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-time.After(wait):
		}
	}
}

func (s *Store) options() []nats.Option {
	log := s.config.Log
	options := []nats.Option{
		nats.Name("tetracast"), nats.Timeout(callTimeout), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectBufSize(-1), // what cannot be sent now fails now
		nats.IgnoreAuthErrorAbort(), // whoever repairs the credentials need not restart us
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("The connection to the shared metadata broke", "cause", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("Connected to the shared metadata", "server", s.where(c)) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Debug("The shared metadata", "cause", err)
		}),
	}
	if s.config.Server != nil {
		return append(options, nats.InProcessServer(s.config.Server.running.Load()),
			nats.UserInfo("tetracast", string(s.config.Server.password)))
	}
	if s.config.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(s.config.CredentialsFile))
	}
	if s.config.TLS != nil {
		options = append(options, nats.Secure(s.config.TLS))
	}
	return options
}

// where names the server for the log.
func (s *Store) where(conn *nats.Conn) string {
	if s.config.Server != nil {
		return "embedded"
	}
	return conn.ConnectedUrlRedacted()
}

// open returns the bucket, and makes it if it is not there. In a server of our own
// it also gets the form that this process wants: three replicas as soon as there
// are three servers, and the expiry.
func (s *Store) open(ctx context.Context, js jetstream.JetStream) (jetstream.KeyValue, error) {
	if !s.conn.Load().IsConnected() {
		return nil, ErrAway
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	bucket, err := js.KeyValue(ctx, s.config.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = s.create(ctx, js)
	}
	if err != nil {
		return nil, fmt.Errorf("natsstore: opening the bucket %s: %w", s.config.Bucket, err)
	}
	if s.config.Server != nil {
		s.shape(ctx, js)
	}
	return bucket, nil
}

func (s *Store) create(ctx context.Context, js jetstream.JetStream) (bucket jetstream.KeyValue, err error) {
	for _, n := range replicas {
		bucket, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: s.config.Bucket, Description: "who sends Tetragon's events, by record and by stream", Storage: jetstream.FileStorage,
			TTL: s.config.Expiry, MaxValueSize: metadata.MaxEntry, MaxBytes: MaxBytes, Replicas: n,
		})
		if err == nil {
			break
		}
	}
	if err == nil {
		s.shape(ctx, js)
	}
	return bucket, err
}

// shape gives the bucket's stream what CreateKeyValue cannot: the oldest entries
// make room, not the newest; and what has changed since it was made. It is tried
// again at the next look.
func (s *Store) shape(ctx context.Context, js jetstream.JetStream) {
	stream, err := js.Stream(ctx, "KV_"+s.config.Bucket)
	if err != nil {
		return
	}
	config := stream.CachedInfo().Config
	want := config
	want.Discard = jetstream.DiscardOld
	want.MaxAge = s.config.Expiry
	want.Duplicates = min(want.Duplicates, cmp.Or(want.MaxAge, want.Duplicates))
	if want.Discard != config.Discard || want.MaxAge != config.MaxAge {
		if _, err = js.UpdateStream(ctx, want); err != nil {
			s.config.Log.Debug("The bucket stays as it is", "cause", err)
			return
		}
	}
	if s.config.Server != nil && s.config.Server.clustered() && config.Replicas < replicas[0] {
		want.Replicas = replicas[0]
		_, err = js.UpdateStream(ctx, want)
		s.config.Log.Debug("More servers are to keep the bucket", "replicas", want.Replicas, "cause", err)
	}
}

// ready returns the bucket, or why it cannot be used.
func (s *Store) ready() (jetstream.KeyValue, error) {
	conn, bucket := s.conn.Load(), s.bucket.Load()
	if conn == nil || bucket == nil || !conn.IsConnected() {
		return nil, ErrAway
	}
	return *bucket, nil
}

// Get returns the value under the key; see [metadata.Store].
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	bucket, err := s.ready()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	entry, err := bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("%w: %s", metadata.ErrNotFound, key)
	}
	if err != nil {
		return nil, fmt.Errorf("natsstore: getting %s: %w", key, err)
	}
	return entry.Value(), nil
}

// Put keeps a copy of the value; see [metadata.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte) error {
	if len(value) > metadata.MaxEntry {
		return fmt.Errorf("%w: %s has %d bytes, more than %d", metadata.ErrBadEntry, key, len(value), metadata.MaxEntry)
	}
	bucket, err := s.ready()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := bucket.Put(ctx, key, value); err != nil {
		return fmt.Errorf("natsstore: putting %s: %w", key, err)
	}
	return nil
}

// Watch calls f for what anybody puts; see [metadata.Store].
func (s *Store) Watch(ctx context.Context, f func(key string, value []byte)) error {
	bucket, err := s.ready()
	if err != nil {
		return err
	}
	watcher, err := bucket.WatchAll(ctx, jetstream.UpdatesOnly(), jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("natsstore: watching: %w", err)
	}
	defer func() { _ = watcher.Stop() }()
	f("", nil)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, open := <-watcher.Updates():
			if !open {
				return fmt.Errorf("natsstore: watching: %w", ErrAway)
			}
			if entry != nil { // nil: all that was there before has been told
				f(entry.Key(), entry.Value())
			}
		}
	}
}
