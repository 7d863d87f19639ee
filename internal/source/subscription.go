package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrNotFound: Tetragon answered at none of the places. The error names each
// with its own reason.
var ErrNotFound = errors.New("source: Tetragon answers at none of the places it can be")

// The waits between two attempts: exponential with full jitter, so that a
// fleet does not come back in step. A subscription that lived for livedTime
// begins with the shortest again. A Tetragon on this host disturbs nobody else.
const (
	minWait      = 200 * time.Millisecond
	maxWait      = 30 * time.Second
	maxWaitLocal = time.Second
	livedTime    = 10 * time.Second
)

// Tetragon ends every stream with Internal when an event holds a string that is
// not UTF-8 (a control group's name, in 1.7.0). The stream is good again at
// once, so the wait does not grow; but not more often than this.
const (
	internalWait    = 50 * time.Millisecond
	internalSpacing = 100 * time.Millisecond
)

// listenTime is how long Tetragon takes at the most to put a client on its list: an
// event that happens later is sent to it.
const listenTime = time.Second

// Config says where Tetragon is and what to ask of it.
type Config struct {
	// ServerAddress is unix:///path or host:port. Empty: Tetragon is looked for
	// at Places, at each attempt anew.
	ServerAddress     string
	ServerAddressFrom string // where that address comes from, for the log
	Places            Places

	// Filters are sent with the request. If they are empty and AutoFilters is
	// set, Tetragon's own export filters are, which do not apply to clients by
	// themselves: as GetInfo tells them, or as TetragonConfigDir holds them, in files
	// named for the flags or in tetragon.yaml, which DecodeYAML decodes; nil: it is not
	// read.
	Filters           Filters
	AutoFilters       bool
	TetragonConfigDir string
	DecodeYAML        func([]byte) (map[string]any, error)

	// TLS returns how to speak TLS, for TCP; nil: plain text. It is asked at each attempt,
	// so that certificates which were renewed are read.
	TLS             func() (*tls.Config, error)
	MaxReceiveBytes int        // largest message; zero: MaxMessageBytes
	GRPCClient      GRPCClient // which client receives the events; empty: ClientAuto
	// Guard has a second subscription tell whether a silent stream is stalled, see guard.go.
	Guard bool
	// Remedies lets the subscription ask for less than its filters say where Tetragon
	// could not give the rest, see remedy.go.
	Remedies bool

	// Reconnect goes on when the subscription ends or cannot be made. Without it
	// Run returns nil when Tetragon ends the stream in good order.
	Reconnect bool
	// FailFast returns an error if the first attempt fails.
	FailFast bool

	// Connected is called after each subscription is made, before its first
	// message. It must return soon.
	Connected func(Tetragon)
	// Opened is told of each connection over TCP that is opened, and returns what is
	// called at its end. Nil: nobody is told.
	Opened func(local, remote netip.AddrPort) (closed func())
	// Dial opens connections. Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger gets the log. Nil discards it.
	Logger *slog.Logger
}

// Tetragon is what a subscription learnt about its server.
type Tetragon struct {
	Address       string // where it answered
	Why           string // why it was looked for there
	Version       string
	BuildCommit   string            // since 1.7
	BuildDate     string            // since 1.7
	Config        map[string]string // since 1.7: its flags; nil: it did not tell
	Filters       Filters           // in force for this subscription
	FiltersOrigin string            // where they come from
	// FiltersUnknown: Tetragon's own were wanted, but cannot be read, so all events come.
	FiltersUnknown bool
	Client         GRPCClient // that receives the events: ClientFramer or ClientGRPCGo

	// What was asked for less, see remedy.go.
	WithoutContainers bool // the fields of a control group's name
	WithoutOwn        bool // events of Tetragon's own sending to this process
}

// Stats counts what a subscription lived through.
type Stats struct {
	Connects  uint64        // subscriptions made
	Breaks    uint64        // subscriptions that ended while more was wanted
	Internal  uint64        // of these: with code Internal, as after invalid UTF-8
	TooLarge  uint64        // of these: after a message over MaxReceiveBytes
	Fallbacks uint64        // from the framer to grpc-go, for the rest of the process: 0 or 1
	BlindTime time.Duration // between the end of one and the beginning of the next; see Missed
	Overlap   uint64        // events that may have come twice, when filters were changed
	NotUTF8   uint64        // of Internal: because a text was not UTF-8

	LeftOut []string // fields without which events are asked for, against that; nil: none

	Subscribed bool // a subscription is there now
}

// Subscription is the stream of events of a running Tetragon, made anew
// whenever it breaks.
type Subscription struct {
	config Config
	log    *slog.Logger
	// open makes one attempt; tests replace it.
	open  func(ctx context.Context, want *asked) (session, Tetragon, error)
	asked atomic.Pointer[asked]
	// answers and twin ask over grpc-go, see guard.go; tests replace them.
	answers func(ctx context.Context, address string) bool
	twin    func(ctx context.Context, address string, request *tetragon.GetEventsRequest) bool

	fellBack atomic.Bool // from the framer to grpc-go

	withoutContainers, withoutOwn, celRefused atomic.Bool // see remedy.go
	notUTF8                                   atomic.Uint64
	toldTCP                                   bool // Run's goroutine only

	connects, breaks, internal, tooLarge atomic.Uint64
	blindNS                              atomic.Int64
	blindSince                           atomic.Int64 // nanoseconds since start, plus 1; 0: not blind
	askedAt                              atomic.Int64 // likewise, of a subscription that nothing came of yet; 0: there is none
	start                                time.Time

	lastCause string      // of failed attempts; Run's goroutine only
	warned    atomic.Bool // that the filters are unknown

	changing  sync.Mutex // one SetFilters at a time
	mu        sync.Mutex // guards what follows; taken once a batch
	run       context.Context
	current   *running // nil: there is no subscription now
	successor *running // follows current
	overlap   uint64
	opening   bool   // a successor is being opened
	early     uint64 // messages since then

	follow chan struct{} // tells Run that there is a successor; capacity 1
}

// session is one subscription, through one of the two clients.
type session interface {
	// next returns the next messages, at least one, valid until the next call. It
	// ends with io.EOF, with a gRPC status, or with the context that the session
	// was opened with.
	next() ([][]byte, error)
	close()
}

// New checks the configuration. It does nothing else.
func New(config Config) (*Subscription, error) {
	if config.MaxReceiveBytes < 0 {
		return nil, fmt.Errorf("source: largest message of %d bytes, want a positive number", config.MaxReceiveBytes)
	}
	if config.MaxReceiveBytes == 0 {
		config.MaxReceiveBytes = MaxMessageBytes
	}
	if err := config.GRPCClient.check(config.TLS != nil); err != nil {
		return nil, err
	}
	if a := config.ServerAddress; a != "" && !strings.HasPrefix(a, "unix:///") {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("source: server address %q: want unix:///path or host:port: %w", a, err)
		}
	}
	if config.ServerAddressFrom == "" {
		config.ServerAddressFrom = "the caller"
	}
	if config.Connected == nil {
		config.Connected = func(Tetragon) {}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Subscription{config: config, log: config.Logger, start: time.Now(), follow: make(chan struct{}, 1)}
	s.asked.Store(&asked{config.Filters, config.AutoFilters})
	s.open, s.answers, s.twin = s.walk, s.config.answers, s.config.twin
	return s, nil
}

// Stats returns the counts so far. It may be called at any time.
func (s *Subscription) Stats() Stats {
	blind := time.Duration(s.blindNS.Load())
	if since := s.blindSince.Load(); since != 0 {
		blind += s.sightBegins() - time.Duration(since-1)
	}
	stats := Stats{
		Connects: s.connects.Load(), Breaks: s.breaks.Load(), Internal: s.internal.Load(),
		TooLarge: s.tooLarge.Load(), BlindTime: blind, NotUTF8: s.notUTF8.Load(),
	}
	if s.withoutContainers.Load() {
		stats.LeftOut = slices.Clone(containerPaths)
	}
	if s.fellBack.Load() {
		stats.Fallbacks = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Overlap, stats.Subscribed = s.overlap, s.current != nil
	return stats
}

// Missed says that nothing was seen since so long before New: BlindTime begins there.
// Call it before Run.
func (s *Subscription) Missed(before time.Duration) {
	s.blindSince.Store(min(1-int64(before), -1)) // 0 means not blind
}

// Run subscribes and hands on what comes, as it comes, until ctx ends or,
// without Config.Reconnect, the stream does. Every attempt walks all places.
func (s *Subscription) Run(ctx context.Context, take Take) error {
	ctx, ended := context.WithCancel(ctx)
	defer s.closeSuccessor()
	defer ended()
	s.mu.Lock()
	s.run = ctx
	s.mu.Unlock()
	wait := minWait
	for first := true; ; first = false {
		opened := time.Now()
		err := s.once(ctx, take, &opened)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == errReplaced {
			continue
		}
		failed := errors.Is(err, errNotOpened)
		switch {
		case !failed && !s.config.Reconnect:
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("source: the subscription broke: %w", err)
		case failed && (!s.config.Reconnect || first && s.config.FailFast):
			return errors.Unwrap(err)
		}
		lived := time.Since(opened)
		if !failed && lived >= livedTime {
			wait = minWait
		}
		pause := rand.N(wait)
		if !failed && status.Code(err) == codes.Internal {
			pause = max(internalWait, internalSpacing-lived)
		} else {
			wait = min(2*wait, s.config.longestWait())
		}
		if err := s.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// notOpened wraps the error of an attempt that made no subscription.
type notOpened struct{ cause error }

func (e notOpened) Error() string        { return e.cause.Error() }
func (e notOpened) Unwrap() error        { return e.cause }
func (e notOpened) Is(target error) bool { return target == errNotOpened }

var errNotOpened = errors.New("not opened")

// once makes one attempt and hands on what comes until the stream ends.
func (s *Subscription) once(ctx context.Context, take Take, opened *time.Time) error {
	r := s.succeed()
	if r == nil {
		var err error
		if r, err = s.begin(ctx, s.asked.Load(), context.Background()); err != nil {
			s.logFailure(ctx, err)
			return notOpened{err}
		}
	}
	defer r.end(context.Canceled) // ends the stream with the session
	defer r.session.close()
	if !s.setCurrent(r) {
		return errReplaced
	}
	defer s.unsetCurrent()
	found := r.found
	*opened = time.Now()
	s.askedAt.Store(int64(time.Since(s.start)) + 1)
	s.connects.Add(1)
	s.lastCause = ""
	s.logSubscribed(&found)
	s.config.Connected(found)
	for came := false; ; came = true {
		batch, err := r.session.next()
		if err != nil {
			if s.replaced() {
				return errReplaced
			}
			s.broke(ctx, err)
			s.fallBack(ctx, found, err)
			if !came {
				s.refusedFilter(&found, err)
			}
			return err
		}
		s.seeAgain()
		s.countOverlap(len(batch))
		take(batch)
	}
}

// logSubscribed says what was found, and once what the way to it means.
func (s *Subscription) logSubscribed(t *Tetragon) {
	args := []any{"address", t.Address, "why", t.Why, "tetragon_version", t.Version, "client", t.Client, "filters", t.FiltersOrigin,
		"allow", len(t.Filters.Allow), "deny", len(t.Filters.Deny), "fields", len(t.Filters.Fields)}
	if t.WithoutContainers {
		args = append(args, "left_out", strings.Join(containerPaths, ","))
	}
	if t.WithoutOwn {
		args = append(args, "without_own_connection", true)
	}
	s.log.Info("Subscribed to Tetragon's events", args...)
	if t.OverTCP() && !s.toldTCP {
		s.toldTCP = true
		s.log.Warn("Events come over TCP: with a tracing policy on tcp_sendmsg or the like Tetragon makes an event of each that it sends here. They are excluded, but keep both busy",
			"address", t.Address, "hint", "a unix socket has no such loop: --server-address unix:///var/run/tetragon/tetragon.sock, if Tetragon serves it")
	}
}

// OverTCP says whether Tetragon answered over TCP, where its sends can be events.
func (t *Tetragon) OverTCP() bool {
	network, _ := split(t.Address)
	return t.Address != "" && network != "unix"
}

// broke counts the end of a subscription that was to go on.
func (s *Subscription) broke(ctx context.Context, err error) {
	if ctx.Err() != nil || !s.config.Reconnect {
		return
	}
	if asked := s.askedAt.Load(); asked == 0 || s.blindSince.Load() == 0 || time.Since(s.start) >= time.Duration(asked-1)+listenTime {
		s.seeAgain()
		s.blindSince.Store(int64(time.Since(s.start)) + 1)
	} // else it is not known to have begun to listen
	s.askedAt.Store(0)
	s.breaks.Add(1)
	switch status.Code(err) {
	case codes.Internal:
		s.internal.Add(1)
	case codes.ResourceExhausted:
		s.tooLarge.Add(1)
	}
	s.log.Warn("The subscription to Tetragon broke; it is made again", "cause", err)
	if notUTF8(err) {
		s.leaveOutContainers()
	}
}

// seeAgain ends the time in which nothing was seen.
func (s *Subscription) seeAgain() {
	if s.askedAt.Load() == 0 && s.blindSince.Load() == 0 {
		return // for most batches
	}
	end := s.sightBegins()
	if since := s.blindSince.Swap(0); since != 0 {
		s.blindNS.Add(int64(end) - (since - 1))
	}
	s.askedAt.Store(0)
}

// sightBegins is when what happens is seen again, since start: now, if there is no
// subscription. A request for events is not answered before there is one, and
// Tetragon may take a moment until it listens: the first event proves that it does,
// and listenTime is held to be long enough.
func (s *Subscription) sightBegins() time.Duration {
	now := time.Since(s.start)
	if asked := s.askedAt.Load(); asked != 0 {
		return min(now, time.Duration(asked-1)+listenTime)
	}
	return now
}

// logFailure logs an attempt that failed, if it failed for another reason than
// the one before.
func (s *Subscription) logFailure(ctx context.Context, err error) {
	if ctx.Err() != nil || err.Error() == s.lastCause {
		return
	}
	s.lastCause = err.Error()
	s.log.Warn("Tetragon is not there yet; it is tried again until it is", "cause", err)
}
