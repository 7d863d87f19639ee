package natsstore

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	clusterName  = "tetracast"
	startTimeout = 10 * time.Second
	storeBytes   = 4 * MaxBytes // the most that a server takes of the disk
	logInterval  = time.Minute  // between two lines about trouble
)

// ErrOpenToAll says that a cluster port would take whoever reaches it for a peer.
var ErrOpenToAll = errors.New("natsstore: without a secret the cluster port must be on loopback")

// ServerConfig says what a server in this process does. Only Dir must be set.
type ServerConfig struct {
	// Dir is the server's own folder, which is made if it is not there.
	Dir string
	// Name is unique among the peers, and the same after a restart.
	Name string
	// Listen is where peers connect, host:port. Empty: nowhere.
	Listen string
	// Peers are the Listen of the others, host:port. This server's own may be among
	// them, so that all can have the same list.
	Peers []string
	// Secrets, one or two, keep others away from the cluster port and encrypt what
	// goes over it. A peer has at least one of them. Without one, whoever reaches the
	// port can read and write all metadata.
	Secrets [][ed25519.SeedSize]byte
	// Log takes the server's troubles, at most one a minute. nil: none.
	Log *slog.Logger
}

// Server is a NATS server that a [Store] runs. It serves no clients but those of
// this process.
type Server struct {
	config  ServerConfig
	options *server.Options
	// password is what its clients need, if they could come from elsewhere.
	password password
	running  atomic.Pointer[server.Server]
	failed   chan error
}

// NewServer checks the configuration. It opens no port; but one that is taken is
// an error.
func NewServer(config ServerConfig) (*Server, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Dir == "" {
		return nil, errors.New("natsstore: a server needs a folder")
	}
	options := &server.Options{
		ServerName: config.Name, DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: config.Dir, JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: storeBytes,
	}
	s := &Server{config: config, options: options, failed: make(chan error, 1)}
	if config.Listen == "" && len(config.Peers) == 0 {
		return s, nil
	}
	return s, s.cluster()
}

// cluster sets the options that make it one of several.
func (s *Server) cluster() error {
	c := s.config
	if c.Listen == "" || c.Name == "" || len(c.Peers) == 0 {
		return errors.New("natsstore: a cluster needs a name, an address to listen on and peers")
	}
	host, port, err := splitHostPort(c.Listen)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); len(c.Secrets) == 0 && host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return fmt.Errorf("%w: it is %s", ErrOpenToAll, c.Listen)
	}
	s.options.Cluster = server.ClusterOpts{Name: clusterName, Host: host, Port: port, NoAdvertise: true}
	// A server that listens for no clients never opens its cluster port (nats-server
	// 2.15, Server.StartRouting). So it gets a port on loopback, for which only this
	// process has the password.
	s.options.DontListen, s.options.Host, s.options.Port = false, "127.0.0.1", server.RANDOM_PORT
	s.password = password(rand.Text())
	s.options.CustomClientAuthentication = s.password
	for _, peer := range c.Peers {
		if _, _, err := splitHostPort(peer); err != nil {
			return err
		}
		s.options.Routes = append(s.options.Routes, &url.URL{Scheme: "nats", Host: peer})
	}
	if len(c.Secrets) > 0 {
		if s.options.Cluster.TLSConfig, err = peerTLS(c.Secrets); err != nil {
			return err
		}
	}
	probe, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("natsstore: the cluster port: %w", err)
	}
	return probe.Close()
}

func splitHostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || host == "" || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("natsstore: address %q, want host:port with a port of 1 to 65535", address)
	}
	return host, port, nil
}

// clustered says whether it has peers.
func (s *Server) clustered() bool { return s.options.Cluster.Port != 0 }

// start starts the server. After stop it has ended.
func (s *Server) start() (stop func(), err error) {
	running, err := server.NewServer(s.options)
	if err != nil {
		return nil, fmt.Errorf("natsstore: the server: %w", err)
	}
	running.SetLoggerV2(&serverLog{log: s.config.Log, fatal: s.failed}, false, false, false)
	running.Start()
	stop = func() {
		running.Shutdown()
		running.WaitForShutdown()
	}
	select {
	case err = <-s.failed:
	default:
		if !running.ReadyForConnections(startTimeout) {
			err = fmt.Errorf("natsstore: the server is not ready after %v", startTimeout)
		}
	}
	if err != nil {
		stop()
		return nil, err
	}
	s.running.Store(running)
	return stop, nil
}

// password is a client's, and takes those that have it.
type password string

// Check implements [server.Authentication].
func (p password) Check(client server.ClientAuthentication) bool {
	return subtle.ConstantTimeCompare([]byte(client.GetOpts().Password), []byte(p)) == 1
}

// serverLog takes the server's log lines: what goes wrong on the way to a peer that
// is away would else come each second.
type serverLog struct {
	log   *slog.Logger
	fatal chan<- error

	mu   sync.Mutex
	next time.Time
}

func (l *serverLog) Noticef(format string, args ...any) { l.debug(format, args) }
func (l *serverLog) Debugf(format string, args ...any)  { l.debug(format, args) }
func (l *serverLog) Tracef(format string, args ...any)  {}
func (l *serverLog) Warnf(format string, args ...any)   { l.trouble(format, args) }
func (l *serverLog) Errorf(format string, args ...any)  { l.trouble(format, args) }

func (l *serverLog) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- fmt.Errorf("natsstore: the server: "+format, args...):
	default:
	}
}

func (l *serverLog) debug(format string, args []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("The metadata server", "says", fmt.Sprintf(format, args...))
	}
}

func (l *serverLog) trouble(format string, args []any) {
	l.mu.Lock()
	now := time.Now()
	due := !now.Before(l.next)
	if due {
		l.next = now.Add(logInterval)
	}
	l.mu.Unlock()
	if !due {
		l.debug(format, args)
		return
	}
	l.log.Warn("The metadata server has trouble", "cause", fmt.Sprintf(format, args...))
}
