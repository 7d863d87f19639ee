package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/credentials"

	"tetracast/internal/replay"
	"tetracast/internal/source"
	"tetracast/internal/upstream"
)

// ReplayConfig is the configuration of the replay command.
type ReplayConfig struct {
	Log           LogConfig
	ServerAddress string
	Recording     string
	Rate          int
	Loop          bool
	As            string

	MetricsAddress string
	Losses         map[string]int64
	InfoFile       string

	UnixSocket    string // empty: none
	NotUTF8       int
	Feedback      bool
	CertFile      string
	KeyFile       string
	ClientCAFiles []string
}

// AddFlags declares the command's flags.
func (c *ReplayConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.ServerAddress, "server-address", "", "where to serve, unix:///path or host:port; empty: where the version that is played does, unix:///var/run/tetragon/tetragon.sock since 1.7 and localhost:54321 before")
	flags.StringVar(&c.Recording, "recording", "", "recording to serve, .binpb, plain or compressed with gzip or zstd; empty: the built-in sample")
	flags.IntVar(&c.Rate, "rate", 0, "events a second; 0: as fast as the client reads")
	flags.BoolVar(&c.Loop, "loop", false, "play the recording again and again, to any number of clients")
	flags.StringVar(&c.As, "as", "", "version to answer as, such as 1.6; empty: that of the recording")
	flags.StringVar(&c.MetricsAddress, "metrics-address", "", "serve the counters of Tetragon's own losses there, host:port, under the names of the version that is played; empty: do not")
	flags.StringToInt64Var(&c.Losses, "loss", nil, "STAGE=N: each look at the metrics finds N more lost at this stage, one of bpf_missed, ring_buffer, event_queue, listener_overflow_all_clients")
	flags.StringVar(&c.InfoFile, "info-file", "", "write this file as Tetragon writes tetragon-info.json; empty: do not")
	flags.StringVar(&c.UnixSocket, "unix-socket", "auto", "with --server-address on TCP, a unix socket to serve beside it in plain text, as Tetragon does since 1.8; auto: /var/run/tetragon/tetragon.sock with --as 1.8 and later, else none; empty: none")
	flags.StringVar(&c.CertFile, "server-tls-cert-file", "", "certificate with which TCP is served over TLS; this and the following flags are those of Tetragon since 1.8, and what the files hold is read at each handshake")
	flags.StringVar(&c.KeyFile, "server-tls-key-file", "", "key of that certificate")
	flags.StringSliceVar(&c.ClientCAFiles, "server-tls-client-ca-files", nil, "certificates of the authorities of which clients have to show a certificate")
	flags.IntVar(&c.NotUTF8, "not-utf8", 0, "every so many-th event has a control group's name that is not UTF-8, at which the stream ends and the event is lost, unless its fields are left out; 0: none")
	flags.BoolVar(&c.Feedback, "feedback", false, "make an event of each write to a client over TCP, as Tetragon with a policy on tcp_sendmsg does, and go on with these when the recording has ended")
	c.Log.addFlags(flags)
}

// Replay serves a recording until its one client has read it, or ctx ends.
func Replay(ctx context.Context, c ReplayConfig, streams Streams) error {
	log, err := streams.logger(c.Log)
	if err != nil {
		return err
	}
	version := c.As
	if version != "" && version[0] != 'v' {
		version = "v" + version
	}
	config := replay.Config{
		Recording: c.Recording, EventsPerSecond: c.Rate, Loop: c.Loop, Version: version, Logger: log,
		InfoFile: c.InfoFile, Losses: map[string]uint64{}, NotUTF8Every: c.NotUTF8, Feedback: c.Feedback,
	}
	for stage, n := range c.Losses {
		if !slices.Contains(upstream.Stages(), stage) || n < 0 {
			return Usage(fmt.Errorf("app: --loss %s=%d, want one of %s and a positive number", stage, n, strings.Join(upstream.Stages(), ", ")),
				"such as --loss ring_buffer=5")
		}
		config.Losses[stage] = uint64(n)
	}
	if c.MetricsAddress != "" {
		if config.Metrics, err = net.Listen("tcp", c.MetricsAddress); err != nil {
			return Failed(fmt.Errorf("app: --metrics-address: %w", err), "port 0 takes a free port")
		}
		defer func() { _ = config.Metrics.Close() }()
		log.Info("Serving metrics", "address", config.Metrics.Addr())
	}
	if c.ServerAddress == "" {
		c.ServerAddress = replay.DefaultAddress(version)
	}
	if config.TLS, err = c.transport(); err != nil {
		return Usage(err, "the --server-tls flags have the meaning of Tetragon's")
	}
	beside, err := c.beside(version)
	if err != nil {
		return Failed(err, "--unix-socket takes another place, or none with an empty text")
	}
	if config.Beside = beside; beside != nil {
		defer func() { _ = beside.Close() }()
	}
	server, err := replay.New(config)
	if err != nil {
		return explainRecording(err)
	}
	listener, err := replay.Listen(c.ServerAddress)
	if err != nil {
		return Failed(err, "--server-address takes another place, such as unix:///tmp/tetragon.sock")
	}
	if beside != nil {
		log.Info("Serving beside", "address", beside.Addr())
	}
	log.Info("Serving", "address", listener.Addr())
	if err := server.Serve(ctx, listener); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return server.Damage()
}

// beside opens the unix socket beside TCP, if there is to be one.
func (c *ReplayConfig) beside(version string) (net.Listener, error) {
	path := c.UnixSocket
	if strings.HasPrefix(c.ServerAddress, "unix://") {
		return nil, nil
	}
	if path == "auto" {
		path = replay.SocketBeside(version)
	}
	if path == "" {
		return nil, nil
	}
	return replay.Listen("unix://" + path)
}

// transport returns what speaks TLS; nil: TCP is served in plain text. The files are
// read at each handshake: what was renewed counts.
func (c *ReplayConfig) transport() (credentials.TransportCredentials, error) {
	if c.CertFile+c.KeyFile == "" && len(c.ClientCAFiles) == 0 {
		return nil, nil
	}
	read := func() (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("app: --server-tls-cert-file and --server-tls-key-file: %w", err)
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
		if len(c.ClientCAFiles) > 0 {
			config.ClientAuth = tls.RequireAndVerifyClientCert
			if config.ClientCAs, err = readAuthorities("server-tls-client-ca-files", c.ClientCAFiles); err != nil {
				return nil, err
			}
		}
		return config, nil
	}
	config, err := read()
	if err != nil {
		return nil, err
	}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return read() }
	return credentials.NewTLS(config), nil
}

func explainRecording(err error) error {
	if errors.Is(err, source.ErrNoRecording) || errors.Is(err, source.ErrCutOff) {
		return Failed(err, "a recording is a sequence of GetEventsResponse messages, each behind its length as a varint, plain, .gz or .zst")
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return Failed(err, "--recording names a file; without it the built-in sample is taken")
	}
	return err
}
